/**
 * Convolutions for CPU drivers. There a load is the cost (a few cycles a lane), arithmetic and broadcasts are nearly free:
 * each lane fetches distinct data once, and what all lanes need goes round by shuffles.
 *
 * Kernel 3 x 3 x 3, 16 channels by 4 voxels a lane:
 *
 *     for (var kt …) { for (var kh …) { for (var c = 0u; c < p.ci; c++) {
 *       let four0 = select(vec4f(), src[…], inside);                           // 4 voxels; x0 and x5 are the neighbours'
 *       let x0 = select(0.0, subgroupShuffle(four0.w, before), gw > 0u); …
 *       let w0_0 = weight[wat_0 + tap]; …                                      // another channel in each lane
 *       let s0_0 = vec4f(subgroupShuffle(w0_0, from0));
 *       a0 = fma(s0_0, vec4f(x0, x1, x2, x3), a0); … } } }
 */
import {
  ceilDiv,
  epilogueBindings,
  epilogueFunction,
  foldGrid,
  shader,
  type Access,
  type Dispatch,
  type Epilogue,
} from '../kernel.ts';
import { chosen } from '../chosen.ts';
import { laneIndices, ofLane } from '../lanes.ts';
import { range } from '../print.ts';
import type { Conv3dProblem, Correlation, ScalarTile } from './plan.ts';

const lines = (...parts: (string | string[])[]): string => parts.flat().join('\n');

interface Fused {
  access: Access;
  epilogue: Epilogue | undefined;
  bind: readonly number[];
}

/** Value of channel i of a broadcast (or, without subgroups, private) operand fetched as `name_block`. */
const share = (tile: ScalarTile, name: string, i: number): string =>
  tile.broadcast ? ofLane(`${name}_${Math.floor(i / tile.lanes)}`, i % tile.lanes) : `${name}_${i}`;
const indices = (tile: ScalarTile, word: string): string => laneIndices(tile.broadcast ? tile.lanes : 1, word);
/** How many fetches a lane makes for `channels` shared values, and the channel each of them is for. */
const fetches = (tile: ScalarTile): number => (tile.broadcast ? ceilDiv(tile.channels, tile.lanes) : tile.channels);
const channel = (tile: ScalarTile, b: number): string => (tile.broadcast ? `${b * tile.lanes}u + lane` : `${b}u`);
const features = (tile: ScalarTile): string[] => (tile.broadcast ? ['subgroups'] : []);

/**
 * Whether a lane can fetch its own positions as vec4 and have those beside them from the lanes beside it: W is read without
 * steps, a subgroup holds whole rows, and what lies outside of a row is padding.
 */
function wholeRows(c: Correlation, { lanes, broadcast, along }: ScalarTile, segments: number): boolean {
  const [kw, left, width] = [c.kernel[2], c.pad[2], c.size[2]];
  const right = kw - 1 - left;
  return (
    broadcast &&
    c.stride[2] === 1 &&
    kw > 1 &&
    left >= 0 &&
    left <= along &&
    right >= 0 &&
    right <= along &&
    width % along === 0 &&
    width <= along * segments &&
    lanes % segments === 0
  );
}

/** Statements of one step for `x0`, `x1`, …: the source from `left` in front of the lane's first position to as far as its kernel reads. */
function ownAndBeside(left: number, along: number, count: number): string[] {
  const own = (i: number) => `four${i >> 2}.${'xyzw'[i & 3]!}`;
  return [
    ...range(along / 4).map(
      (v) => `        let four${v} = select(vec4f(), src[select(0u, at + ${v}u, inside)], inside);`,
    ),
    ...range(count).map((j) => {
      const i = j - left;
      const value =
        i < 0
          ? `select(0.0, subgroupShuffle(${own(along + i)}, before), gw > 0u)`
          : i < along
            ? own(i)
            : `select(0.0, subgroupShuffle(${own(i - along)}, after), gw + ${along}u < p.w)`;
      return `        let x${j} = ${value};`;
    }),
  ];
}

/** dst = correlation(source, w). A lane owns `along` neighbours in W of one row, and `channels` outputs. Bind: source, w, dst. */
export function scalarCorrelation(
  name: string,
  c: Correlation,
  tile: ScalarTile,
  { access, epilogue, bind }: Fused,
): Dispatch {
  const { lanes, channels, along } = tile;
  const [, , kw] = c.kernel;
  const [, , sw] = c.stride;
  const quads = along / 4;
  const segments = ceilDiv(c.grid[2], along);
  const params = Object.entries({
    ci: c.ci,
    co: c.co,
    batch: c.N,
    segments,
    t: c.size[0],
    h: c.size[1],
    w: c.size[2],
    gt: c.grid[0],
    gh: c.grid[1],
    gw: c.grid[2],
    kt: c.kernel[0],
    kh: c.kernel[1],
    st: c.stride[0],
    sh: c.stride[1],
    pt: c.pad[0],
    ph: c.pad[1],
    pw: c.pad[2],
    d0: c.dstStart,
    dp: c.dstPlane,
    dt: c.dstStep[0],
    dh: c.dstStep[1],
    dw: c.dstStep[2],
    w0: c.wStart,
    wo: c.wOut,
    wi: c.wIn,
    wt: c.wTap[0],
    wh: c.wTap[1],
    ww: c.wTap[2],
  }).concat((epilogue?.params ?? []).map(([k, v]) => [k, v]));
  const used = [...new Set(range(along).flatMap((v) => range(kw).map((q) => v * sw + q)))].sort((a, b) => a - b);
  const whole = wholeRows(c, tile, segments);
  const wgsl = shader({
    enable: features(tile),
    params: params.map(([k]) => k),
    buffers: [
      { name: 'src', type: whole ? 'vec4f' : 'f32', access },
      { name: 'weight', type: 'f32', access },
      { name: 'dst', type: 'f32', access: 'read_write' },
      ...epilogueBindings(epilogue, 1),
    ],
    workgroup: [lanes, 1, 1],
    functions: epilogueFunction(epilogue, 1),
    main: lines(
      indices(tile, 'batch'),
      `  let seg = (wid.x + wid.y * nwg.x) * ${lanes}u + li;
  let gw = seg % p.segments * ${along}u;
  let gh = seg / p.segments % p.gh;
  let gt = seg / p.segments / p.gh % p.gt;
  let n = seg / p.segments / p.gh / p.gt;
  let live = n < p.batch;
  let o0 = wid.z * ${channels}u;
  let w = gw * ${sw}u - p.pw;`,
      whole ? `  let before = (lane + ${lanes - 1}u) % ${lanes}u; let after = (lane + 1u) % ${lanes}u;` : [],
      range(channels * quads).map((i) => `  var a${i} = vec4f();`),
      range(fetches(tile)).map((b) => `  let wat_${b} = p.w0 + min(o0 + ${channel(tile, b)}, p.co - 1u) * p.wo;`),
      `  for (var kt = 0u; kt < p.kt; kt++) {
    for (var kh = 0u; kh < p.kh; kh++) {
      let t = gt * p.st + kt - p.pt;
      let h = gh * p.sh + kh - p.ph;
      let row = live && t < p.t && h < p.h;`,
      whole ? '      let inside = row && gw < p.w;' : used.map((j) => `      let in${j} = row && w + ${j}u < p.w;`),
      `      var at = ${whole ? '(((n * p.ci * p.t + t) * p.h + h) * p.w + gw) / 4u' : '((n * p.ci * p.t + t) * p.h + h) * p.w + w'};
      var tap = kt * p.wt + kh * p.wh;
      for (var c = 0u; c < p.ci; c++) {`,
      whole
        ? ownAndBeside(c.pad[2], along, used.length)
        : used.map((j) => `        let x${j} = select(0.0, src[select(0u, at + ${j}u, in${j})], in${j});`),
      range(kw).flatMap((q) =>
        range(fetches(tile)).map((b) => `        let w${q}_${b} = weight[wat_${b} + tap + ${q}u * p.ww];`),
      ),
      range(channels).flatMap((o) =>
        range(kw).flatMap((q) => [
          `        let s${o}_${q} = vec4f(${share(tile, `w${q}`, o)});`,
          ...range(quads).map((v) => {
            const x = range(4)
              .map((i) => `x${(v * 4 + i) * sw + q}`)
              .join(', ');
            return `        a${o * quads + v} = fma(s${o}_${q}, vec4f(${x}), a${o * quads + v});`;
          }),
        ]),
      ),
      `        at += p.t * p.h * p.w${whole ? ' / 4u' : ''};
        tap += p.wi;
      }
    }
  }
  let count = select(0u, min(${along}u, p.gw - gw), live);
  for (var o = 0u; o < min(${channels}u, p.co - o0); o++) {
    for (var q = 0u; q < ${quads}u; q++) {
      let which = o * ${quads}u + q;
      var four = ${chosen(
        range(channels * quads).map((a) => `a${a}`),
        'which',
      )};
      for (var v = 4u * q; v < min(count, 4u * q + 4u); v++) {
        let i = p.d0 + (n * p.co + o0 + o) * p.dp + gt * p.dt + gh * p.dh + (gw + v) * p.dw;
        dst[i] = epilogue(four.x, i);
        four = four.yzwx;
      }
    }
  }`,
    ),
  });
  const [gx, gy] = foldGrid(ceilDiv(c.N * c.grid[0] * c.grid[1] * segments, lanes));
  return {
    label: `${name} scalar ${channels}x${along} sg${tile.broadcast ? lanes : 0}${whole ? ' rows' : ''} k${c.kernel.join('')} ${c.ci}>${c.co} ${c.N}x${c.grid.join('x')}`,
    wgsl,
    grid: [gx, gy, ceilDiv(c.co, channels)],
    params: params.map(([, v]) => v >>> 0),
    bind,
    ...cost(c),
  };
}

/** What a correlation needs at the least. */
export function cost(c: Correlation): { flops: number; bytes: number } {
  const positions = c.N * c.grid[0] * c.grid[1] * c.grid[2];
  const taps = c.kernel[0] * c.kernel[1] * c.kernel[2];
  return {
    flops: 2 * positions * c.co * c.ci * taps,
    bytes: 4 * (positions * c.co + c.N * c.ci * c.size[0] * c.size[1] * c.size[2] + c.co * c.ci * taps),
  };
}

/**
 * Partial weight gradients [splits, O, C, ...kernel]. A lane owns the kw taps of `columns` rows (c, kt, kh) of the kernel
 * for `channels` outputs, and walks the rows of y in its part, `along` voxels at a time. Bind: x, dy, dst.
 */
export function scalarWeight(
  q: Conv3dProblem,
  tile: ScalarTile,
  splits: number,
  chunk: number,
  { access, epilogue, bind }: Fused,
): Dispatch {
  const { lanes, channels, columns } = tile;
  const [kt, kh, kw] = q.kernel;
  const sw = q.stride[2];
  const along = 4;
  const params = Object.entries({
    c: q.C,
    o: q.O,
    t: q.in[0],
    h: q.in[1],
    w: q.in[2],
    ot: q.out[0],
    oh: q.out[1],
    ow: q.out[2],
    kt,
    kh,
    st: q.stride[0],
    sh: q.stride[1],
    pt: q.padLo[0],
    ph: q.padLo[1],
    pw: q.padLo[2],
    rows: q.N * q.out[0] * q.out[1],
    chunk,
  }).concat((epilogue?.params ?? []).map(([k, v]) => [k, v]));
  const used = [...new Set(range(along).flatMap((v) => range(kw).map((k) => v * sw + k)))].sort((a, b) => a - b);
  const sums = range(channels).flatMap((o) => range(columns).flatMap((r) => range(kw).map((k) => `a${o}_${r}_${k}`)));
  const wgsl = shader({
    enable: features(tile),
    params: params.map(([k]) => k),
    buffers: [
      { name: 'src', type: 'f32', access },
      { name: 'dy', type: 'f32', access },
      { name: 'dst', type: 'f32', access: 'read_write' },
      ...epilogueBindings(epilogue, 1),
    ],
    workgroup: [lanes, 1, 1],
    functions: epilogueFunction(epilogue, 1),
    main: lines(
      indices(tile, 'rows'),
      `  let o0 = wid.y * ${channels}u;
  let kernelRows = p.c * p.kt * p.kh;`,
      range(columns).map(
        (r) => `  let g${r} = (wid.x * ${columns}u + ${r}u) * ${lanes}u + li;
  let kh${r} = g${r} % p.kh;
  let kt${r} = g${r} / p.kh % p.kt;
  let c${r} = g${r} / p.kh / p.kt;`,
      ),
      range(fetches(tile)).map((b) => `  let o_${b} = min(o0 + ${channel(tile, b)}, p.o - 1u);`),
      sums.map((a) => `  var ${a} = 0.0;`),
      `  let end = min((wid.z + 1u) * p.chunk, p.rows);
  for (var row = wid.z * p.chunk; row < end; row++) {
    let oh = row % p.oh;
    let ot = row / p.oh % p.ot;
    let n = row / p.oh / p.ot;`,
      range(columns).map(
        (r) => `    let t${r} = ot * p.st + kt${r} - p.pt;
    let h${r} = oh * p.sh + kh${r} - p.ph;
    let row${r} = g${r} < kernelRows && t${r} < p.t && h${r} < p.h;
    let at${r} = (((n * p.c + c${r}) * p.t + t${r}) * p.h + h${r}) * p.w;`,
      ),
      range(fetches(tile)).map((b) => `    let yat_${b} = (((n * p.o + o_${b}) * p.ot + ot) * p.oh + oh) * p.ow;`),
      '    for (var ow = 0u; ow < p.ow; ow += 4u) {',
      `      let w = ow * ${sw}u - p.pw;`,
      range(columns).flatMap((r) =>
        used.map(
          (j) => `      let in${r}_${j} = row${r} && w + ${j}u < p.w;
      let x${r}_${j} = select(0.0, src[select(0u, at${r} + w + ${j}u, in${r}_${j})], in${r}_${j});`,
        ),
      ),
      range(along).flatMap((v) =>
        range(fetches(tile)).map(
          (b) => `      let d${v}_${b} = select(0.0, dy[yat_${b} + min(ow + ${v}u, p.ow - 1u)], ow + ${v}u < p.ow);`,
        ),
      ),
      range(channels).flatMap((o) =>
        range(along).flatMap((v) => [
          `      let s${o}_${v} = ${share(tile, `d${v}`, o)};`,
          ...range(columns).flatMap((r) =>
            range(kw).map((k) => `      a${o}_${r}_${k} = fma(s${o}_${v}, x${r}_${v * sw + k}, a${o}_${r}_${k});`),
          ),
        ]),
      ),
      `    }
  }
  var all = array<f32, ${sums.length}>(${sums.join(', ')});
  for (var o = 0u; o < min(${channels}u, p.o - o0); o++) {
    for (var r = 0u; r < ${columns}u; r++) {
      let g = (wid.x * ${columns}u + r) * ${lanes}u + li;
      let count = select(0u, ${kw}u, g < kernelRows);
      for (var k = 0u; k < count; k++) {
        let i = ((wid.z * p.o + o0 + o) * kernelRows + g) * ${kw}u + k;
        dst[i] = epilogue(all[(o * ${columns}u + r) * ${kw}u + k], i);
      }
    }
  }`,
    ),
  });
  const positions = q.N * q.out[0] * q.out[1] * q.out[2];
  const total = q.O * q.C * kt * kh * kw;
  return {
    label: `conv3dWeight scalar ${channels}x${columns}x${along} sg${tile.broadcast ? lanes : 0} k${q.kernel.join('')} ${q.C}>${q.O} ${q.N}x${q.out.join('x')}/${splits}`,
    wgsl,
    grid: [ceilDiv(q.C * kt * kh, lanes * columns), ceilDiv(q.O, channels), splits],
    params: params.map(([, v]) => v >>> 0),
    bind,
    flops: 2 * positions * total,
    bytes: 4 * (positions * q.O + q.N * q.C * q.in[0] * q.in[1] * q.in[2] + splits * total),
  };
}

/**
 * Convolutions for GPUs: implicit GEMM of channels x columns, TM x TN sums a thread, panels of the inner axis in workgroup memory,
 * where they lie as vec4 along it. What an inner index means (channel and tap, or voxel) is worked out once a panel by `panel`
 * threads, not by every load.
 *
 * 16 channels x 256 voxels from panels of 8:
 *
 *     let e = inner[kk];                                                       // what inner index k0 + kk means
 *     if (column < p.columns && t + (e.z >> 16u) < p.t && …) { b = src[base + e.x]; }
 *     let x = vec4f(b0.x, b1.x, b2.x, b3.x); let a0 = rowTile[(4u * ty) * 3u + s];
 *     c0 = fma(vec4f(a0.x), x, c0); c0 = fma(vec4f(a0.y), y, c0); …
 *     columnTile[li % 256u * 3u + kq / 4u] = columns0;
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
import { range, XYZW } from '../print.ts';
import { panels, type Gemm, type Printed } from './gemm.ts';
import { matrixGemm } from './matrix.ts';
import type { Block, Conv3dProblem, Correlation, Triple, WorkgroupTile } from './plan.ts';
import { cost } from './scalar.ts';

interface Fused {
  access: Access;
  epilogue: Epilogue | undefined;
  bind: readonly number[];
}

/** Taps along an axis up to which those inside of it are bits of a word. */
const MOST_TAPS = 10;
const fewTaps = (kernel: Triple): boolean => Math.max(...kernel) <= MOST_TAPS;

/** Of a kernel whose first tap is at (t, h, w), wrapped below zero: a bit for each plane, row and column of taps that is inside. */
const TAPS = `fn tapsAlong(first: u32, taps: u32, end: u32) -> u32 {
  let at = bitcast<i32>(first);
  let low = u32(clamp(-at, 0, i32(taps)));
  let high = u32(clamp(i32(end) - at, 0, i32(taps)));
  return ((1u << high) - 1u) & ~((1u << low) - 1u);
}
fn tapsAt(t: u32, h: u32, w: u32) -> u32 {
  return tapsAlong(t, p.kt, p.t) | (tapsAlong(h, p.kh, p.h) << ${MOST_TAPS}u) | (tapsAlong(w, p.kw, p.w) << ${2 * MOST_TAPS}u);
}
fn tapBits(kt: u32, kh: u32, kw: u32) -> u32 { return (1u << kt) | (1u << (kh + ${MOST_TAPS}u)) | (1u << (kw + ${2 * MOST_TAPS}u)); }`;
/** Voxels of one output channel of the weight gradient. */
const PLANE = 'p.ot * p.oh * p.ow';

function gemm({ channels, columns, panel, TM, TN }: WorkgroupTile, g: Gemm): Printed {
  const across = columns / TN;
  const halves = range(TN / 4);
  const threads = (channels * across) / TM;
  const ld = panel / 4 + 1; // odd, so that neighbouring rows lie in distinct banks
  // The remainder tells Tint that no place is out of bounds; compilers see that it changes nothing.
  const compute = `      for (var step = 0u; step < p.quads; step++) {
        let s = step % ${panel / 4}u;
${range(TN)
  .map((j) => `        let b${j} = columnTile[(tx + ${j * across}u) * ${ld}u + s];`)
  .join('\n')}
${halves
  .flatMap((h) =>
    XYZW.map(
      (part) =>
        `        let ${part}${h} = vec4f(${range(4)
          .map((j) => `b${4 * h + j}.${part}`)
          .join(', ')});`,
    ),
  )
  .join('\n')}
${range(TM)
  .map(
    (i) => `        let a${i} = rowTile[(${TM}u * ty + ${i}u) * ${ld}u + s];
        ${halves.flatMap((h) => XYZW.map((part) => `c${i}_${h} = fma(vec4f(a${i}.${part}), ${part}${h}, c${i}_${h});`)).join(' ')}`,
  )
  .join('\n')}
      }`;
  const sums = range(TM).flatMap((i) => halves.map((h) => `c${i}_${h}`));
  return {
    how: `tiled ${channels}x${columns}x${panel}/${TM}x${TN}`,
    threads,
    enable: [],
    diagnostics: [],
    entries: [['quads', panel / 4]],
    functions: `var<workgroup> rowTile: array<vec4f, ${channels * ld}>;
var<workgroup> columnTile: array<vec4f, ${columns * ld}>;
var<workgroup> inner: array<vec4u, ${panel}>;
${g.functions}
fn decode(k: u32) -> vec4u {
${g.decode}
}`,
    main: `  let o0 = wid.z * ${channels}u;
  let column0 = ${g.tile} * ${columns}u;
  let first = ${g.first};
  let end = ${g.end};
  let ty = li / ${across}u;
  let tx = li % ${across}u;
  ${sums.map((name) => `var ${name} = vec4f();`).join(' ')}
  let column = column0 + li % ${columns}u;
${g.prepare}
${panels(g, { channels, columns, panel, threads }, compute, `columnTile[li % ${columns}u * ${ld}u + kq / 4u] = b;`, `rowTile[channel * ${ld}u + kq / 4u] = a;`)}
${halves
  .map(
    // Not one array of all: drivers would keep a long one in memory.
    (h) => `  { var all = array<vec4f, ${TM}>(${range(TM)
      .map((i) => `c${i}_${h}`)
      .join(', ')});
  for (var j = 0u; j < 4u; j++) {
    let column = column0 + tx + (j + ${4 * h}u) * ${across}u;
    if (column >= ${g.columns}) { break; }
    for (var i = 0u; i < ${TM}u; i++) {
      let o = o0 + ty * ${TM}u + i;
      if (o >= ${g.rows}) { break; }
${g.place}
      dst[at] = epilogue(all[i][j], at);
    }
  } }`,
  )
  .join('\n')}`,
  };
}

interface Build {
  label: (how: string) => string;
  entries: [string, number][];
  block: Block;
  g: Gemm;
  /** Of the two operands' buffers; rows come from the second. */
  names: [string, string];
  fused: Fused;
}

function build({ label, entries, block: { tile, unit }, g, names, fused }: Build) {
  const { how, threads, functions, main, ...printed } = 'rows' in tile ? matrixGemm(tile, unit!, g) : gemm(tile, g);
  const params = [...entries, ...printed.entries, ...(fused.epilogue?.params ?? [])];
  return {
    label: label(how),
    wgsl: shader({
      params: params.map(([k]) => k),
      buffers: [
        ...names.map((name, i) => ({ name, type: i && g.fourOfRow ? 'vec4f' : 'f32', access: fused.access })),
        { name: 'dst', type: 'f32', access: 'read_write' },
        ...epilogueBindings(fused.epilogue, 1),
      ],
      workgroup: [threads, 1, 1],
      enable: printed.enable,
      diagnostics: printed.diagnostics,
      functions: `${functions}\n${epilogueFunction(fused.epilogue, 1)}`,
      main,
    }),
    params: params.map(([, v]) => v >>> 0),
    bind: fused.bind,
    onUnits: 'rows' in tile,
  };
}

/** dst = correlation(source, w): rows are output channels, columns positions of the grid, the inner axis (c, kt, kh, kw). */
export function tiledCorrelation(name: string, c: Correlation, block: Block, fused: Fused): Dispatch {
  const { tile } = block;
  const [kt, kh, kw] = c.kernel;
  const columns = c.N * c.grid[0] * c.grid[1] * c.grid[2];
  const inner = c.ci * kt * kh * kw;
  const entries = Object.entries({
    ci: c.ci,
    co: c.co,
    columns,
    inner,
    t: c.size[0],
    h: c.size[1],
    w: c.size[2],
    gt: c.grid[0],
    gh: c.grid[1],
    gw: c.grid[2],
    kt: Math.max(kt, 1),
    kh,
    kw,
    st: c.stride[0],
    sh: c.stride[1],
    sw: c.stride[2],
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
  });
  const short = fewTaps(c.kernel);
  const rowsLie =
    c.wStart === 0 &&
    c.wIn === kt * kh * kw &&
    c.wTap[2] === 1 &&
    c.wTap[1] === kw &&
    c.wTap[0] === kh * kw &&
    c.wOut % 4 === 0 &&
    inner % 4 === 0;
  const position = `let gw = column % p.gw;
      let gh = column / p.gw % p.gh;
      let gt = column / p.gw / p.gh % p.gt;
      let n = column / p.gw / p.gh / p.gt;`;
  const g: Gemm = {
    decode: `  let kw = k % p.kw;
  let kh = k / p.kw % p.kh;
  let kt = k / p.kw / p.kh % p.kt;
  let c = k / p.kw / p.kh / p.kt;
  return vec4u(((c * p.t + kt) * p.h + kh) * p.w + kw, c * p.wi + kt * p.wt + kh * p.wh + kw * p.ww, ${short ? 'tapBits(kt, kh, kw), 0u' : '(kt << 16u) | kh, kw'});`,
    prepare: `      ${position}
  let t = gt * p.st - p.pt;
  let h = gh * p.sh - p.ph;
  let w = gw * p.sw - p.pw;
  let base = ((n * p.ci * p.t + t) * p.h + h) * p.w + w;
  ${short ? 'let taps = select(0u, tapsAt(t, h, w), column < p.columns);' : ''}`,
    functions: short ? TAPS : '',
    loadRow: '        a = weight[p.w0 + o * p.wo + e.y];',
    ...(rowsLie && { fourOfRow: 'weight[(o * p.wo + k) / 4u]' }),
    loadColumn: short
      ? '        if ((taps & e.z) == e.z) { b = src[base + e.x]; }'
      : '        if (column < p.columns && t + (e.z >> 16u) < p.t && h + (e.z & 0xffffu) < p.h && w + e.w < p.w) { b = src[base + e.x]; }',
    tile: '(wid.x + wid.y * nwg.x)',
    first: '0u',
    end: 'p.inner',
    place: `      ${position}
      let at = p.d0 + (n * p.co + o) * p.dp + gt * p.dt + gh * p.dh + gw * p.dw;`,
    rows: 'p.co',
    columns: 'p.columns',
  };
  const label = (how: string) => `${name} ${how} k${c.kernel.join('')} ${c.ci}>${c.co} ${c.N}x${c.grid.join('x')}`;
  const [gx, gy] = foldGrid(ceilDiv(columns, tile.columns));
  return {
    ...build({ label, entries, block, g, names: ['src', 'weight'], fused }),
    grid: [gx, gy, ceilDiv(c.co, tile.channels)],
    ...cost(c),
  };
}

/** Partial weight gradients [splits, O, C, ...kernel]: rows are O, columns (c, kt, kh, kw), the inner axis one part of the voxels. */
export function tiledWeight(
  q: Conv3dProblem,
  block: Block,
  { splits, chunk }: { splits: number; chunk: number },
  fused: Fused,
): Dispatch {
  const { tile } = block;
  const [kt, kh, kw] = q.kernel;
  const [ot, oh, ow] = q.out;
  const columns = q.C * kt * kh * kw;
  const plane = ot * oh * ow;
  const voxels = q.N * plane;
  const short = fewTaps(q.kernel);
  const entries = Object.entries({
    c: q.C,
    o: q.O,
    columns,
    voxels,
    chunk,
    t: q.in[0],
    h: q.in[1],
    w: q.in[2],
    ot,
    oh,
    ow,
    kt,
    kh,
    kw,
    st: q.stride[0],
    sh: q.stride[1],
    sw: q.stride[2],
    pt: q.padLo[0],
    ph: q.padLo[1],
    pw: q.padLo[2],
  });
  const g: Gemm = {
    decode: `  let plane = ${PLANE};
  let n = k / plane;
  let ot = k / p.ow / p.oh % p.ot;
  let oh = k / p.ow % p.oh;
  let t = ot * p.st - p.pt;
  let h = oh * p.sh - p.ph;
  let w = k % p.ow * p.sw - p.pw;
  ${short ? 'return vec4u(((n * p.c * p.t + t) * p.h + h) * p.w + w, 0u, tapsAt(t, h, w), n * p.o * plane + k % plane);' : 'return vec4u(n, t, h, w);'}`,
    prepare: `  let kw = column % p.kw;
  let kh = column / p.kw % p.kh;
  let kt = column / p.kw / p.kh % p.kt;
  let c = column / p.kw / p.kh / p.kt;
  ${short ? 'let base = ((c * p.t + kt) * p.h + kh) * p.w + kw; let tap = tapBits(kt, kh, kw);' : ''}`,
    functions: short ? TAPS : '',
    ...(short && plane % 4 === 0 && chunk % 4 === 0 && { fourOfRow: `dy[(inner[kq].w + o * (${PLANE})) / 4u]` }),
    loadRow: short
      ? `        a = dy[e.w + o * (${PLANE})];`
      : `        a = dy[(e.x * p.o + o) * (${PLANE}) + (k0 + kk) % (${PLANE})];`,
    loadColumn: short
      ? '        if ((e.z & tap) == tap && column < p.columns) { b = src[base + e.x]; }'
      : `        let t = e.y + kt;
        let h = e.z + kh;
        let w = e.w + kw;
        if (column < p.columns && t < p.t && h < p.h && w < p.w) { b = src[(((e.x * p.c + c) * p.t + t) * p.h + h) * p.w + w]; }`,
    tile: 'wid.x',
    first: 'wid.y * p.chunk',
    end: 'min(first + p.chunk, p.voxels)',
    place: '      let at = (wid.y * p.o + o) * p.columns + column;',
    rows: 'p.o',
    columns: 'p.columns',
  };
  const label = (how: string) =>
    `conv3dWeight ${how} k${q.kernel.join('')} ${q.C}>${q.O} ${q.N}x${q.out.join('x')}/${splits}`;
  return {
    ...build({ label, entries, block, g, names: ['src', 'dy'], fused }),
    grid: [ceilDiv(columns, tile.columns), splits, ceilDiv(q.O, tile.channels)],
    flops: 2 * voxels * q.O * columns,
    bytes: 4 * (voxels * q.O + q.N * q.C * q.in[0] * q.in[1] * q.in[2] + splits * q.O * columns),
  };
}

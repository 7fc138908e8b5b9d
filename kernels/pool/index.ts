/** Sums and maxima of windows that slide along three axes: a thread makes an output, and walks what its window holds of the input. */
import { ceilDiv, foldGrid, numel, shader, type Access, type Caps, type Launch } from '../kernel.ts';
import { quotientFunction } from '../quotient.ts';
import { isNaN } from '../special.ts';

type Triple = readonly [number, number, number];

/** x [lines, ...in] → [lines, ...out], f32; window g begins at g · stride - padLo and takes every `dilation`th element. */
export interface PoolProblem {
  op: 'sum' | 'max';
  lines: number;
  in: Triple;
  out: Triple;
  kernel: Triple;
  stride: Triple;
  dilation: Triple;
  padLo: Triple;
  access: Access;
}

const WORKGROUP = 64;
const AXES = [0, 1, 2] as const;
const PARAMS = ['n', 'out', 'k', 's', 'd', 'lo'] as const;

/**
 * Slots: x, out, and for the maximum its place in the window as i32, row-major; of equal elements the first, and NaN before all.
 * Every window holds an element of x, or its sum is 0.
 */
export function pool(_caps: Caps, p: PoolProblem): Launch {
  const max = p.op === 'max';
  const outputs = p.lines * numel(p.out);
  const sizes = { n: p.in, out: p.out, k: p.kernel, s: p.stride, d: p.dilation, lo: p.padLo };
  const take = max
    ? `let better = ok2 & ((place < 0) | (!(${isNaN('best', 'f32')}) & ((v > best) | ${isNaN('v', 'f32')})));
    best = select(best, v, better);
    place = select(place, i32((j0 * p.k1 + j1) * p.k2 + j2), better);`
    : 'best += select(0.0, v, ok2);';
  // Every lane walks the whole window, and leaves out what lies outside: branches that lanes take apart cost more on CPU drivers.
  const loop = (axis: number, body: string): string => `for (var j${axis} = 0u; j${axis} < p.k${axis}; j${axis}++) {
    let c${axis} = start${axis} + j${axis} * p.d${axis}; // before the first it wraps to a large number
    let ok${axis} = ${axis ? `ok${axis - 1} & ` : ''}(c${axis} < p.n${axis});
    let i${axis} = ${axis ? `i${axis - 1}` : 'line'} * p.n${axis} + min(c${axis}, p.n${axis} - 1u);
    ${body}
  }`;
  const wgsl = shader({
    params: ['outputs', ...AXES.flatMap((a) => PARAMS.map((name) => `${name}${a}`))],
    buffers: [
      { name: 'src', type: 'f32', access: p.access },
      { name: 'dst', type: 'f32', access: 'read_write' },
      ...(max ? [{ name: 'places', type: 'i32', access: 'read_write' as const }] : []),
    ],
    workgroup: [WORKGROUP, 1, 1],
    functions: quotientFunction('quotient'),
    main: `  let t = (wid.x + wid.y * nwg.x) * ${WORKGROUP}u + li;
  if (t >= p.outputs) { return; }
  let rest2 = quotient(t, p.out2);
  let rest1 = quotient(rest2, p.out1);
  let line = quotient(rest1, p.out0);
  let start0 = (rest1 - line * p.out0) * p.s0 - p.lo0;
  let start1 = (rest2 - rest1 * p.out1) * p.s1 - p.lo1;
  let start2 = (t - rest2 * p.out2) * p.s2 - p.lo2;
  var best = 0.0;
  ${max ? 'var place = -1;' : ''}
  ${loop(0, loop(1, loop(2, `let v = src[i2];\n    ${take}`)))}
  dst[t] = best;
  ${max ? 'places[t] = place;' : ''}`,
  });
  return {
    dispatches: [
      {
        label: `pool ${p.op} ${p.lines}x${p.in.join('x')} k${p.kernel.join('x')} s${p.stride.join('x')}`,
        wgsl,
        grid: foldGrid(ceilDiv(outputs, WORKGROUP)),
        params: [outputs, ...AXES.flatMap((a) => PARAMS.map((name) => sizes[name][a]))],
        bind: max ? [0, 1, 2] : [0, 1],
        flops: outputs * numel(p.kernel),
        bytes: 4 * (p.lines * numel(p.in) + outputs * (max ? 2 : 1)),
      },
    ],
    scratch: [],
  };
}

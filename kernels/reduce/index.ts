/** Sums, products, maxima and minima over any axes: fused producers in front, fused consumers behind, the same bits every time. */
import {
  ceilDiv,
  epilogueBindings,
  epilogueFunction,
  foldGrid,
  shader,
  type Access,
  type Binding,
  type Caps,
  type Dispatch,
  type Epilogue,
  type Launch,
} from '../kernel.ts';
import { quotientFunction } from '../quotient.ts';
import { planReduce, type Axis, type Dim, type ReducePlan } from './plan.ts';

/** Code that gives a (virtual) input: `functions` declares `load`. */
export interface Source {
  buffers: readonly Binding[];
  /** Extra uniform words: names are unique against the family's. */
  params: readonly (readonly [string, number])[];
  functions: string;
}

/** Where a family's input comes from: `fn load(i: u32) -> T` at flat index i; with `fours` also as `-> vec4f`, four from i, a multiple of 4. */
export interface Prologue extends Source {
  fours?: Source | undefined;
}

/** What is reduced, and what it is reduced in. */
export type Element = 'f32' | 'i32' | 'u32';

/** The input is one buffer. */
export function plainPrologue(access: Access, type: Element = 'f32'): Prologue {
  return {
    buffers: [{ name: 'src', type, access }],
    params: [],
    functions: `fn load(i: u32) -> ${type} { return src[i]; }`,
    fours:
      type !== 'f32'
        ? undefined
        : {
            buffers: [{ name: 'src', type: 'vec4f', access }],
            params: [],
            functions: 'fn load(i: u32) -> vec4f { return src[i / 4u]; }',
          },
  };
}

export interface ReduceProblem {
  op: 'sum' | 'prod' | 'amax' | 'amin';
  /** f32 unless given. */
  dtype?: Element;
  /** The contiguous row-major input. */
  dims: readonly Dim[];
  prologue: Prologue;
  epilogue?: Epilogue;
}

type Start = Record<Element, string>;
const OPS: Record<ReduceProblem['op'], { start: Start; combine: (a: string, b: string) => string }> = {
  sum: { start: { f32: '0.0', i32: '0', u32: '0' }, combine: (a, b) => `${a} + ${b}` },
  prod: { start: { f32: '1.0', i32: '1', u32: '1' }, combine: (a, b) => `${a} * ${b}` },
  amax: { start: { f32: '-3.4028234e38', i32: '-2147483648', u32: '0' }, combine: (a, b) => `max(${a}, ${b})` },
  amin: { start: { f32: '3.4028234e38', i32: '2147483647', u32: '4294967295' }, combine: (a, b) => `min(${a}, ${b})` },
};

/**
 * Slots: the prologue's buffers, out (of the dtype, contiguous over the kept dims), the epilogue's buffers, scratch.
 * Few outputs over many inputs go in two dispatches, partial results combined in order. amax and amin may drop NaN.
 */
export function reduce(caps: Caps, { op, dtype = 'f32', dims, prologue, epilogue }: ReduceProblem): Launch {
  const fold = { op, dtype };
  const plan = planReduce(caps, dims, !!prologue.fours && !epilogue);
  const outSlot = prologue.buffers.length;
  const extra = (epilogue?.buffers ?? []).map((_, i) => outSlot + 1 + i);
  const inputs = prologue.buffers.map((_, i) => i);
  if (plan.splits === 1) {
    return { dispatches: [dispatch(fold, plan, prologue, epilogue, [...inputs, outSlot, ...extra])], scratch: [] };
  }
  const scratch = outSlot + 1 + extra.length;
  // Partials lie as [outputs, splits] for the tier that reads rows best, [splits, outputs] for the other: see `dispatch`.
  const outputs = { size: plan.outputs, reduce: false };
  const parts = { size: plan.splits, reduce: true };
  const combine = planReduce(
    caps,
    plan.template === 'rows' ? [outputs, parts] : [parts, outputs],
    dtype === 'f32' && !epilogue,
  );
  const whole: ReducePlan = { ...combine, splits: 1, chunk: plan.splits };
  return {
    dispatches: [
      dispatch(fold, plan, prologue, undefined, [...inputs, scratch]),
      dispatch(fold, whole, plainPrologue('read_write', dtype), epilogue, [scratch, outSlot, ...extra]),
    ],
    scratch: [4 * plan.outputs * plan.splits],
  };
}

function dispatch(
  { op, dtype }: { op: ReduceProblem['op']; dtype: Element },
  plan: ReducePlan,
  { fours, ...ones }: Prologue,
  epilogue: Epilogue | undefined,
  bind: number[],
): Dispatch {
  const { combine } = OPS[op];
  const start = OPS[op].start[dtype];
  const { template, workgroup: wg, kept, reduced, load, count, splits, chunk } = plan;
  const prologue = load === 'one' ? ones : fours!;
  const [type, out] = [load === 'one' ? dtype : 'vec4f', load === 'across' ? 'vec4f' : dtype];
  const width = load === 'across' ? 4 : 1;
  const outputs = plan.outputs / width;
  const total = load === 'along' ? combine(`(${combine('acc.x', 'acc.y')})`, `(${combine('acc.z', 'acc.w')})`) : 'acc';
  const params: [string, number][] = [
    ['outputs', outputs],
    ['count', count],
    ['splits', splits],
    ['chunk', chunk],
  ];
  for (const [letter, axes] of [
    ['k', kept],
    ['r', reduced],
  ] as const) {
    axes.forEach((a, i) => params.push([`${letter}n${i}`, a.size], [`${letter}s${i}`, a.stride]));
  }
  params.push(...[...prologue.params, ...(epilogue?.params ?? [])].map(([k, v]): [string, number] => [k, v]));
  const inner = reduced.length - 1;
  const main =
    template === 'columns'
      ? `  let t = (wid.x + wid.y * nwg.x) * ${wg}u + li;
  if (t >= p.outputs * p.splits) { return; }
  let part = ${splits === 1 ? '0u' : 'quotient(t, p.outputs)'};
  let base = keptOffset(${width === 4 ? '4u * (t - part * p.outputs)' : 't - part * p.outputs'});
  var r = part * p.chunk;
  let end = min(r + p.chunk, p.count);
  var acc = ${type}(${start});
  while (r < end) { // a run along the innermost reduced axis, at most 64 long: blocked sums keep the rounding small
    let left = p.rn${inner} - ${inner === 0 ? 'r' : `(r - quotient(r, p.rn${inner}) * p.rn${inner})`};
    let run = min(min(left, 64u), end - r);
    var i = base + reducedOffset(r);
    var block = ${type}(${start});
    for (var k = 0u; k < run; k++) {
      block = ${combine('block', 'load(i)')};
      i += p.rs${inner};
    }
    acc = ${combine('acc', 'block')};
    r += run;
  }
  dst[t] = ${epilogue ? `epilogue(${total}, t)` : total};`
      : `  let g = wid.x + wid.y * nwg.x;
  if (g >= p.outputs * p.splits) { return; }
  let base = keptOffset(g / p.splits);
  let first = g % p.splits * p.chunk;
  let end = min(first + p.chunk, p.count);
  var acc = ${dtype}(${start});
  for (var r = first + li; r < end; r += ${wg}u) { acc = ${combine('acc', 'load(base + reducedOffset(r))')}; }
  parts[li] = acc;
  workgroupBarrier();
  for (var half = ${wg / 2}u; half > 0u; half /= 2u) {
    if (li < half) { parts[li] = ${combine('parts[li]', 'parts[li + half]')}; }
    workgroupBarrier();
  }
  if (li == 0u) { dst[g] = ${epilogue ? 'epilogue(parts[0], g)' : 'parts[0]'}; }`;
  const wgsl = shader({
    params: params.map(([name]) => name),
    buffers: [...prologue.buffers, { name: 'dst', type: out, access: 'read_write' }, ...epilogueBindings(epilogue, 1)],
    workgroup: [wg, 1, 1],
    functions: [
      prologue.functions,
      epilogue ? epilogueFunction(epilogue, 1) : '',
      quotientFunction('quotient'),
      offset('keptOffset', 'k', kept),
      offset('reducedOffset', 'r', reduced),
      template === 'rows' ? `var<workgroup> parts: array<${dtype}, ${wg}>;` : '',
    ].join('\n'),
    main,
  });
  const threads = outputs * splits,
    numbers = load === 'along' ? 4 * count : count;
  return {
    label: `reduce ${op}${dtype === 'f32' ? '' : ` ${dtype}`} ${template} ${wg}${load === 'one' ? '' : ` x4 ${load}`} k${kept.length}r${reduced.length} ${plan.outputs}x${numbers}/${splits}`,
    wgsl,
    grid: foldGrid(template === 'rows' ? threads : ceilDiv(threads, wg)),
    params: params.map(([, v]) => v),
    bind,
    flops: plan.outputs * numbers,
    bytes: 4 * (plan.outputs * numbers * prologue.buffers.length + threads * width),
  };
}

/** A function from the flat index over some axes to the element offset in the input. */
function offset(name: string, letter: string, axes: readonly Axis[]): string {
  const steps = axes
    .map((_, i) => i)
    .reverse()
    .map((i) =>
      i === 0
        ? `  return at + rest * p.${letter}s0;`
        : `  { let next = quotient(rest, p.${letter}n${i}); at += (rest - next * p.${letter}n${i}) * p.${letter}s${i}; rest = next; }`,
    );
  return `fn ${name}(i: u32) -> u32 {\n  var rest = i;\n  var at = 0u;\n${steps.join('\n')}\n}`;
}

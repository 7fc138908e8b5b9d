/** Sums, products, maxima and minima over any axes: fused producers in front, fused consumers behind, the same bits every time. */
import {
  ceilDiv,
  epilogueBindings,
  epilogueFunction,
  f32bits,
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
import { isNaN, type Real } from '../special.ts';
import { planReduce, type Axis, type Dim, type ReducePlan } from './plan.ts';

/** Code that gives a (virtual) input: `functions` declares `load`. */
export interface Source {
  buffers: readonly Binding[];
  /** Extra uniform words: names are unique against the family's. */
  params: readonly (readonly [string, number])[];
  functions: string;
}

/**
 * Where a family's input comes from: `fn load(i: u32) -> T` at flat index i; with `fours` also as `-> vec4f`, four from i, a multiple of 4.
 */
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
type Join = (a: string, b: string, t: Element | 'vec4f') => string;
/** WGSL's own lose NaN. */
const extreme =
  (name: 'max' | 'min'): Join =>
  (a, b, t) =>
    `${name}${t === 'f32' ? 'Of' : t === 'vec4f' ? 'Of4' : ''}(${a}, ${b})`;
const extremeOf = (name: 'max' | 'min', t: Real): string =>
  `fn ${name}Of${t === 'f32' ? '' : '4'}(a: ${t}, b: ${t}) -> ${t} { return select(a, b, (b ${name === 'max' ? '>' : '<'} a) | ${isNaN('b', t)}); }`;

/** `limit`: where f32 begins, in a uniform word, for WGSL has no infinities. */
interface Operation {
  start: Start;
  join: Join;
  limit?: number;
  functions?: (t: Real) => string;
}
const REALS: readonly Real[] = ['f32', 'vec4f'];
const FARTHEST = 'bitcast<f32>(p.limit)';
const OPS: Record<ReduceProblem['op'], Operation> = {
  sum: { start: { f32: '0.0', i32: '0', u32: '0' }, join: (a, b) => `${a} + ${b}` },
  prod: { start: { f32: '1.0', i32: '1', u32: '1' }, join: (a, b) => `${a} * ${b}` },
  amax: {
    start: { f32: FARTHEST, i32: '-2147483648', u32: '0' },
    join: extreme('max'),
    limit: -Infinity,
    functions: (t) => extremeOf('max', t),
  },
  amin: {
    start: { f32: FARTHEST, i32: '2147483647', u32: '4294967295' },
    join: extreme('min'),
    limit: Infinity,
    functions: (t) => extremeOf('min', t),
  },
};
/** Loads by one thread from which on sums of blocks are summed by blocks too. */
const LONG = 4096;

/**
 * Slots: the prologue's buffers, out (of the dtype, contiguous over the kept dims), the epilogue's buffers, scratch.
 * Few outputs over many inputs go in two dispatches, partial results combined in order.
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
  const { join, limit, functions } = OPS[op];
  const start = OPS[op].start[dtype];
  const { template, workgroup: wg, kept, reduced, load, count, splits, chunk } = plan;
  const prologue = load === 'one' ? ones : fours!;
  const [type, out] = [load === 'one' ? dtype : 'vec4f', load === 'across' ? 'vec4f' : dtype] as const;
  const width = load === 'across' ? 4 : 1;
  const outputs = plan.outputs / width;
  const combine = (a: string, b: string, t = type): string => join(a, b, t);
  const along = combine(`(${combine('acc.x', 'acc.y', dtype)})`, `(${combine('acc.z', 'acc.w', dtype)})`, dtype);
  const total = load === 'along' ? along : 'acc';
  const far = op === 'sum' && chunk > LONG;
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
  if (limit !== undefined) params.push(['limit', f32bits(limit)]);
  const inner = reduced.length - 1;
  const main =
    template === 'columns'
      ? `  let t = (wid.x + wid.y * nwg.x) * ${wg}u + li;
  if (t >= p.outputs * p.splits) { return; }
  let part = ${splits === 1 ? '0u' : 'quotient(t, p.outputs)'};
  let base = keptOffset(${width === 4 ? '4u * (t - part * p.outputs)' : 't - part * p.outputs'});
  var r = part * p.chunk;
  let end = min(r + p.chunk, p.count);
  var acc = ${type}(${start});${far ? ` var far = acc; var blocks = 0u;` : ''}
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
    r += run;${far ? `\n    blocks++;\n    if (blocks % 64u == 0u) { far += acc; acc = ${type}(); }` : ''}
  }${far ? '\n  acc += far;' : ''}
  dst[t] = ${epilogue ? `epilogue(${total}, t)` : total};`
      : `  let g = wid.x + wid.y * nwg.x;
  if (g >= p.outputs * p.splits) { return; }
  let base = keptOffset(g / p.splits);
  let first = g % p.splits * p.chunk;
  let end = min(first + p.chunk, p.count);
  var acc = ${dtype}(${start});
  for (var r = first + li; r < end;) {
    let stop = min(end, r + ${64 * wg}u);
    var block = ${dtype}(${start});
    for (; r < stop; r += ${wg}u) { block = ${combine('block', 'load(base + reducedOffset(r))')}; }
    acc = ${combine('acc', 'block')};
  }
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
      ...(functions && dtype === 'f32' ? (load === 'one' ? ['f32' as const] : REALS).map(functions) : []),
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

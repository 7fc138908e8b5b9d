/**
 * What every engine is given alike: the same numbers in the same row-major layouts, and our own program for each. Its float64
 * evaluation is what answers are checked against.
 */
import { attention, constant, gelu, mse } from '../../engine/frontend/functional.ts';
import { vjp } from '../../engine/frontend/autodiff.ts';
import { evaluate } from '../../engine/frontend/oracle.ts';
import { make, type Tensor } from '../../engine/frontend/tensor.ts';
import { trace } from '../../engine/frontend/trace.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { noise } from '../common/noise.ts';

export const WORKS = [
  'matmul 512',
  'matmul 1024',
  'attention',
  'conv3d',
  'conv3d gradient',
  'layer norm',
  'GELU',
  'training step',
] as const;
export type WorkName = (typeof WORKS)[number];

export interface Work {
  name: WorkName;
  shape: string;
  flops: number;
  /** Bytes that one pass must read and write. */
  traffic: number;
  inputs: readonly (readonly number[])[];
  /** Ours, and the reference. A training step takes its state after the inputs and returns the next state after its loss. */
  fn: (...x: Tensor[]) => readonly Tensor[];
}

/** A convolution with equal pads, as every engine has it. */
export const CONV = {
  ci: 16,
  co: 32,
  size: [16, 32, 32],
  attrs: { stride: [1, 1, 1], padLo: [1, 1, 1], padHi: [1, 1, 1] },
} as const;
const VIDEO = [1, CONV.ci, ...CONV.size],
  MADE = [1, CONV.co, ...CONV.size],
  WEIGHT = [CONV.co, CONV.ci, 3, 3, 3];
const CONV_FLOPS = 2 * 27 * CONV.ci * CONV.co * CONV.size.reduce((a, b) => a * b, 1);

/** Attention of one batch, [1, tokens, heads, size] as in the models. */
export const ATTENTION = { heads: 8, tokens: 512, size: 64 } as const;
const HEADS = [1, ATTENTION.tokens, ATTENTION.heads, ATTENTION.size];

/** A pre-norm transformer block with a head, squared error, Adam. */
export const BLOCK = {
  batch: 4,
  tokens: 64,
  dim: 128,
  heads: 4,
  ffn: 512,
  out: 16,
  adam: { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8 },
} as const;
/** Its parameters in the order of the inputs; linears are [in, out], as most engines hold them. */
const PARAMETERS = {
  g1: [BLOCK.dim],
  b1: [BLOCK.dim],
  q: [BLOCK.dim, BLOCK.dim],
  k: [BLOCK.dim, BLOCK.dim],
  v: [BLOCK.dim, BLOCK.dim],
  o: [BLOCK.dim, BLOCK.dim],
  g2: [BLOCK.dim],
  b2: [BLOCK.dim],
  up: [BLOCK.dim, BLOCK.ffn],
  ub: [BLOCK.ffn],
  down: [BLOCK.ffn, BLOCK.dim],
  db: [BLOCK.dim],
  head: [BLOCK.dim, BLOCK.out],
} as const;
export type ParameterName = keyof typeof PARAMETERS;
export const PARAMETER_NAMES = Object.keys(PARAMETERS) as ParameterName[];
/** Steps whose losses are the answer of the training step. */
export const TRAIN_STEPS = 4;

const rows = BLOCK.batch * BLOCK.tokens;
const STEP_FLOPS =
  3 *
  2 *
  rows *
  (4 * BLOCK.dim ** 2 + 2 * BLOCK.dim * BLOCK.ffn + BLOCK.dim * BLOCK.out + 2 * BLOCK.tokens * BLOCK.dim);

function blockLoss(x: Tensor, target: Tensor, w: Record<ParameterName, Tensor>): Tensor {
  const { batch, tokens, heads, dim } = BLOCK;
  const project = (h: Tensor, m: Tensor) => h.matmul(m);
  const split = (h: Tensor) => h.reshape([batch, tokens, heads, dim / heads]);
  const n1 = x.layerNorm(1e-5).mul(w.g1).add(w.b1);
  const seen = attention(split(project(n1, w.q)), split(project(n1, w.k)), split(project(n1, w.v))).reshape([
    batch,
    tokens,
    dim,
  ]);
  const h = x.add(project(seen, w.o));
  const n2 = h.layerNorm(1e-5).mul(w.g2).add(w.b2);
  const y = h.add(project(gelu(project(n2, w.up).add(w.ub), 'tanh'), w.down).add(w.db));
  return mse(project(y, w.head), target);
}

/** x, target, step count, then parameters, first and second moments → loss, then the same three anew. */
function trainingStep(x: Tensor, target: Tensor, count: Tensor, ...state: Tensor[]): Tensor[] {
  const n = PARAMETER_NAMES.length;
  const [p, m, v] = [state.slice(0, n), state.slice(n, 2 * n), state.slice(2 * n)];
  const w = Object.fromEntries(PARAMETER_NAMES.map((name, i) => [name, p[i]!])) as Record<ParameterName, Tensor>;
  const loss = blockLoss(x, target, w);
  const g = vjp(loss, constant(1), p);
  const { lr, beta1, beta2, eps } = BLOCK.adam;
  const [c1, c2] = [beta1, beta2].map((b) => count.mul(Math.log(b)).exp().neg().add(1)) as [Tensor, Tensor];
  const first = m.map((old, i) => old.mul(beta1).add(g[i]!.mul(1 - beta1)));
  const second = v.map((old, i) => old.mul(beta2).add(g[i]!.square().mul(1 - beta2)));
  const next = p.map((old, i) => old.sub(first[i]!.div(c1).mul(lr).div(second[i]!.div(c2).sqrt().add(eps))));
  return [loss, ...next, ...first, ...second];
}

const product = (n: number): Omit<Work, 'name'> => ({
  shape: `${n}³`,
  flops: 2 * n ** 3,
  traffic: 12 * n * n,
  inputs: [
    [n, n],
    [n, n],
  ],
  fn: (a, b) => [a!.matmul(b!)],
});

const TABLE: Record<WorkName, Omit<Work, 'name'>> = {
  'matmul 512': product(512),
  'matmul 1024': product(1024),
  attention: {
    shape: '8 heads x 512 x 64',
    flops: 4 * ATTENTION.heads * ATTENTION.tokens ** 2 * ATTENTION.size,
    traffic: 16 * ATTENTION.heads * ATTENTION.tokens * ATTENTION.size,
    inputs: [HEADS, HEADS, HEADS],
    fn: (q, k, v) => [attention(q!, k!, v!)],
  },
  conv3d: {
    shape: '16 to 32 channels, 16x32x32, 3³',
    flops: CONV_FLOPS,
    traffic: 4 * 2 ** 14 * (CONV.ci + CONV.co),
    inputs: [VIDEO, WEIGHT],
    fn: (x, w) => make('conv3d', [x!, w!], CONV.attrs),
  },
  'conv3d gradient': {
    shape: 'its input and weight gradients',
    flops: 2 * CONV_FLOPS,
    traffic: 4 * 2 ** 14 * (2 * CONV.ci + 2 * CONV.co),
    inputs: [VIDEO, WEIGHT, MADE],
    fn: (x, w, dy) => [
      ...make('conv3dInput', [dy!, w!], { ...CONV.attrs, shape: VIDEO }),
      ...make('conv3dWeight', [x!, dy!], { ...CONV.attrs, shape: WEIGHT }),
    ],
  },
  'layer norm': {
    shape: '4096x512, with gain and bias',
    flops: 8 * 2 ** 21,
    traffic: 8 * 2 ** 21,
    inputs: [[4096, 512], [512], [512]],
    fn: (x, g, b) => [x!.layerNorm(1e-5).mul(g!).add(b!)],
  },
  GELU: {
    shape: '4M numbers, tanh form',
    flops: 9 * 2 ** 22,
    traffic: 8 * 2 ** 22,
    inputs: [[2048, 2048]],
    fn: (x) => [gelu(x!, 'tanh')],
  },
  'training step': {
    shape: 'block of 4x64 tokens, dim 128, and Adam',
    flops: STEP_FLOPS,
    traffic: 0,
    inputs: [
      [BLOCK.batch, BLOCK.tokens, BLOCK.dim],
      [BLOCK.batch, BLOCK.tokens, BLOCK.out],
      ...Object.values(PARAMETERS),
    ],
    fn: (...x) => trainingStep(...(x as [Tensor, Tensor, Tensor])),
  },
};

export const workOf = (name: WorkName): Work => ({ name, ...TABLE[name] });

/** The numbers of a work: normals; a block's weights small, its gains around one. */
export function numbersOf(work: Work): Float32Array[] {
  return work.inputs.map((shape, i) => {
    const data = noise(shape, i).data as Float32Array;
    if (work.name !== 'training step' || i < 2) return data;
    return data.map((x) =>
      shape.length === 2 ? x * shape[0]! ** -0.5 : 0.1 * x + Number(PARAMETER_NAMES[i - 2]!.startsWith('g')),
    );
  });
}

/** What a training step holds besides its inputs: the count of steps from 1, and the moments. */
export function startOf(numbers: readonly Float32Array[]): { count: number; moments: Float32Array[] } {
  const zeros = numbers.slice(2).map((p) => new Float32Array(p.length));
  return { count: 1, moments: [...zeros, ...zeros] };
}

/** The right answer in float64. For the training step: its first losses. */
export function referenceOf(work: Work, numbers: readonly Float32Array[]): Float64Array[] {
  const inputs = numbers.map((data, i): HostTensor => host(data, work.inputs[i]!));
  const answer = (given: readonly HostTensor[]): HostTensor[] => {
    const { graph, outputs } = trace(
      work.fn as never,
      given.map(({ shape, dtype }) => ({ shape, dtype })),
    );
    return evaluate(graph, outputs, given);
  };
  if (work.name !== 'training step') return answer(inputs).map((t) => t.data as Float64Array);
  const losses: number[] = [];
  const { moments } = startOf(numbers);
  let state = [...inputs.slice(2), ...moments.map((z, i) => host(z, inputs[2 + (i % PARAMETER_NAMES.length)]!.shape))];
  for (let step = 1; step <= TRAIN_STEPS; step++) {
    const [loss, ...next] = answer([inputs[0]!, inputs[1]!, host([step], []), ...state]);
    losses.push(loss!.data[0]!);
    state = next;
  }
  return [Float64Array.from(losses)];
}

/** Largest difference of two answers, relative to the largest number in the reference. NaN where an answer has one. */
export function errorOf(answer: readonly ArrayLike<number>[], reference: readonly Float64Array[]): number {
  return Math.max(
    ...reference.map((right, i) => {
      const got = answer[i];
      if (got?.length !== right.length) return Infinity;
      let [worst, scale] = [0, 0];
      for (let j = 0; j < right.length; j++) {
        const off = Math.abs(got[j]! - right[j]!);
        if (Number.isNaN(off)) return NaN;
        worst = Math.max(worst, off);
        scale = Math.max(scale, Math.abs(right[j]!));
      }
      return worst / scale;
    }),
  );
}

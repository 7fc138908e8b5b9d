/**
 * The kernels that `bench --isa` compiles: those of named shapes, and of products, attention and convolutions every layout and head size.
 */
import { make, type Tensor } from '../../../engine/frontend/tensor.ts';
import { attention, conv3d, gelu } from '../../../engine/frontend/functional.ts';
import { analyse } from '../../../engine/compiler/stages.ts';
import type { TensorType } from '../../../engine/frontend/graph.ts';
import { flatten } from '../../../engine/frontend/tree.ts';
import type { Caps, Dispatch, DType } from '../../../kernels/kernel.ts';
import { costOf, type Sampler } from '../../../train/planning/jobs.ts';
import { subjectsOf } from '../../common/released.ts';
import { kernelWorks, type Work } from '../kernels.ts';
import { wanted } from '../case.ts';
import type { StepsOf } from './marks.ts';
import { SHAPES } from '../shapes.ts';

/** Kernels under a name: what a case or a program of a step is lowered to. */
export interface Named {
  name: string;
  dispatches: readonly Dispatch[];
}

interface IsaCase extends Work {
  /** Operands of products are rounded to f16, as where a model is trained in it. */
  operands?: 'f16';
}

type Fn = (...x: Tensor[]) => unknown;

function products(dtype: DType): IsaCase[] {
  const product = (name: string, [m, n, k]: readonly [number, number, number], transA: boolean, transB: boolean) => ({
    name: `matmul ${name} ${dtype}`,
    text: `${m}x${n}x${k}`,
    inputs: [wanted(transA ? [k, m] : [m, k], dtype), wanted(transB ? [n, k] : [k, n], dtype)],
    fn: ((a, b) => a!.matmul(b!, { transA, transB })) as Fn,
  });
  return [
    product('nt', [512, 512, 512], false, true),
    product('nt', [4096, 1536, 1536], false, true),
    product('nt', [1000, 77, 333], false, true),
    product('nt', [1, 1536, 1536], false, true),
    product('nt', [16, 1536, 1536], false, true),
    product('nn', [4096, 1536, 1536], false, false),
    product('tn', [1536, 1536, 4096], true, false),
  ];
}

function attentions(half: boolean): IsaCase[] {
  const f = half ? 'f16' : 'f32';
  return [32, 64, 128].flatMap((size) =>
    [512, 4096].flatMap((tokens) => {
      const q = wanted([1, tokens, 12, size]);
      const attrs = { scale: size ** -0.5, ...(half && { half }) };
      const text = `${tokens} tokens, heads of ${size}`;
      return [
        { name: `attention ${f}`, text, inputs: [q, q, q], fn: (...x: Tensor[]) => make('attention', x, attrs)[0] },
        {
          name: `attention gradient ${f}`,
          text,
          inputs: [q, q, q, q, wanted([1, 12, tokens]), q],
          fn: (...x: Tensor[]) => make('attentionGrad', x, attrs),
        },
      ];
    }),
  );
}

const CAUSAL = { stride: [1, 1, 1], padLo: [2, 1, 1], padHi: [0, 1, 1] } as const;

function convolutions(operands: 'f16' | undefined): IsaCase[] {
  const sizes = [
    [16, 32, [16, 32, 32]],
    [96, 96, [9, 60, 104]],
    [384, 384, [3, 60, 104]],
  ] as const;
  return sizes.flatMap(([from, to, clip]) => {
    const [x, y, w] = [
      [1, from, ...clip],
      [1, to, ...clip],
      [to, from, 3, 3, 3],
    ] as const;
    const conv = (name: string, inputs: readonly (readonly number[])[], fn: Fn): IsaCase => ({
      name: `${name} ${operands ?? 'f32'}`,
      text: `${from} to ${to} channels`,
      inputs: inputs.map((s) => wanted(s)),
      fn,
      ...(operands && { operands }),
    });
    return [
      conv('conv3d', [x, w], (a, b) => conv3d(a!, b!, undefined, CAUSAL)),
      conv('conv3d, input gradient', [y, w], (a, b) => make('conv3dInput', [a!, b!], { ...CAUSAL, shape: x })),
      conv('conv3d, weight gradient', [x, y], (a, b) => make('conv3dWeight', [a!, b!], { ...CAUSAL, shape: w })),
    ];
  });
}

const shapes = (caps: Caps): IsaCase[] =>
  ['digits', 'wan2.1-1.3b'].flatMap((name) => kernelWorks(caps, SHAPES[name]!()));

/** All for these capabilities; many share a kernel. */
function isaCases(caps: Caps): IsaCase[] {
  const x = wanted([4096, 1536]);
  const k = wanted([1, 512, 12, 128]);
  return [
    ...products('f32'),
    ...attentions(false),
    {
      name: 'cross-attention',
      text: '512 keys, lengths',
      inputs: [wanted([1, 4096, 12, 128]), k, k, wanted([1], 'u32')],
      fn: (a, b, c, n) => attention(a!, b!, c!, { lengths: n! }),
    },
    ...convolutions(undefined),
    ...(caps.f16
      ? [
          ...products('f16'),
          {
            name: 'linear and GELU f16',
            text: '4096x8960x1536',
            inputs: [wanted([4096, 1536], 'f16'), wanted([8960, 1536], 'f16'), wanted([8960])],
            fn: ((a, b, c) => gelu(a!.matmul(b!, { transB: true }).add(c!), 'tanh')) as Fn,
          },
          {
            name: 'matmul nt f16 bf16',
            text: '4096x1536x1536',
            inputs: [wanted([4096, 1536], 'f16'), wanted([1536, 1536], 'bf16')],
            fn: ((a, b) => a!.matmul(b!, { transB: true })) as Fn,
          },
          ...attentions(true),
          ...convolutions('f16'),
        ]
      : []),
    ...shapes(caps),
    { name: 'sum of all', text: '4096x1536', inputs: [x], fn: (a) => a!.sum() },
    { name: 'sum of columns', text: '4096x1536', inputs: [x], fn: (a) => a!.sum([0]) },
    { name: 'transpose', text: '4096x1536', inputs: [x], fn: (a) => a!.transpose(0, 1).add(1) },
  ];
}

export const caseKernels = (caps: Caps): Named[] =>
  isaCases(caps).map((c) => {
    const args = c.inputs.map((w) => flatten<TensorType>({ shape: w.shape, dtype: w.dtype }));
    const call = { name: c.name, fn: c.fn as (...x: unknown[]) => unknown, args, fromHost: args.map(() => false) };
    const { lowered } = analyse(call, caps, c.operands ? { operands: c.operands } : {});
    return { name: `${c.name}, ${c.text}`, dispatches: lowered.flatMap((l) => l.launch.dispatches) };
  });

const ONE: Sampler = { steps: 1, guided: true, offload: false, precision: 'f32' };

/** Of every program of a job's steps, as `plan` has them. */
export const stepKernels = (caps: Caps, maxBufferBytes: number, { jobs, ...of }: StepsOf): Named[] =>
  jobs.flatMap((job) => {
    const sampler = { ...ONE, ...(of.precision && { precision: of.precision }) };
    const { stages } = costOf(job, subjectsOf(of)([]), sampler, { caps, maxBufferBytes });
    return stages
      .flatMap(({ runs }) => runs)
      .map(({ name, call: { fn, args: trees, resident, donate, operands } }) => {
        const args = trees.map((a) => flatten<TensorType>(a));
        const fromHost = args.flatMap((f, a) => f.leaves.map(() => !resident.has(a)));
        const { lowered } = analyse({ name, fn: fn as (...x: unknown[]) => unknown, args, fromHost }, caps, {
          donate,
          ...(operands && { operands }),
        });
        return { name: `${job}: ${name}`, dispatches: lowered.flatMap((l) => l.launch.dispatches) };
      });
  });

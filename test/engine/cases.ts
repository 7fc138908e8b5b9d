/** Small functions over tensors, by op: what gradients, rewrites and kernels are checked on. Shapes are odd on purpose. */
import type { DType } from '../../kernels/kernel.ts';
import { numel } from '../../kernels/kernel.ts';
import { avgPool, concat, gather, iota, maxPool, normal, uniform, where } from '../../engine/frontend/functional.ts';
import type { OpName } from '../../engine/frontend/graph.ts';
import { threefry2x32 } from '../../engine/frontend/ops/random.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { make } from '../../engine/frontend/tensor.ts';
import type { HostTensor } from '../../engine/frontend/tree.ts';
import { host } from '../../engine/frontend/tree.ts';

export interface CaseInput {
  shape: readonly number[];
  dtype?: DType;
  /** Bounds of the random values, [-1, 1) unless given. Integers are below `range[1]`. */
  range?: readonly [number, number];
  /** The values themselves. */
  data?: readonly number[];
}

export interface Case {
  name: string;
  inputs: readonly CaseInput[];
  fn: (...x: Tensor[]) => Tensor | Tensor[];
  /** Not differentiable, or flat: only the forward pass is checked. */
  flat?: boolean;
}

/** The same values at every call: element i of input k depends on (k, i). */
export function caseInputs({ inputs }: Case): HostTensor[] {
  return inputs.map(({ shape, dtype = 'f32', range: [lo, hi] = [-1, 1], data }, k) => {
    if (data) return host(data, shape, dtype);
    const values = Array.from(
      { length: numel(shape) },
      (_, i) => lo + ((hi - lo) * threefry2x32(7, k, i, 0)[0]) / 2 ** 32,
    );
    return host(dtype === 'f32' ? values : values.map(Math.floor), shape, dtype);
  });
}

const f = (...shape: number[]): CaseInput => ({ shape });
const within = (lo: number, hi: number, ...shape: number[]): CaseInput => ({ shape, range: [lo, hi] });
const on = (name: string, inputs: readonly CaseInput[], fn: Case['fn'], flat = false): Case => ({
  name,
  inputs,
  fn,
  flat,
});
const positive = within(0.3, 2.1, 3, 5);
const key: CaseInput = { shape: [2], dtype: 'u32', data: [1234567, 4000000001] };
const geometry = { stride: [1, 1, 1], padLo: [0, 0, 0], padHi: [0, 0, 0] } as const;
const causal = { stride: [2, 1, 2], padLo: [2, 1, 0], padHi: [0, 1, 1] } as const;
const lengths: CaseInput = { shape: [2], dtype: 'u32', data: [3, 6] };
const qkv = [f(2, 3, 2, 5), f(2, 7, 2, 5), f(2, 7, 2, 5)];

/** o and lse of attention, and its gradient for a given cotangent, as one function of q, k, v and do. */
function attend(withLengths: boolean, withLse: boolean): Case['fn'] {
  return (q, k, v, n) => {
    const [o, lse] = make('attention', withLengths ? [q!, k!, v!, n!] : [q!, k!, v!], { scale: 0.45 });
    return withLse ? [o!, lse!] : o!;
  };
}
const attendGrad: Case['fn'] = (q, k, v, dO, n) => {
  const tail = n ? [n] : [];
  const [o, lse] = make('attention', [q!, k!, v!, ...tail], { scale: 0.45 });
  return make('attentionGrad', [q!, k!, v!, o!, lse!, dO!, ...tail], { scale: 0.45 });
};

export const CASES: { [K in OpName]: readonly Case[] } = {
  input: [on('as output', [f(2, 3)], (x) => x!)],
  const: [on('added', [f(2, 3)], (x) => x!.add(1.75))],
  iota: [on('weights', [f(3, 1, 4)], (x) => x!.mul(iota([3, 5, 4], 1)))],
  neg: [on('3x5', [f(3, 5)], (x) => x!.neg())],
  exp: [on('3x5', [f(3, 5)], (x) => x!.exp())],
  log: [on('3x5', [positive], (x) => x!.log())],
  log1p: [on('3x5', [within(-0.9, 3, 3, 5)], (x) => x!.log1p())],
  sqrt: [on('3x5', [positive], (x) => x!.sqrt())],
  rsqrt: [on('3x5', [positive], (x) => x!.rsqrt())],
  sin: [
    on('many turns', [within(-300, 300, 40)], (x) => x!.sin(), true),
    on('3x5', [within(-3, 3, 3, 5)], (x) => x!.sin()),
  ],
  cos: [
    on('many turns', [within(-300, 300, 40)], (x) => x!.cos(), true),
    on('3x5', [within(-3, 3, 3, 5)], (x) => x!.cos()),
  ],
  tanh: [
    on('3x5', [within(-2, 2, 3, 5)], (x) => x!.tanh()),
    on('saturated', [{ shape: [4], data: [-100, -12, 12, 100] }], (x) => x!.tanh(), true),
  ],
  sigmoid: [
    on('3x5', [within(-3, 3, 3, 5)], (x) => x!.sigmoid()),
    on('saturated', [{ shape: [4], data: [-80, -20, 20, 100] }], (x) => x!.sigmoid(), true),
  ],
  erf: [on('3x5', [within(-3, 3, 3, 5)], (x) => x!.erf())],
  abs: [on('3x5', [f(3, 5)], (x) => x!.abs())],
  sign: [on('3x5', [f(3, 5)], (x) => x!.sign(), true)],
  floor: [on('3x5', [within(-3, 3, 3, 5)], (x) => x!.floor(), true)],
  round: [
    on('ties to even', [{ shape: [8], data: [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 2.4, -2.6] }], (x) => x!.round(), true),
    on('3x5', [within(-3, 3, 3, 5)], (x) => x!.round(), true),
  ],
  unitScale: [
    on(
      'powers of two',
      [{ shape: [10], data: [1, -2, 3.999, 4, 1e-30, 1e30, 1e-38, 3e38, 0, 0.9999999] }],
      (x) => x!.unitScale(),
      true,
    ),
  ],
  isFinite: [on('infinities', [{ shape: [5], data: [1, -Infinity, 3e38, NaN, 0] }], (x) => x!.isFinite(), true)],
  add: [
    on('same', [f(3, 5), f(3, 5)], (a, b) => a!.add(b!)),
    on('broadcast both', [f(4, 1, 3), f(2, 1)], (a, b) => a!.add(b!)),
  ],
  sub: [on('broadcast row', [f(3, 5), f(5)], (a, b) => a!.sub(b!))],
  mul: [on('broadcast scalar', [f(3, 5), f()], (a, b) => a!.mul(b!)), on('square', [f(7)], (a) => a!.mul(a!))],
  div: [
    on(
      'remainders of i32',
      [{ shape: [9], dtype: 'i32', range: [-90, 90] }],
      (x) => x!.sub(x!.div(7).mul(7)).add(x!).sub(x!),
      true,
    ),
    on('broadcast column', [f(3, 5), within(0.4, 2, 3, 1)], (a, b) => a!.div(b!)),
  ],
  max: [on('same', [f(3, 5), f(3, 5)], (a, b) => a!.max(b!))],
  min: [on('broadcast', [f(3, 5), f(5)], (a, b) => a!.min(b!))],
  pow: [
    on('positive', [positive, within(-2, 2, 3, 5)], (a, b) => a!.pow(b!)),
    on('constant', [positive], (a) => a!.pow(2.5)),
  ],
  lt: [on('3x5', [f(3, 5), f(5)], (a, b) => a!.lt(b!), true)],
  le: [on('3x5', [f(3, 5), f(5)], (a, b) => a!.le(b!), true)],
  eq: [
    on(
      'ids',
      [
        { shape: [9], dtype: 'i32', range: [0, 3] },
        { shape: [9], dtype: 'i32', range: [0, 3] },
      ],
      (a, b) => a!.eq(b!),
      true,
    ),
  ],
  where: [on('broadcast', [f(3, 5), f(5), f(3, 1)], (x, a, b) => where(x!.lt(0.1), a!, b!))],
  cast: [
    on(
      'to f16 and back',
      [{ shape: [3, 5], data: Array.from({ length: 15 }, (_, i) => (i - 7) / 8) }],
      (x) => x!.cast('f16').cast('f32'),
      true, // the gradient passes straight through the rounding: values.test.ts
    ),
    on('to i32', [within(-9, 9, 3, 5)], (x) => x!.cast('i32'), true),
  ],
  detach: [on('forward', [f(3, 5)], (x) => make('detach', [x!], {}), true)],
  reshape: [on('with a hole', [f(3, 4, 5)], (x) => x!.reshape([5, -1]).mul(x!.reshape([5, 12])))],
  permute: [
    on('3 axes', [f(2, 3, 5)], (x) => x!.permute([2, 0, 1]).exp()),
    on('heads', [f(2, 3, 4, 5)], (x) => x!.permute([0, 2, 1, 3])),
  ],
  expand: [on('two axes', [f(3, 1)], (x) => x!.expand([2, 3, 4]).exp())],
  slice: [
    on('steps', [f(7, 9)], (x) => x!.slice(1, 1, 8, 3).slice(0, -5, -1, 2)),
    on('split', [f(3, 6)], (x) => {
      const [a, b] = x!.split(1, 2) as [Tensor, Tensor];
      return a.mul(b.exp());
    }),
  ],
  pad: [
    on('an axis of one', [f(2, 1, 3)], (x) => x!.pad([0, 2, 0], [0, 1, 0])),
    on('all ways', [f(3, 4)], (x) => x!.pad([1, 0], [0, 2], [2, 1]).exp()),
  ],
  flip: [
    on('pairs', [f(2, 3, 8), f(8), f(3, 8)], (x, g, s) => {
      const y = x!.mul(g!);
      return y.reshape([2, 3, 4, 2]).flip(3).reshape([2, 3, 8]).mul(s!).add(y);
    }),
    on('two axes', [f(3, 4, 2)], (x) => x!.flip(0, 2).mul(x!)),
  ],
  concat: [
    on('parts of one', [f(2, 1, 3), f(2, 1, 3)], (a, b) => concat([a!, b!], 1)),
    on('three parts', [f(2, 1, 3), f(2, 4, 3), f(2, 2, 3)], (...x) => concat(x, 1).exp()),
  ],
  sum: [
    on('middle', [f(3, 4, 5)], (x) => x!.sum([1]).exp()),
    on('outer', [f(3, 4, 5)], (x) => x!.sum([0, 2], true)),
    on('all', [f(3, 37)], (x) => x!.square().mean()),
    on('of i32, wraps', [{ shape: [2, 70], dtype: 'i32', range: [-2e9, 2e9] }], (x) => x!.sum([1]), true),
    on('of u32, wraps', [{ shape: [70, 2], dtype: 'u32', range: [1e9, 4e9] }], (x) => x!.sum([0], true), true),
  ],
  amax: [
    on('last', [f(3, 17)], (x) => x!.amax([1])),
    on('ties', [{ shape: [2, 3], data: [1, 3, 3, 0, -1, -2] }], (x) => x!.amax([-1], true), true),
    on('of i32', [{ shape: [3, 5], dtype: 'i32', range: [-9, 0] }], (x) => x!.amax([0]), true),
  ],
  amin: [
    on('outer', [f(17, 3)], (x) => x!.amin([0])),
    on('of i32', [{ shape: [3, 5], dtype: 'i32', range: [-9, 9] }], (x) => x!.amin([1]), true),
    on('of u32', [{ shape: [3, 5], dtype: 'u32', range: [1, 4e9] }], (x) => x!.amin(), true),
  ],
  prod: [
    on('last', [within(0.5, 1.7, 3, 7)], (x) => x!.prod([1])),
    on('outer, zeros', [{ shape: [3, 2, 2], data: [1, 0, 2, 0, 3, 5, 0, 4, -2, 1, 7, 1] }], (x) => x!.prod([0, 1])),
    on('of i32, wraps', [{ shape: [70], dtype: 'i32', range: [-9, 0] }], (x) => x!.prod(), true),
  ],
  matmul: [
    on('plain', [f(3, 5), f(5, 7)], (a, b) => a!.matmul(b!)),
    on('transposed a', [f(5, 3), f(5, 7)], (a, b) => a!.matmul(b!, { transA: true })),
    on('transposed b', [f(3, 5), f(7, 5)], (a, b) => a!.matmul(b!, { transB: true })),
    on('transposed both', [f(2, 5, 3), f(2, 7, 5)], (a, b) => a!.matmul(b!, { transA: true, transB: true })),
    on('rows', [f(2, 3, 5), f(7, 5)], (a, b) => a!.matmul(b!, { transB: true })),
    on('broadcast batch', [f(2, 1, 3, 5), f(4, 5, 2)], (a, b) => a!.matmul(b!)),
  ],
  conv3d: [
    on('1x1x1', [f(2, 3, 2, 3, 3), f(4, 3, 1, 1, 1)], (x, w) => make('conv3d', [x!, w!], geometry)),
    on('1x1x1 of one clip', [f(1, 3, 2, 3, 3), f(4, 3, 1, 1, 1)], (x, w) => make('conv3d', [x!, w!], geometry)),
    on('causal, strided', [f(1, 2, 5, 4, 6), f(3, 2, 3, 3, 2)], (x, w) => make('conv3d', [x!, w!], causal)),
  ],
  conv3dInput: [
    on('causal, strided', [f(1, 3, 3, 4, 3), f(3, 2, 3, 3, 2)], (dy, w) =>
      make('conv3dInput', [dy!, w!], { ...causal, shape: [1, 2, 5, 4, 6] }),
    ),
  ],
  conv3dWeight: [
    on('causal, strided', [f(2, 2, 5, 4, 6), f(2, 3, 3, 4, 3)], (x, dy) =>
      make('conv3dWeight', [x!, dy!], { ...causal, shape: [3, 2, 3, 3, 2] }),
    ),
  ],
  attention: [
    on('cross', qkv, attend(false, false)),
    on('lengths', [...qkv, lengths], attend(true, false)),
    on('lengths, with lse', [...qkv, lengths], attend(true, true)),
    on('one value thrice', [f(1, 4, 2, 3)], (x) => make('attention', [x!, x!, x!], { scale: 0.7 })),
  ],
  attentionGrad: [
    on('cross', [...qkv, f(2, 3, 2, 5)], attendGrad),
    on('lengths', [...qkv, f(2, 3, 2, 5), lengths], attendGrad),
  ],
  softmax: [on('odd rows', [within(-3, 3, 3, 17)], (x) => x!.softmax())],
  layerNorm: [on('odd rows', [f(2, 3, 13)], (x) => x!.layerNorm(1e-3))],
  layerNormGrad: [on('odd rows', [f(3, 13), f(3, 13)], (x, dy) => make('layerNormGrad', [x!, dy!], { eps: 1e-3 }))],
  rmsNorm: [on('odd rows', [f(2, 3, 13)], (x) => x!.rmsNorm(1e-3))],
  rmsNormGrad: [on('odd rows', [f(3, 13), f(3, 13)], (x, dy) => make('rmsNormGrad', [x!, dy!], { eps: 1e-3 }))],
  sumPool: [
    on('overlapping, dilated', [f(2, 3, 7, 8)], (x) =>
      avgPool(x!, [2, 3], { stride: [1, 2], dilation: [2, 1], padLo: [1, 0], padHi: [0, 2] }),
    ),
    on('without pads', [f(3, 9)], (x) =>
      avgPool(x!, [3], { stride: [2], padLo: [1], padHi: [2], countPads: false }).exp(),
    ),
    on('three axes', [f(1, 2, 3, 4, 4)], (x) => avgPool(x!, [2, 2, 2], { stride: [1, 2, 2] })),
  ],
  maxPool: [
    on('overlapping, dilated', [f(2, 3, 7, 8)], (x) =>
      maxPool(x!, [2, 3], { stride: [1, 2], dilation: [2, 1], padLo: [1, 0], padHi: [0, 2] }),
    ),
    on('three axes', [f(1, 2, 3, 4, 4)], (x) => maxPool(x!, [2, 2, 2], { stride: [1, 2, 2] }).exp()),
    on('below zero, padded', [within(-3, -1, 3, 9)], (x) => maxPool(x!, [3], { stride: [2], padLo: [1] })),
  ],
  argmax: [
    on('ties', [{ shape: [2, 4], data: [1, 3, 3, 0, -1, -2, -1, -7] }], (x) => x!.argmax(-1), true),
    on('outer, of u32', [{ shape: [300, 3], dtype: 'u32', range: [0, 4e9] }], (x) => x!.argmax(0, true), true),
    on(
      'NaN and infinities',
      [{ shape: [2, 3], data: [1, NaN, NaN, Infinity, 2, -Infinity] }],
      (x) => x!.argmax(1),
      true,
    ),
    on('a long line', [f(30_001)], (x) => x!.argmax(), true),
  ],
  argmin: [
    on(
      'NaN, zeros',
      [{ shape: [3, 3], data: [1, NaN, -9, 0, -0, 0, Infinity, 2, -Infinity] }],
      (x) => x!.argmin(1),
      true,
    ),
    on('of i32', [{ shape: [3, 40], dtype: 'i32', range: [-5, 5] }], (x) => x!.argmin(1), true),
  ],
  topK: [
    on('last', [f(3, 17)], (x) => x!.topK(4).values),
    on('middle, smallest', [f(2, 9, 3)], (x) => x!.topK(5, 1, false).values.exp()),
    on('places', [{ shape: [40, 3], dtype: 'i32', range: [-5, 5] }], (x) => Object.values(x!.topK(7, 0)), true),
    on('sorted', [f(2, 150)], (x) => Object.values(x!.topK(150)), true),
    on(
      'all of u32',
      [{ shape: [100, 2], dtype: 'u32', range: [0, 40] }],
      (x) => Object.values(x!.topK(99, 0, false)),
      true,
    ),
    on('few of many', [f(2, 20_001)], (x) => Object.values(x!.topK(3)), true),
  ],
  cumSum: [
    on('last', [f(3, 17)], (x) => x!.cumSum(-1)),
    on('middle, exclusive', [f(2, 9, 3)], (x) => x!.cumSum(1, { exclusive: true })),
    on('reverse', [f(9, 2)], (x) => x!.cumSum(0, { reverse: true }).mul(x!)),
    on(
      'both, of i32',
      [{ shape: [70], dtype: 'i32', range: [-2e9, 2e9] }],
      (x) => x!.cumSum(0, { exclusive: true, reverse: true }),
      true,
    ),
    on('a long line', [f(1, 20_001, 1)], (x) => x!.cumSum(1), true),
  ],
  gather: [
    on('repeats', [f(5, 2, 3), { shape: [2, 4], dtype: 'i32', range: [0, 5] }], (table, ids) =>
      gather(table!, ids!).exp(),
    ),
  ],
  scatterAdd: [
    on('repeats', [f(7, 3), { shape: [7], dtype: 'u32', range: [0, 4] }], (rows, ids) =>
      make('scatterAdd', [ids!, rows!], { rows: 5 }),
    ),
  ],
  random: [
    on('normal', [key, f(3, 5)], (k, x) => normal(k!, [3, 5]).mul(x!)),
    on('uniform', [key, f(3, 5)], (k, x) => uniform(k!, [3, 5]).add(x!)),
  ],
};

export const ALL_CASES: readonly (Case & { op: OpName })[] = (Object.keys(CASES) as OpName[]).flatMap((op) =>
  CASES[op].map((c) => ({ ...c, op })),
);

/** Reductions over axes, which stay with size 1. */
import { numel, type DType } from '../../../kernels/kernel.ts';
import { fail, printShapes } from '../../host/errors.ts';
import type { Reduction, TensorType } from '../graph.ts';
import { sizeOf } from '../graph.ts';
import type { Tensor } from '../tensor.ts';
import type { HostTensor } from '../tree.ts';
import type { OpDef, VjpContext } from './op.ts';
import { arity, eachIndex, isFloat, isStorage, strides } from './op.ts';
import { KERNEL } from './traits.ts';

function infer(op: Reduction, x: readonly TensorType[], axes: readonly number[]): TensorType[] {
  arity(op, x, 1);
  const { shape, dtype } = x[0]!;
  if (isStorage(dtype)) fail(op, `expected f32, f16, i32 or u32, got ${dtype}${printShapes(shape)}`);
  for (const axis of axes)
    if (!(axis >= 0 && axis < shape.length)) fail(op, `no axis ${axis} in ${printShapes(shape)}`);
  if (new Set(axes).size < axes.length) fail(op, `an axis stands twice in [${axes.join()}]`);
  const out = shape.map((n, i) => (axes.includes(i) ? 1 : n));
  if ((op === 'amax' || op === 'amin') && numel(out) && !numel(shape))
    fail(op, `there is none among no values: ${printShapes(shape)} over [${axes.join()}]`);
  return [{ shape: out, dtype }];
}

function fold(x: HostTensor, out: TensorType, start: number, f: (a: number, b: number) => number): Float64Array[] {
  const y = new Float64Array(sizeOf(out)).fill(start);
  const step = strides(out.shape);
  eachIndex(x.shape, (index, flat) => {
    let at = 0;
    for (let i = 0; i < index.length; i++) if (out.shape[i] !== 1) at += index[i]! * step[i]!;
    y[at] = f(y[at]!, x.data[flat]!);
  });
  return [y];
}

/** Whole numbers wrap; u32 is folded as i32, whose bits are the same. */
const wrapped =
  (dtype: DType, whole: (a: number, b: number) => number, real: (a: number, b: number) => number) =>
  (a: number, b: number): number => {
    if (isFloat(dtype)) return real(a, b);
    return dtype === 'u32' ? whole(a, b) >>> 0 : whole(a, b);
  };

const sum: OpDef<'sum'> = {
  infer: (x, { axes }) => infer('sum', x, axes),
  oracle: ([x], _, outs) => {
    const add = (a: number, b: number): number => a + b;
    return fold(
      x!,
      outs[0]!,
      0,
      wrapped(x!.dtype, (a, b) => (a + b) | 0, add),
    );
  },
  vjp: ({ x, dy }) => [dy[0]!.expand(x[0]!.shape)],
  flops: ([x]) => sizeOf(x!),
  traits: KERNEL,
};

/** The product along an axis by halves: each factor's cotangent is then the product of the others, at zeros too. */
function halves(x: Tensor, axis: number): Tensor {
  let rest: Tensor | undefined;
  for (let n = x.shape[axis]!; n > 1; n = x.shape[axis]!) {
    if (n % 2) {
      const last = x.slice(axis, n - 1, n);
      rest = rest ? rest.mul(last) : last;
    }
    const half = Math.floor(n / 2);
    x = x.slice(axis, 0, half).mul(x.slice(axis, half, 2 * half));
  }
  return rest ? x.mul(rest) : x;
}

const prod: OpDef<'prod'> = {
  infer: (x, { axes }) => infer('prod', x, axes),
  oracle: ([x], _, outs) =>
    fold(
      x!,
      outs[0]!,
      1,
      wrapped(x!.dtype, Math.imul, (a, b) => a * b),
    ),
  vjp: ({ throughComposed }) => throughComposed(),
  composed: ([x], { axes }) => {
    const empty = axes.some((axis) => x!.shape[axis] === 0);
    return [empty ? x!.sum(axes, true).like(1) : axes.reduce(halves, x!)];
  },
  flops: ([x]) => sizeOf(x!),
  traits: KERNEL,
};

/** Elements that tie share the cotangent. */
function shared({ x, y, dy, attrs }: VjpContext<'amax' | 'amin'>): Tensor[] {
  const ties = x[0]!.eq(y[0]!).cast(x[0]!.dtype);
  return [ties.mul(dy[0]!.div(ties.sum(attrs.axes, true)))];
}

const amax: OpDef<'amax'> = {
  infer: (x, { axes }) => infer('amax', x, axes),
  oracle: ([x], _, outs) => fold(x!, outs[0]!, lowest(x!.dtype), Math.max),
  vjp: shared,
  flops: ([x]) => sizeOf(x!),
  traits: KERNEL,
};

const amin: OpDef<'amin'> = {
  infer: (x, { axes }) => infer('amin', x, axes),
  oracle: ([x], _, outs) => fold(x!, outs[0]!, highest(x!.dtype), Math.min),
  vjp: shared,
  flops: ([x]) => sizeOf(x!),
  traits: KERNEL,
};

const lowest = (d: DType): number => (d === 'i32' ? -(2 ** 31) : d === 'u32' ? 0 : -Infinity);
const highest = (d: DType): number => (d === 'i32' ? 2 ** 31 - 1 : d === 'u32' ? 2 ** 32 - 1 : Infinity);

export const reduceOps = { sum, prod, amax, amin };

/** Reductions over axes, which stay with size 1. */
import { fail, printShapes } from '../../host/errors.ts';
import type { TensorType } from '../graph.ts';
import { sizeOf } from '../graph.ts';
import type { HostTensor } from '../tree.ts';
import type { OpDef } from './op.ts';
import { arity, eachIndex, floats, strides } from './op.ts';

function infer(op: 'sum' | 'amax', x: readonly TensorType[], axes: readonly number[]): TensorType[] {
  arity(op, x, 1);
  floats(op, x);
  const { shape, dtype } = x[0]!;
  for (const axis of axes)
    if (!(axis >= 0 && axis < shape.length)) fail(op, `no axis ${axis} in ${printShapes(shape)}`);
  return [{ shape: shape.map((n, i) => (axes.includes(i) ? 1 : n)), dtype }];
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

const sum: OpDef<'sum'> = {
  infer: (x, { axes }) => infer('sum', x, axes),
  oracle: ([x], _, outs) => fold(x!, outs[0]!, 0, (a, b) => a + b),
  vjp: ({ x, dy }) => [dy[0]!.expand(x[0]!.shape)],
  flops: ([x]) => sizeOf(x!),
};

const amax: OpDef<'amax'> = {
  infer: (x, { axes }) => infer('amax', x, axes),
  oracle: ([x], _, outs) => fold(x!, outs[0]!, -Infinity, Math.max),
  /** Elements that tie share the cotangent. */
  vjp({ x, y, dy, attrs }) {
    const ties = x[0]!.eq(y[0]!).cast(x[0]!.dtype);
    return [ties.mul(dy[0]!.div(ties.sum(attrs.axes, true)))];
  },
  flops: ([x]) => sizeOf(x!),
};

export const reduceOps = { sum, amax };

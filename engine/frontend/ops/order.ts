/** What depends on the order of elements along an axis: argmax, argmin, topK, and running sums. */
import { numel } from '../../../kernels/kernel.ts';
import { fail, printShapes } from '../../host/errors.ts';
import type { OpName, TensorType } from '../graph.ts';
import { sizeOf } from '../graph.ts';
import type { HostTensor } from '../tree.ts';
import type { OpDef } from './op.ts';
import { arity, isFloat, isStorage } from './op.ts';
import { KERNEL } from './traits.ts';

/** A tensor as lines along an axis: [outer, n, inner]. */
export const linesOf = (shape: readonly number[], axis: number): { outer: number; n: number; inner: number } => ({
  outer: numel(shape.slice(0, axis)),
  n: shape[axis]!,
  inner: numel(shape.slice(axis + 1)),
});

function infer(op: OpName, x: readonly TensorType[], axis: number): TensorType {
  arity(op, x, 1);
  const { shape, dtype } = x[0]!;
  if (!(axis >= 0 && axis < shape.length)) fail(op, `no axis ${axis} in ${printShapes(shape)}`);
  if (isStorage(dtype)) fail(op, `expected f32, f16, i32 or u32, got ${dtype}${printShapes(shape)}`);
  return x[0]!;
}

/** Visits each line of x as a function of the place in it; results of `length` go to the like place of lines of that length. */
function eachLine(
  { shape }: HostTensor,
  axis: number,
  length: number,
  visit: (at: (r: number) => number, out: (j: number) => number) => void,
): void {
  const { outer, n, inner } = linesOf(shape, axis);
  for (let o = 0; o < outer; o++)
    for (let i = 0; i < inner; i++)
      visit(
        (r) => (o * n + r) * inner + i,
        (j) => (o * length + j) * inner + i,
      );
}

/** NaN is above everything. */
const above = (a: number, b: number): number =>
  Number.isNaN(a) || Number.isNaN(b) ? Number(Number.isNaN(a)) - Number(Number.isNaN(b)) : a - b;

/** `better(a, b)` > 0: a comes before b; of equal ones the first does. */
function arg(op: 'argmax' | 'argmin', better: (a: number, b: number) => number): OpDef<'argmax' | 'argmin'> {
  return {
    infer(x, { axis }) {
      const { shape } = infer(op, x, axis);
      if (shape[axis] === 0)
        fail(op, `axis ${axis} of ${printShapes(shape)} is empty: there is nothing to choose from`);
      return [{ shape: shape.with(axis, 1), dtype: 'i32' }];
    },
    oracle([x], { axis }, outs) {
      const y = new Float64Array(sizeOf(outs[0]!));
      eachLine(x!, axis, 1, (at, out) => {
        let best = 0;
        for (let r = 1; r < x!.shape[axis]!; r++) if (better(x!.data[at(r)]!, x!.data[at(best)]!) > 0) best = r;
        y[out(0)] = best;
      });
      return [y];
    },
    vjp: null,
    flops: ([x]) => sizeOf(x!),
    traits: KERNEL,
  };
}

const argmax = arg('argmax', above);
/** NaN wins here too, as in NumPy. */
const argmin = arg('argmin', (a, b) => (Number.isNaN(a) || Number.isNaN(b) ? above(a, b) : b - a));

const topK: OpDef<'topK'> = {
  infer(x, { axis, k }) {
    const { shape, dtype } = infer('topK', x, axis);
    if (!(Number.isInteger(k) && k >= 1 && k <= shape[axis]!))
      fail('topK', `expected k from 1 to ${shape[axis]}, the size of axis ${axis} of ${printShapes(shape)}, got ${k}`);
    const top = shape.with(axis, k);
    return [
      { shape: top, dtype },
      { shape: top, dtype: 'i32' },
    ];
  },
  oracle([x], { axis, k, largest }, outs) {
    const values = new Float64Array(sizeOf(outs[0]!));
    const places = new Float64Array(values.length);
    eachLine(x!, axis, k, (at, out) => {
      const order = Array.from({ length: x!.shape[axis]! }, (_, r) => r).sort((a, b) => {
        const up = above(x!.data[at(a)]!, x!.data[at(b)]!);
        return (largest ? -up : up) || a - b;
      });
      for (let j = 0; j < k; j++) {
        places[out(j)] = order[j]!;
        values[out(j)] = x!.data[at(order[j]!)]!;
      }
    });
    return [values, places];
  },
  vjp({ x, y, dy, attrs: { axis }, make }) {
    const [source, places] = [x[0]!, y[1]!];
    if (!dy[0]) return [null];
    const spread = source.shape.toSpliced(axis, 0, places.shape[axis]!);
    const here = make('iota', [], { shape: spread, axis: axis + 1 })[0]!.cast('i32');
    return [
      here
        .eq(places.unsqueeze(axis + 1))
        .mul(dy[0].unsqueeze(axis + 1))
        .sum([axis]),
    ];
  },
  flops: ([x]) => sizeOf(x!),
  traits: KERNEL,
};

const cumSum: OpDef<'cumSum'> = {
  infer: (x, { axis }) => [infer('cumSum', x, axis)],
  oracle([x], { axis, exclusive, reverse }, outs) {
    const y = new Float64Array(sizeOf(outs[0]!));
    const n = x!.shape[axis]!;
    const wrap = isFloat(x!.dtype) ? (v: number) => v : (v: number) => v | 0;
    eachLine(x!, axis, n, (at) => {
      let sum = 0;
      for (let r = 0; r < n; r++) {
        const i = at(reverse ? n - 1 - r : r);
        const next = wrap(sum + x!.data[i]!);
        y[i] = exclusive ? sum : next;
        sum = next;
      }
    });
    return [x!.dtype === 'u32' ? y.map((v) => v >>> 0) : y];
  },
  vjp: ({ dy, attrs, make }) => make('cumSum', [dy[0]!], { ...attrs, reverse: !attrs.reverse }),
  flops: ([x]) => sizeOf(x!),
  traits: KERNEL,
};

export const orderOps = { argmax, argmin, topK, cumSum };

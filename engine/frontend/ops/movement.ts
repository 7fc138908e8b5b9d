/** Ops that move or repeat elements without arithmetic: reshape, permute, expand, slice, pad, flip, concat. */
import { numel } from '../../../kernels/kernel.ts';
import { fail, printShapes } from '../../host/errors.ts';
import type { OpName, TensorType } from '../graph.ts';
import type { HostTensor } from '../tree.ts';
import type { OpDef } from './op.ts';
import { arity, eachIndex, sameShape, strides } from './op.ts';
import { INLINED } from './traits.ts';

const free = (): number => 0;

/** Fills the output from the input element that `source` names; null leaves 0. */
function remap(x: HostTensor, shape: readonly number[], source: (index: number[]) => number[] | null): Float64Array[] {
  const y = new Float64Array(numel(shape));
  const step = strides(x.shape);
  eachIndex(shape, (index, flat) => {
    const from = source(index);
    if (from) y[flat] = x.data[from.reduce((sum, n, axis) => sum + n * step[axis]!, 0)]!;
  });
  return [y];
}

function rankOf(op: OpName, x: readonly TensorType[], ...lists: readonly (readonly unknown[])[]): readonly number[] {
  arity(op, x, 1);
  const { shape } = x[0]!;
  for (const list of lists)
    if (list.length !== shape.length)
      fail(op, `expected ${shape.length} entries for ${printShapes(shape)}, got ${list.length}: [${list.join()}]`);
  return shape;
}

const reshape: OpDef<'reshape'> = {
  infer(x, { shape }) {
    arity('reshape', x, 1);
    if (numel(x[0]!.shape) !== numel(shape))
      fail('reshape', `sizes differ: ${printShapes(x[0]!.shape)} to ${printShapes(shape)}`);
    return [{ shape, dtype: x[0]!.dtype }];
  },
  oracle: ([x]) => [x!.data],
  vjp: ({ x, dy }) => [dy[0]!.reshape(x[0]!.shape)],
  flops: free,
  traits: { ...INLINED, cost: 'free' },
};

const permute: OpDef<'permute'> = {
  infer(x, { order }) {
    const shape = rankOf('permute', x, order);
    if (
      !sameShape(
        order.toSorted((a, b) => a - b),
        shape.map((_, i) => i),
      )
    )
      fail('permute', `[${order.join()}] is no order of the axes of ${printShapes(shape)}`);
    return [{ shape: order.map((axis) => shape[axis]!), dtype: x[0]!.dtype }];
  },
  oracle: ([x], { order }, outs) =>
    remap(x!, outs[0]!.shape, (index) => {
      const from: number[] = [];
      order.forEach((axis, i) => (from[axis] = index[i]!));
      return from;
    }),
  vjp: ({ dy, attrs }) => [dy[0]!.permute(attrs.order.map((_, axis) => attrs.order.indexOf(axis)))],
  flops: free,
  traits: { ...INLINED, scattered: true },
};

const expand: OpDef<'expand'> = {
  infer(x, { shape }) {
    const from = rankOf('expand', x, shape);
    if (from.some((n, i) => n !== shape[i] && n !== 1))
      fail('expand', `only sizes of 1 expand: ${printShapes(from)} to ${printShapes(shape)}`);
    return [{ shape, dtype: x[0]!.dtype }];
  },
  oracle: ([x], { shape }) => remap(x!, shape, (index) => index.map((n, axis) => (x!.shape[axis] === 1 ? 0 : n))),
  vjp: ({ x, dy, attrs }) => [
    dy[0]!.sum(
      x[0]!.shape.flatMap((n, axis) => (n === attrs.shape[axis] ? [] : [axis])),
      true,
    ),
  ],
  flops: free,
  traits: INLINED,
};

const slice: OpDef<'slice'> = {
  infer(x, { start, end, step }) {
    const shape = rankOf('slice', x, start, end, step);
    const out = shape.map((n, i) => {
      const [a, b, s] = [start[i]!, end[i]!, step[i]!];
      if (![a, b, s].every(Number.isInteger) || !(a >= 0 && a < b && b <= n && s >= 1))
        fail('slice', `${a}:${b}:${s} is no range of axis ${i} of ${printShapes(shape)}`);
      return Math.ceil((b - a) / s);
    });
    return [{ shape: out, dtype: x[0]!.dtype }];
  },
  oracle: ([x], { start, step }, outs) =>
    remap(x!, outs[0]!.shape, (index) => index.map((n, i) => start[i]! + n * step[i]!)),
  vjp: ({ x, y, dy, attrs: { start, step } }) => [
    dy[0]!.pad(
      start,
      y[0]!.shape.map((n, i) => x[0]!.shape[i]! - (start[i]! + (n - 1) * step[i]! + 1)),
      step.map((s) => s - 1),
    ),
  ],
  flops: free,
  traits: INLINED,
};

const pad: OpDef<'pad'> = {
  infer(x, { lo, hi, inner }) {
    const shape = rankOf('pad', x, lo, hi, inner);
    for (const n of [...lo, ...hi, ...inner])
      if (!(Number.isInteger(n) && n >= 0))
        fail('pad', `expected whole numbers from 0, got lo [${lo.join()}], hi [${hi.join()}], inner [${inner.join()}]`);
    return [{ shape: shape.map((n, i) => lo[i]! + n + Math.max(0, n - 1) * inner[i]! + hi[i]!), dtype: x[0]!.dtype }];
  },
  oracle: ([x], { lo, inner }, outs) =>
    remap(x!, outs[0]!.shape, (index) => {
      const from = index.map((n, i) => (n - lo[i]!) / (inner[i]! + 1));
      return from.every((n, i) => Number.isInteger(n) && n >= 0 && n < x!.shape[i]!) ? from : null;
    }),
  vjp: ({ x, dy, attrs: { lo, inner }, make }) => [
    make('slice', [dy[0]!], {
      start: lo,
      end: x[0]!.shape.map((n, i) => lo[i]! + (n - 1) * (inner[i]! + 1) + 1),
      step: inner.map((n) => n + 1),
    })[0]!,
  ],
  flops: free,
  traits: { ...INLINED, scattered: true },
};

const flip: OpDef<'flip'> = {
  infer(x, { axes }) {
    arity('flip', x, 1);
    for (const axis of axes)
      if (!(axis >= 0 && axis < x[0]!.shape.length)) fail('flip', `no axis ${axis} in ${printShapes(x[0]!.shape)}`);
    if (new Set(axes).size < axes.length) fail('flip', `an axis stands twice in [${axes.join()}]`);
    return [x[0]!];
  },
  oracle: ([x], { axes }) =>
    remap(x!, x!.shape, (index) => index.map((n, i) => (axes.includes(i) ? x!.shape[i]! - 1 - n : n))),
  vjp: ({ dy, attrs }) => [dy[0]!.flip(...attrs.axes)],
  flops: free,
  traits: { ...INLINED, scattered: true },
};

const concat: OpDef<'concat'> = {
  infer(x, { axis }) {
    if (!x.length) fail('concat', 'expected at least one operand');
    const { shape, dtype } = x[0]!;
    if (!(Number.isInteger(axis) && axis >= 0 && axis < shape.length))
      fail('concat', `no axis ${axis} in ${printShapes(shape)}`);
    for (const t of x) {
      if (t.dtype !== dtype) fail('concat', `dtypes differ: ${dtype} and ${t.dtype}; cast one`);
      if (!sameShape(t.shape.with(axis, 0), shape.with(axis, 0)))
        fail('concat', `shapes differ off axis ${axis}: ${printShapes(...x.map((e) => e.shape))}`);
    }
    return [
      {
        shape: shape.with(
          axis,
          x.reduce((n, t) => n + t.shape[axis]!, 0),
        ),
        dtype,
      },
    ];
  },
  oracle(x, { axis }, outs) {
    const y = new Float64Array(numel(outs[0]!.shape));
    const inner = numel(outs[0]!.shape.slice(axis + 1));
    const row = outs[0]!.shape[axis]! * inner;
    let offset = 0;
    for (const t of x) {
      const part = t.shape[axis]! * inner;
      for (let i = 0; i < t.data.length; i++) y[Math.floor(i / part) * row + offset + (i % part)] = t.data[i]!;
      offset += part;
    }
    return [y];
  },
  vjp({ x, dy, attrs: { axis }, needs }) {
    let start = 0;
    return x.map((t, i) => {
      const from = start;
      start += t.shape[axis]!;
      return needs[i] ? dy[0]!.slice(axis, from, start) : null;
    });
  },
  flops: free,
  traits: { ...INLINED, scattered: true },
};

export const movementOps = { reshape, permute, expand, slice, pad, flip, concat };

/** Sliding windows as views: nothing is copied unless what reads them must have it in memory. */
import { numel } from '../../kernels/kernel.ts';
import { fail, printShapes } from '../host/errors.ts';
import type { Tensor } from './tensor.ts';

/** Windows along the last axes: one entry an axis. */
export interface WindowAttrs {
  kernel: readonly number[];
  stride: readonly number[];
  /** Between neighbouring elements of a window. */
  dilation: readonly number[];
  padLo: readonly number[];
  padHi: readonly number[];
}

/** Kernels index the elements of all windows by a whole number below this. */
const MOST = 2 ** 31;

const whole = (list: readonly number[], least: number): boolean => list.every((n) => Number.isInteger(n) && n >= least);

/** Windows along each of the last axes of `shape`. @throws EngineError of `op` where they do not fit */
export function windowCounts(op: string, shape: readonly number[], attrs: WindowAttrs): number[] {
  const { kernel, stride, dilation, padLo, padHi } = attrs;
  const axes = kernel.length;
  for (const [name, list] of Object.entries({ stride, dilation, padLo, padHi }))
    if (list.length !== axes)
      fail(op, `expected ${axes} entries in ${name}, as in the window [${kernel.join()}], got [${list.join()}]`);
  if (!axes || shape.length < axes)
    fail(op, `a window [${kernel.join()}] over ${printShapes(shape)}: expected one entry for each of its last axes`);
  if (!whole([...kernel, ...stride, ...dilation], 1) || !whole([...padLo, ...padHi], 0))
    fail(
      op,
      `windows, strides and dilations must be whole numbers from 1 and pads from 0, got [${kernel.join()}], [${stride.join()}], [${dilation.join()}], [${padLo.join()}] [${padHi.join()}]`,
    );
  const from = shape.slice(-axes);
  const counts = from.map((n, i) => {
    const room = n + padLo[i]! + padHi[i]! - (kernel[i]! - 1) * dilation[i]! - 1;
    return Math.floor(room / stride[i]!) + 1;
  });
  if (counts.some((n) => n < 1))
    fail(
      op,
      `the window [${kernel.join()}] is larger than the padded input ${printShapes(shape)}, pads [${padLo.join()}] [${padHi.join()}]`,
    );
  const elements = numel(shape.slice(0, -axes)) * numel(counts) * numel(kernel);
  if (elements >= MOST) fail(op, `${elements} elements in all windows of ${printShapes(shape)}: at most ${MOST - 1}`);
  return counts;
}

/** x [outer, n, inner] → [outer, count, size, inner]: element j of window i is x[i · stride + j · dilation]. */
function alongOne(x: Tensor, count: number, size: number, stride: number, dilation: number): Tensor {
  const [outer, n, inner] = x.shape as [number, number, number];
  if (dilation === 1 && stride >= size) {
    const short = Math.max(0, count * stride - n);
    const whole = short ? x.pad([0, 0, 0], [0, short, 0]) : x.slice(1, 0, count * stride);
    return whole.reshape([outer, count, stride, inner]).slice(2, 0, size);
  }
  // Copies one behind the other, read in rows that are longer by the dilation: row j begins at element j · dilation.
  const row = n + dilation;
  const copies = Math.ceil((size * row) / n);
  const rows = x
    .reshape([outer, 1, n, inner])
    .expand([outer, copies, n, inner])
    .reshape([outer, copies * n, inner])
    .slice(1, 0, size * row)
    .reshape([outer, size, row, inner]);
  return rows.slice(2, 0, (count - 1) * stride + 1, stride).transpose(1, 2);
}

/** x [...,n1,n2], padded already → [...,count1,size1,count2,size2]. */
export function windows(x: Tensor, counts: readonly number[], { kernel, stride, dilation }: WindowAttrs): Tensor {
  const first = x.shape.length - kernel.length;
  return kernel.reduce((y, size, i) => {
    const axis = first + 2 * i;
    const [before, after] = [y.shape.slice(0, axis), y.shape.slice(axis + 1)];
    const lines = y.reshape([numel(before), y.shape[axis]!, numel(after)]);
    return alongOne(lines, counts[i]!, size, stride[i]!, dilation[i]!).reshape([...before, counts[i]!, size, ...after]);
  }, x);
}

/** Zeros around the last axes. */
export function padLast(x: Tensor, lo: readonly number[], hi: readonly number[]): Tensor {
  const rest = Array<number>(x.shape.length - lo.length).fill(0);
  return x.pad([...rest, ...lo], [...rest, ...hi]);
}

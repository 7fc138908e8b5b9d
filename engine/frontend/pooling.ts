/** Average and max pooling over the last one, two or three axes. */
import { numel } from '../../kernels/kernel.ts';
import { fail } from '../host/errors.ts';
import type { PoolAttrs, Triple } from './graph.ts';
import { make, scalar, type Tensor } from './tensor.ts';
import { windowCounts, type WindowAttrs } from './windows.ts';

/** One entry for each of the last axes that are pooled. */
interface Pooling {
  /** As wide as the window unless given. */
  stride?: readonly number[];
  /** Between the elements of a window; 1 unless given. */
  dilation?: readonly number[];
  padLo?: readonly number[];
  /** As `padLo` unless given. */
  padHi?: readonly number[];
}

function attributes(op: string, x: Tensor, kernel: readonly number[], pooling: Pooling): WindowAttrs {
  const each = (n: number): number[] => kernel.map(() => n);
  const { stride = kernel, dilation = each(1), padLo = each(0), padHi = padLo } = pooling;
  if (kernel.length > 3) fail(op, `expected a window over the last one, two or three axes, got [${kernel.join()}]`);
  const attrs = { kernel, stride, dilation, padLo, padHi };
  windowCounts(op, x.shape, attrs);
  return attrs;
}

/** The op of three axes: those before the pooled ones have windows of one element. */
function pooled(op: 'sumPool' | 'maxPool', x: Tensor, attrs: WindowAttrs): Tensor {
  const lead = 3 - attrs.kernel.length;
  const three = (list: readonly number[], fill: number): Triple =>
    [...Array<number>(lead).fill(fill), ...list] as unknown as Triple;
  const lifted: PoolAttrs = {
    kernel: three(attrs.kernel, 1),
    stride: three(attrs.stride, 1),
    dilation: three(attrs.dilation, 1),
    padLo: three(attrs.padLo, 0),
    padHi: three(attrs.padHi, 0),
  };
  const outer = x.shape.slice(0, -attrs.kernel.length);
  const y = make(op, [x.reshape([-1, ...three(x.shape.slice(-attrs.kernel.length), 1)])], lifted)[0]!;
  return y.reshape([...outer, ...y.shape.slice(lead - 3)]);
}

/**
 * The largest of each window over the last `kernel.length` axes: x [...,n] → [...,n'] with n' = ⌊(n + lo + hi - d (k - 1) - 1) / s⌋ + 1
 * along each. f32; pads never win; of equal elements the first takes the gradient.
 */
export const maxPool = (x: Tensor, kernel: readonly number[], pooling: Pooling = {}): Tensor =>
  pooled('maxPool', x, attributes('maxPool', x, kernel, pooling));

interface Windows {
  count: number;
  size: number;
  stride: number;
  dilation: number;
  lo: number;
}

/** How many of n elements each window along an axis holds: [count]. */
function held(n: number, { count, size, stride, dilation, lo }: Windows): Tensor {
  const start = make('iota', [], { shape: [count], axis: 0 })[0]!
    .mul(stride)
    .sub(lo);
  const first = start.div(dilation).floor().neg().max(0); // ⌈-start / d⌉
  const last = start
    .neg()
    .add(n - 1)
    .div(dilation)
    .floor()
    .min(size - 1);
  return last.sub(first).add(1);
}

/**
 * The mean of each window: shapes as those of `maxPool`. Pads count as zeros, as in PyTorch, unless `countPads` is false: then a window's
 * sum is divided by how many elements of x it holds.
 */
export function avgPool(
  x: Tensor,
  kernel: readonly number[],
  { countPads = true, ...pooling }: Pooling & { countPads?: boolean } = {},
): Tensor {
  const attrs = attributes('avgPool', x, kernel, pooling);
  const sums = pooled('sumPool', x, attrs);
  const { stride, dilation, padLo, padHi } = attrs;
  if (countPads || [...padLo, ...padHi].every((n) => n === 0)) return sums.mul(1 / numel(kernel));
  const [from, to] = [x, sums].map((t) => t.shape.slice(-kernel.length)) as [number[], number[]];
  const elements = kernel.map((k, i) => {
    const along = held(from[i]!, { count: to[i]!, size: k, stride: stride[i]!, dilation: dilation[i]!, lo: padLo[i]! });
    return along.reshape([to[i]!, ...kernel.slice(i + 1).map(() => 1)]);
  });
  return sums.div(elements.reduce((a, b) => a.mul(b), scalar(1)));
}

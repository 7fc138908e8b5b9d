/** Sums and maxima of windows over the last three axes, and their gradients: each element takes from the windows that hold it. */
import { numel } from '../../../kernels/kernel.ts';
import { fail, printShapes } from '../../host/errors.ts';
import type { OpName, PoolAttrs, TensorType } from '../graph.ts';
import { sizeOf } from '../graph.ts';
import type { Tensor } from '../tensor.ts';
import type { HostTensor } from '../tree.ts';
import { windowCounts } from '../windows.ts';
import type { OpDef } from './op.ts';
import { arity, eachIndex, floats } from './op.ts';
import { KERNEL } from './traits.ts';

function infer(op: OpName, x: readonly TensorType[], attrs: PoolAttrs): TensorType {
  arity(op, x, 1);
  floats(op, x);
  const { shape, dtype } = x[0]!;
  return { shape: [...shape.slice(0, -3), ...windowCounts(op, shape, attrs)], dtype };
}

/** Visits what each window holds: its number, the tap's number in it, and the element's flat index. */
function eachTap(
  x: HostTensor,
  out: readonly number[],
  { kernel, stride, dilation, padLo }: PoolAttrs,
  visit: (window: number, tap: number, at: number) => void,
): void {
  const size = x.shape.slice(-3);
  eachIndex([numel(x.shape.slice(0, -3)), ...out.slice(-3)], ([line, ...grid], window) =>
    eachIndex(kernel, (taps, tap) => {
      const place = taps.map((j, i) => grid[i]! * stride[i]! - padLo[i]! + j * dilation[i]!);
      if (place.every((c, i) => c >= 0 && c < size[i]!))
        visit(
          window,
          tap,
          place.reduce((at, c, i) => at * size[i]! + c, line!),
        );
    }),
  );
}

/** What one tap of each window gave, along one pooled axis of `n` elements: tap `j` of axis `i` of the last three. */
interface Tap {
  i: number;
  j: number;
  n: number;
}

/** y, of windows, where their taps were read: zeros elsewhere. */
function spread(y: Tensor, taps: readonly Tap[], { stride, dilation, padLo }: PoolAttrs): Tensor {
  const lead = y.shape.length - 3;
  const zeros = (): number[] => y.shape.map(() => 0);
  const [lo, hi, inner] = [zeros(), zeros(), zeros()];
  let inside = y;
  for (const { i, j, n } of taps) {
    const axis = lead + i;
    const first = j * dilation[i]! - padLo[i]!; // where the first window reads
    const from = Math.max(0, Math.ceil(-first / stride[i]!));
    const to = Math.min(y.shape[axis]!, Math.floor((n - 1 - first) / stride[i]!) + 1);
    if (from >= to)
      return taps.reduce((t, tap) => t.slice(lead + tap.i, 0, 1).expand(t.shape.with(lead + tap.i, tap.n)), y.like(0));
    inside = inside.slice(axis, from, to);
    lo[axis] = first + from * stride[i]!;
    hi[axis] = n - (lo[axis] + (to - from - 1) * stride[i]! + 1);
    inner[axis] = stride[i]! - 1;
  }
  return inside.pad(lo, hi, inner);
}

const sumPool: OpDef<'sumPool'> = {
  infer: (x, attrs) => [infer('sumPool', x, attrs)],
  oracle([x], attrs, outs) {
    const y = new Float64Array(sizeOf(outs[0]!));
    eachTap(x!, outs[0]!.shape, attrs, (window, _, at) => (y[window]! += x!.data[at]!));
    return [y];
  },
  /** Axis by axis. */
  vjp({ x, dy, attrs }) {
    const size = x[0]!.shape.slice(-3);
    return [
      attrs.kernel.reduce((g, k, i) => {
        const taps = Array.from({ length: k }, (_, j) => spread(g, [{ i, j, n: size[i]! }], attrs));
        return taps.reduce((a, b) => a.add(b));
      }, dy[0]!),
    ];
  },
  flops: (_, outs, { kernel }) => sizeOf(outs[0]!) * numel(kernel),
  traits: KERNEL,
};

const maxPool: OpDef<'maxPool'> = {
  infer(x, attrs) {
    const out = infer('maxPool', x, attrs);
    const { kernel, padLo, padHi } = attrs;
    if (emptyWindow(x[0]!.shape.slice(-3), out.shape.slice(-3), attrs))
      fail(
        'maxPool',
        `with pads [${padLo.join()}] [${padHi.join()}] some window [${kernel.join()}] holds nothing of ${printShapes(x[0]!.shape)}`,
      );
    return [out, { shape: out.shape, dtype: 'i32' }];
  },
  oracle([x], attrs, outs) {
    const y = new Float64Array(sizeOf(outs[0]!));
    const places = new Float64Array(y.length).fill(-1);
    eachTap(x!, outs[0]!.shape, attrs, (window, tap, at) => {
      const [v, best] = [x!.data[at]!, y[window]!];
      if (places[window]! >= 0 && (Number.isNaN(best) || !(v > best || Number.isNaN(v)))) return;
      y[window] = v;
      places[window] = tap;
    });
    return [y, places];
  },
  /** To the element that won. */
  vjp({ x, y, dy, attrs }) {
    if (!dy[0]) return [null];
    const size = x[0]!.shape.slice(-3);
    const parts: Tensor[] = [];
    eachIndex(attrs.kernel, (taps, tap) => {
      const won = dy[0]!.select(y[1]!.eq(tap), 0);
      parts.push(
        spread(
          won,
          taps.map((j, i) => ({ i, j, n: size[i]! })),
          attrs,
        ),
      );
    });
    return [parts.reduce((a, b) => a.add(b))];
  },
  flops: (_, outs, { kernel }) => sizeOf(outs[0]!) * numel(kernel),
  traits: KERNEL,
};

/** Whether a window along some axis falls between, before or behind the elements. */
const emptyWindow = (
  size: readonly number[],
  out: readonly number[],
  { kernel, stride, dilation, padLo }: PoolAttrs,
): boolean =>
  size.some((n, i) =>
    Array.from({ length: out[i]! }, (_, g) => g * stride[i]! - padLo[i]!).some((start) =>
      Array.from({ length: kernel[i]! }, (_, j) => start + j * dilation[i]!).every((c) => c < 0 || c >= n),
    ),
  );

export const poolOps = { sumPool, maxPool };

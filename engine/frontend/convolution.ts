/**
 * Convolutions in all their forms, made of the one dense op and its adjoint. Dilated ones split positions into phases that stand
 * side by side in the batch; grouped ones are products of matrices by group, depthwise ones sums over taps.
 */
import { numel } from '../../kernels/kernel.ts';
import { fail, printShapes } from '../host/errors.ts';
import type { Triple } from './graph.ts';
import { make, type Tensor } from './tensor.ts';
import { padLast, windowCounts, windows, type WindowAttrs } from './windows.ts';

/** Entries are for (time, height, width). */
export interface Convolution<T = Triple> {
  stride?: T;
  /** Between the taps of the kernel; 1 unless given. */
  dilation?: T;
  padLo?: T;
  /** As `padLo` unless given. */
  padHi?: T;
  /** Channels are split into so many parts that do not mix. */
  groups?: number;
}

/** How far apart windows must begin for a dilated one to be one of neighbours: every `phases`th. */
const gcd = (a: number, b: number): number => (b ? gcd(b, a % b) : a);

function checkGroups(
  op: string,
  x: readonly number[],
  w: readonly number[],
  groups: number,
  transposed: boolean,
): void {
  if (x.length !== 5 || w.length !== 5)
    fail(op, `expected x [N,C,T,H,W] and w [${transposed ? 'C,O' : 'O,C'},kt,kh,kw], got ${printShapes(x, w)}`);
  const [channels, outer, inner] = [x[1]!, w[0]!, w[1]!];
  const fits = transposed ? channels === outer : channels === inner * groups && outer % groups === 0;
  if (!Number.isInteger(groups) || groups < 1 || channels % groups !== 0 || !fits)
    fail(
      op,
      `x ${printShapes(x)} and w ${printShapes(w)} do not fit ${groups} ${groups === 1 ? 'group' : 'groups'} of channels`,
    );
}

/** Each channel by itself: w [O,1,…], O a multiple of C. */
function depthwise(x: Tensor, w: Tensor, counts: readonly number[], { kernel, stride, dilation }: WindowAttrs): Tensor {
  const [n, c] = x.shape as [number, number];
  const each = w.shape[0]! / c;
  const [lines, taps] = [x.unsqueeze(2), w.reshape([c, each, ...kernel])];
  let y: Tensor | undefined;
  for (let tap = 0; tap < numel(kernel); tap++) {
    const at = [
      Math.floor(tap / (kernel[1]! * kernel[2]!)),
      Math.floor(tap / kernel[2]!) % kernel[1]!,
      tap % kernel[2]!,
    ];
    const read = at.reduce((t, j, i) => {
      const first = j * dilation[i]!;
      return t.slice(3 + i, first, first + (counts[i]! - 1) * stride[i]! + 1, stride[i]!);
    }, lines);
    const weight = at.reduce((t, j, i) => t.slice(2 + i, j, j + 1), taps);
    const product = read.mul(weight);
    y = y ? y.add(product) : product;
  }
  return y!.reshape([n, w.shape[0]!, ...counts]);
}

/** Group by group: windows as columns of a matrix, w as rows of another. */
function grouped(x: Tensor, w: Tensor, counts: readonly number[], attrs: WindowAttrs, groups: number): Tensor {
  const [n, c] = x.shape as [number, number];
  const o = w.shape[0]!;
  const size = (c / groups) * numel(attrs.kernel);
  const columns = windows(x, counts, attrs)
    .permute([0, 1, 3, 5, 7, 2, 4, 6])
    .reshape([n, groups, size, numel(counts)]);
  return w
    .reshape([groups, o / groups, size])
    .matmul(columns)
    .reshape([n, o, ...counts]);
}

/** x is padded. Along each axis every `phases`th window is one of neighbours among every `dilation`th element. */
function dilated(x: Tensor, w: Tensor, counts: readonly number[], { kernel, stride, dilation }: WindowAttrs): Tensor {
  const phases = dilation.map((d, i) => d / gcd(d, stride[i]!));
  const step = stride.map((s, i) => s / gcd(dilation[i]!, s));
  const each = counts.map((m, i) => Math.ceil(m / phases[i]!)); // windows of a phase
  const length = each.map((m, i) => (m - 1) * step[i]! + kernel[i]!); // elements it reads
  const ends = length.map((l, i) => (l - 1) * dilation[i]! + (phases[i]! - 1) * stride[i]! + 1);
  const size = x.shape.slice(2);
  const long = padLast(
    x,
    [0, 0, 0],
    ends.map((e, i) => Math.max(0, e - size[i]!)),
  );
  const split = windows(long, length, { kernel: phases, stride: dilation, dilation: stride, padLo: [], padHi: [] });
  const [n, c] = x.shape as [number, number];
  const batch = split.permute([0, 3, 5, 7, 1, 2, 4, 6]).reshape([n * numel(phases), c, ...length]);
  const y = make('conv3d', [batch, w], { stride: step as unknown as Triple, padLo: [0, 0, 0], padHi: [0, 0, 0] })[0]!;
  return y
    .reshape([n, ...phases, w.shape[0]!, ...each])
    .permute([0, 4, 5, 1, 6, 2, 7, 3])
    .reshape([n, w.shape[0]!, ...each.map((m, i) => m * phases[i]!)])
    .slice(2, 0, counts[0])
    .slice(3, 0, counts[1])
    .slice(4, 0, counts[2]);
}

const withBias = (y: Tensor, b: Tensor | undefined): Tensor => (b ? y.add(b.reshape([-1, 1, 1, 1])) : y);

/**
 * x [N,C,T,H,W], w [O,C/groups,kt,kh,kw], b [O] → [N,O,T',H',W'] in f32, each size ⌊(n + lo + hi - d (k - 1) - 1) / s⌋ + 1.
 * Groups other than 1 want memory for all windows unless every channel is by itself.
 */
export function conv3d(x: Tensor, w: Tensor, b?: Tensor, options: Convolution = {}): Tensor {
  const { stride = [1, 1, 1], dilation = [1, 1, 1], padLo = [0, 0, 0], padHi = padLo, groups = 1 } = options;
  if (groups === 1 && dilation.every((d) => d === 1))
    return withBias(make('conv3d', [x, w], { stride, padLo, padHi })[0]!, b);
  checkGroups('conv3d', x.shape, w.shape, groups, false);
  const attrs = { kernel: w.shape.slice(2), stride, dilation, padLo, padHi };
  const counts = windowCounts('conv3d', x.shape, attrs);
  const padded = padLast(x.cast('f32'), padLo, padHi);
  const narrow = w.cast('f32');
  const y =
    groups === 1
      ? dilated(padded, narrow, counts, attrs)
      : groups === x.shape[1]
        ? depthwise(padded, narrow, counts, attrs)
        : grouped(padded, narrow, counts, attrs, groups);
  return withBias(y, b);
}

/** Of a transposed convolution. */
interface Transposed<T = Triple> extends Convolution<T> {
  /** Added to each size: which of the sizes that a strided convolution takes to one is meant. */
  outputPad?: T;
}

/** w [C,O/groups,…] of a transposed convolution as w [O,C/groups,…] of the convolution of what stands between strides. */
function turned(w: Tensor, groups: number): Tensor {
  const [c, o, ...kernel] = w.shape as [number, number, ...number[]];
  return w
    .flip(2, 3, 4)
    .reshape([groups, c / groups, o, ...kernel])
    .transpose(1, 2)
    .reshape([groups * o, c / groups, ...kernel]);
}

/**
 * The adjoint of a convolution, which upsamples: x [N,C,T,H,W], w [C,O/groups,kt,kh,kw], b [O] → [N,O,T',H',W'] in f32, each size
 * (n - 1) s - lo - hi + d (k - 1) + 1 + outputPad. Weights lie as PyTorch's and ONNX's do.
 */
export function convTranspose3d(x: Tensor, w: Tensor, b?: Tensor, options: Transposed = {}): Tensor {
  const { stride = [1, 1, 1], dilation = [1, 1, 1], padLo = [0, 0, 0], padHi = padLo, groups = 1 } = options;
  const { outputPad = [0, 0, 0] } = options;
  checkGroups('convTranspose3d', x.shape, w.shape, groups, true);
  const whole = [...stride, ...dilation, ...padLo, ...padHi, ...outputPad].every(Number.isInteger);
  if (!whole || [...stride, ...dilation].some((n) => n < 1) || outputPad.some((n) => n < 0))
    fail(
      'convTranspose3d',
      `strides and dilations must be whole numbers from 1, outputPad from 0, got [${stride.join()}], [${dilation.join()}], [${outputPad.join()}]`,
    );
  const reach = w.shape.slice(2).map((k, i) => dilation[i]! * (k - 1));
  const size = x.shape
    .slice(2)
    .map((n, i) => (n - 1) * stride[i]! - padLo[i]! - padHi[i]! + reach[i]! + 1 + outputPad[i]!);
  if (size.some((n) => n < 1))
    fail('convTranspose3d', `pads [${padLo.join()}] [${padHi.join()}] leave nothing of x ${printShapes(x.shape)}`);
  if (groups === 1 && dilation.every((d) => d === 1) && outputPad.every((n, i) => n < stride[i]!)) {
    const shape = [x.shape[0]!, w.shape[1]!, ...size];
    return withBias(make('conv3dInput', [x, w], { stride, padLo, padHi, shape })[0]!, b);
  }
  // Zeros between the elements, and as many around them that each tap meets each element.
  const lo = reach.map((r, i) => r - padLo[i]!);
  const hi = reach.map((r, i) => r - padHi[i]! + outputPad[i]!);
  const positive = (list: readonly number[]): number[] => list.map((n) => Math.max(0, n));
  const apart = x.pad([0, 0, ...positive(lo)], [0, 0, ...positive(hi)], [0, 0, ...stride.map((s) => s - 1)]);
  const cut = lo.reduce((t, n, i) => t.slice(2 + i, Math.max(0, -n), t.shape[2 + i]! - Math.max(0, -hi[i]!)), apart);
  return conv3d(cut, turned(w, groups), b, { dilation, groups });
}

type Pair = readonly [number, number];
/** The options of two axes as those of three. */
function lift(options: Transposed<Pair>): Transposed {
  const { stride, dilation, padLo, padHi, groups, outputPad } = options;
  const three = (pair: Pair | undefined, first: number): Triple | undefined => pair && [first, ...pair];
  const lifted = {
    stride: three(stride, 1),
    dilation: three(dilation, 1),
    padLo: three(padLo, 0),
    padHi: three(padHi, 0),
    outputPad: three(outputPad, 0),
    groups,
  };
  return Object.fromEntries(Object.entries(lifted).filter(([, v]) => v !== undefined));
}

/** x [N,C,H,W], w [O,C/groups,kh,kw], b [O] → [N,O,H',W']: see `conv3d`. */
export const conv2d = (x: Tensor, w: Tensor, b?: Tensor, options: Convolution<Pair> = {}): Tensor =>
  conv3d(x.unsqueeze(2), w.unsqueeze(2), b, lift(options)).squeeze(2);

/** x [N,C,H,W], w [C,O/groups,kh,kw], b [O] → [N,O,H',W']: see `convTranspose3d`. */
export const convTranspose2d = (x: Tensor, w: Tensor, b?: Tensor, options: Transposed<Pair> = {}): Tensor =>
  convTranspose3d(x.unsqueeze(2), w.unsqueeze(2), b, lift(options)).squeeze(2);

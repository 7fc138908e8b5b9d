/** Resizing along the last axes, nearest or linear, by any factor: axis by axis, rows picked by whole-number arithmetic. */
import { numel } from '../../kernels/kernel.ts';
import { fail, printShapes } from '../host/errors.ts';
import { isFloat } from './ops/op.ts';
import { make, type Tensor } from './tensor.ts';

export interface Resize {
  /** `nearest` takes one element; halves go up, and with `asymmetric` all is rounded down, as in PyTorch's two ways. */
  mode?: 'linear' | 'nearest';
  /**
   * Where result i of m lies among n elements, of factor f = m / n, or the one given: `half-pixel` (i + ½) / f - ½; `align-corners`
   * i (n - 1) / (m - 1); `asymmetric` i / f.
   */
  coordinates?: 'half-pixel' | 'align-corners' | 'asymmetric';
}

/** A number as a fraction of whole ones, to f32: continued fractions. */
function fraction(x: number): [number, number] {
  let [p0, q0, p1, q1] = [1, 0, Math.floor(x), 1];
  for (let rest = x - Math.floor(x); Math.abs(x - p1 / q1) > x * 2 ** -26;) {
    const whole = Math.floor(1 / rest);
    rest = 1 / rest - whole;
    [p0, q0, p1, q1] = [p1, q1, whole * p1 + p0, whole * q1 + q0];
  }
  return [p1, q1];
}

/** Positions (step · i + first) / unit of m results among n elements. */
function places(n: number, m: number, scale: number, coordinates: Required<Resize>['coordinates']) {
  const [p, q] = fraction(scale);
  if (coordinates === 'align-corners') return { step: m > 1 ? n - 1 : 0, first: 0, unit: Math.max(1, m - 1) };
  return coordinates === 'half-pixel' ? { step: 2 * q, first: q - p, unit: 2 * p } : { step: q, first: 0, unit: p };
}

/** One axis of x [n, width] → [m, width]. */
function rows(x: Tensor, m: number, scale: number, { mode, coordinates }: Required<Resize>): Tensor {
  const n = x.shape[0]!;
  const { step, first, unit } = places(n, m, scale, coordinates);
  const at = make('iota', [], { shape: [m], axis: 0 })[0]!
    .cast('i32')
    .mul(step)
    .add(first)
    .max(0);
  const pick = (ids: Tensor): Tensor => make('gather', [x, ids.min(n - 1)], {})[0]!;
  if (mode === 'nearest')
    return pick(
      coordinates === 'asymmetric'
        ? at.div(unit)
        : at
            .mul(2)
            .add(unit)
            .div(2 * unit),
    );
  const below = at.div(unit);
  const weight = at.sub(below.mul(unit)).cast('f32').div(unit).unsqueeze(1);
  const low = pick(below);
  // A neighbour without weight has no say, whatever it is.
  return low.select(weight.eq(0), low.mul(weight.neg().add(1)).add(pick(below.add(1)).mul(weight)));
}

/**
 * x [...,n1,n2] → [...,m1,m2], in f32: to a size, or by a factor along each of the last axes, m = ⌊n f⌋. Linear and half-pixel unless said
 * otherwise, which is PyTorch's `interpolate` without aligned corners; positions outside take the edge.
 */
export function resize(
  x: Tensor,
  to: { size: readonly number[] } | { scale: readonly number[] },
  { mode = 'linear', coordinates = 'half-pixel' }: Resize = {},
): Tensor {
  const wanted = 'size' in to ? to.size : to.scale;
  const axes = wanted.length;
  if (!axes || axes > x.shape.length)
    fail('resize', `expected one number for each of the last axes of ${printShapes(x.shape)}, got [${wanted.join()}]`);
  if (!isFloat(x.dtype)) fail('resize', `expected f32 or f16, got ${x.dtype}${printShapes(x.shape)}`);
  const from = x.shape.slice(-axes);
  const size = 'size' in to ? to.size : to.scale.map((f, i) => Math.floor(f * from[i]!));
  const scale = 'size' in to ? size.map((m, i) => m / from[i]!) : to.scale;
  if (!size.every((m) => Number.isInteger(m) && m >= 1) || from.includes(0) || !scale.every((f) => f > 0))
    fail('resize', `from ${printShapes(x.shape)} to sizes [${size.join()}]: sizes must be whole numbers from 1`);
  return size.reduce((y, m, i) => {
    const axis = y.shape.length - axes + i;
    const n = y.shape[axis]!;
    const factor = scale[i]!;
    if (n === m && (factor === 1 || coordinates === 'align-corners')) return y;
    const [before, after] = [y.shape.slice(0, axis), y.shape.slice(axis + 1)];
    const lines = y.reshape([numel(before), n, numel(after)]);
    if (mode === 'nearest' && coordinates !== 'align-corners' && factor * n === m && Number.isInteger(factor))
      return lines
        .unsqueeze(2)
        .expand([numel(before), n, factor, numel(after)])
        .reshape([...before, m, ...after]);
    return rows(lines.transpose(0, 1).reshape([n, -1]), m, factor, { mode, coordinates })
      .reshape([m, numel(before), numel(after)])
      .transpose(0, 1)
      .reshape([...before, m, ...after]);
  }, x);
}

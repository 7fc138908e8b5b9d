/** ONNX's operators of other trades: resizing, quantisation, windows of signals, steps of optimizers. */
import * as F from '../../../engine/frontend/functional.ts';
import type { Tensor } from '../../../engine/frontend/tensor.ts';
import { Unsupported, type Call, type OnnxOps } from '../call.ts';
import { gather, literal } from './shapes.ts';

type Position = (i: number, n: number, m: number, scale: number) => number;
const POSITIONS: Record<string, Position> = {
  half_pixel: (i, _n, _m, f) => (i + 0.5) / f - 0.5,
  pytorch_half_pixel: (i, _n, m, f) => (m > 1 ? (i + 0.5) / f - 0.5 : 0),
  align_corners: (i, n, m) => (m > 1 ? (i * (n - 1)) / (m - 1) : 0),
  asymmetric: (i, _n, _m, f) => i / f,
  tf_half_pixel_for_nn: (i, _n, _m, f) => (i + 0.5) / f,
};
const ROUNDINGS: Record<string, (x: number) => number> = {
  round_prefer_floor: (x) => Math.ceil(x - 0.5),
  round_prefer_ceil: (x) => Math.floor(x + 0.5),
  floor: Math.floor,
  ceil: Math.ceil,
};
/** What the engine says itself. */
const OURS = { half_pixel: 'half-pixel', align_corners: 'align-corners', asymmetric: 'asymmetric' } as const;

/** Nearest: rows picked along each axis by ONNX's own rules. */
function nearest(c: Call, x: Tensor, size: readonly number[], scale: readonly number[]): Tensor {
  const position =
    POSITIONS[c.text('coordinate_transformation_mode', c.op === 'Upsample' ? 'asymmetric' : 'half_pixel')];
  const round = ROUNDINGS[c.text('nearest_mode', c.op === 'Upsample' ? 'floor' : 'round_prefer_floor')];
  if (!position || !round) throw new Unsupported('these coordinates');
  return size.reduce((y, m, axis) => {
    const n = x.shape[axis]!;
    if (m === n && scale[axis] === 1) return y;
    const ids = Array.from({ length: m }, (_, i) => {
      const at = round(position(i, n, m, scale[axis]!));
      return Math.min(Math.max(at, 0), n - 1);
    });
    return gather(y, literal(ids, [m], 'i32'), axis);
  }, x);
}

function resize(c: Call): Tensor {
  const x = c.x(0);
  const old = c.op === 'Upsample';
  const sizes = old ? undefined : c.maybe(3) && c.known(c.x(3));
  const factors = old ? c.given('scales', 1) : c.opset < 11 ? c.given('scales', 1) : c.maybe(2) && c.known(c.x(2));
  const scale = sizes?.length ? sizes.map((m, i) => m / x.shape[i]!) : (factors ?? []);
  const size = sizes?.length ? sizes : scale.map((f, i) => Math.floor(f * x.shape[i]!));
  const mode = c.text('mode', 'nearest');
  if (mode === 'nearest') return nearest(c, x, size, scale);
  const coordinates = c.text('coordinate_transformation_mode', old ? 'asymmetric' : 'half_pixel');
  const plain = coordinates === 'pytorch_half_pixel' && size.every((m) => m > 1) ? 'half_pixel' : coordinates;
  const ours = Object.entries(OURS).find(([theirs]) => theirs === plain)?.[1];
  if (ours === 'align-corners' && scale.some((f, i) => f * x.shape[i]! !== size[i]))
    throw new Unsupported('corners aligned to where a size that is no whole number would end');
  if (mode === 'cubic' || !ours) throw new Unsupported(`resizing ${mode} with ${coordinates}`);
  return F.resize(x, sizes?.length ? { size } : { scale }, { coordinates: ours });
}

/** A scale or zero point beside x: a scalar, or one for each index of an axis. */
function beside(c: Call, t: Tensor, x: Tensor): Tensor {
  if (t.shape.length !== 1 || t.shape[0] === 1) return t.reshape([]);
  const axis = c.axis(c.number('axis', 1), x.shape.length);
  return t.reshape(x.shape.map((_, a) => (a === axis ? t.shape[0]! : 1)));
}

const quantized = (x: Tensor, scale: Tensor, zero: Tensor): Tensor => {
  const [lo, hi] = zero.dtype === 'i32' ? [-128, 127] : [0, 255];
  return F.clamp(x.div(scale).round().add(zero.cast('f32')), lo, hi).cast(zero.dtype);
};

/** Cosine windows as sums of harmonics. */
function cosines(c: Call, coefficients: readonly number[]): Tensor {
  const size = c.known(c.x(0))[0]!;
  const span = c.number('periodic', 1) ? size : size - 1;
  const i = F.iota([size], 0);
  return coefficients
    .map((a, k) =>
      i
        .mul((2 * Math.PI * k) / span)
        .cos()
        .mul(k % 2 ? -a : a),
    )
    .reduce((a, b) => a.add(b));
}

/** Steps of optimizers go over several tensors at once: (rate, count, tensors…, gradients…, states…). */
function optimizer(
  c: Call,
  states: number,
  step: (x: Tensor, g: Tensor, s: Tensor[], rate: Tensor, t: number) => Tensor[],
): Tensor[] {
  const rest = c.all().slice(2);
  const n = rest.length / (2 + states);
  const count = c.known(c.x(1))[0]!;
  const each = Array.from({ length: n }, (_, i) =>
    step(
      rest[i]!,
      rest[n + i]!,
      Array.from({ length: states }, (_s, k) => rest[(2 + k) * n + i]!),
      c.x(0),
      count,
    ),
  );
  return Array.from({ length: 1 + states }, (_, k) => each.map((e) => e[k]!)).flat();
}

export const OTHERS: OnnxOps = {
  Resize: resize,
  Upsample: resize,
  QuantizeLinear: (c) => {
    const x = c.x(0);
    const zero = c.has(2) ? beside(c, c.x(2), x) : F.constant(0, 'u32');
    return quantized(x, beside(c, c.x(1), x), zero);
  },
  DequantizeLinear: (c) => {
    const x = c.x(0).cast('f32');
    const zero = c.has(2) ? beside(c, c.x(2).cast('f32'), x) : 0;
    return x.sub(zero).mul(beside(c, c.x(1), x));
  },
  DynamicQuantizeLinear: (c) => {
    const x = c.x(0);
    const lo = x.amin().min(0);
    const scale = x.amax().max(0).sub(lo).div(255);
    const zero = F.clamp(lo.neg().div(scale), 0, 255).round().cast('u32');
    return [quantized(x, scale, zero), scale, zero];
  },
  QLinearMatMul: (c) => {
    const real = (i: number): Tensor =>
      c
        .x(i)
        .cast('f32')
        .sub(c.x(i + 2).cast('f32'))
        .mul(c.x(i + 1));
    return quantized(real(0).matmul(real(3)), c.x(6), c.x(7));
  },
  HannWindow: (c) => cosines(c, [0.5, 0.5]),
  HammingWindow: (c) => cosines(c, [25 / 46, 21 / 46]),
  BlackmanWindow: (c) => cosines(c, [0.42, 0.5, 0.08]),
  Adam: (c) =>
    optimizer(c, 2, (x, g0, [v, h], rate, t) => {
      const [alpha, beta] = [c.number('alpha', 0.9), c.number('beta', 0.999)];
      const g = g0.add(x.mul(c.number('norm_coefficient', 0)));
      const [mean, square] = [F.lerp(g, v!, alpha), F.lerp(g.square(), h!, beta)];
      const corrected = t > 0 ? rate.mul(Math.sqrt(1 - beta ** t) / (1 - alpha ** t)) : rate;
      const next = x.sub(corrected.mul(mean).div(square.sqrt().add(c.number('epsilon', 1e-6))));
      return [next.mul(1 - c.number('norm_coefficient_post', 0)), mean, square];
    }),
  Adagrad: (c) =>
    optimizer(c, 1, (x, g0, [h], rate, t) => {
      const g = g0.add(x.mul(c.number('norm_coefficient', 0)));
      const sum = h!.add(g.square());
      const slower = rate.div(1 + t * c.number('decay_factor', 0));
      return [x.sub(slower.mul(g).div(sum.sqrt().add(c.number('epsilon', 1e-6)))), sum];
    }),
  Momentum: (c) =>
    optimizer(c, 1, (x, g0, [v], rate, t) => {
      const [alpha, nesterov] = [c.number('alpha', 0), c.text('mode', 'standard') === 'nesterov'];
      const g = g0.add(x.mul(c.number('norm_coefficient', 0)));
      const next = v!.mul(alpha).add(g.mul(t > 0 ? c.number('beta', 1) : 1));
      return [x.sub(rate.mul(nesterov ? g.add(next.mul(alpha)) : next)), next];
    }),
};

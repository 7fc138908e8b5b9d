/** Free functions of tensors: sources, joins, layers, losses, optimizer steps. All but the first few are algebra over ops. */
import type { DType } from '../../kernels/kernel.ts';
import { ALIGN, BYTES, numel } from '../../kernels/kernel.ts';
import { tracing } from './tracing.ts';
import { fail, printShapes } from '../host/errors.ts';
import type { Like, Tensor } from './tensor.ts';
import { isFloat } from './ops/op.ts';
import { broadcast, make, scalar } from './tensor.ts';
import { flatten, mapTree } from './tree.ts';

export { conv2d, conv3d, convTranspose2d, convTranspose3d } from './convolution.ts';
export { avgPool, maxPool } from './pooling.ts';
export { resize } from './resize.ts';

/** A scalar, shape []. */
export const constant = (value: number, dtype: DType = 'f32'): Tensor => scalar(value, dtype);
export const full = (shape: readonly number[], value: number, dtype: DType = 'f32'): Tensor =>
  scalar(value, dtype).expand(shape);
export const zeros = (shape: readonly number[], dtype: DType = 'f32'): Tensor => full(shape, 0, dtype);
/** Index along `axis`, as f32. */
export const iota = (shape: readonly number[], axis: number): Tensor =>
  make('iota', [], { shape: [...shape], axis: axis < 0 ? axis + shape.length : axis })[0]!;

/** Numbers between places that a kernel may bind. */
export const JOINED = ALIGN / BYTES.f32;

/** Parts that one node joins: a kernel can bind only so many buffers, so that longer lists become trees. */
const MAX_PARTS = 4;

export function concat(tensors: readonly Tensor[], axis: number): Tensor {
  const rank = tensors[0]?.shape.length ?? 0;
  if (tensors.length > MAX_PARTS) {
    const span = Math.ceil(tensors.length / MAX_PARTS);
    return concat(
      Array.from({ length: Math.ceil(tensors.length / span) }, (_, i) =>
        concat(tensors.slice(i * span, (i + 1) * span), axis),
      ),
      axis,
    );
  }
  return make('concat', tensors, { axis: axis < 0 ? axis + rank : axis })[0]!;
}
/**
 * Joins vectors of numbers, each a multiple of 64 long, into one tensor that stands in memory: what only this join reads is made in its
 * place there, so that most parts cost no copy. A join of consecutive pieces of a tensor is that tensor.
 */
export function join(parts: readonly Tensor[]): Tensor {
  const odd = parts.find(({ shape, dtype }) => dtype !== 'f32' || shape.length !== 1 || shape[0]! % JOINED);
  if (odd)
    fail('join', `expected f32 vectors of a multiple of ${JOINED} numbers, got ${odd.dtype}${printShapes(odd.shape)}`);
  return make('concat', parts, { axis: 0, join: true })[0]!;
}
/** Joins along a new axis, which stands at `axis` of the result. */
export function stack(tensors: readonly Tensor[], axis: number): Tensor {
  const rank = (tensors[0]?.shape.length ?? 0) + 1;
  const at = axis < 0 ? axis + rank : axis;
  return concat(
    tensors.map((t) => t.unsqueeze(at)),
    at,
  );
}
/** a where mask is not 0, else b; all broadcast. */
export function where(mask: Tensor, a: Like, b: Like): Tensor {
  const [x, y] = broadcast('where', [a, b]) as [Tensor, Tensor];
  return x.select(mask, y);
}
export const stopGradient = (x: Tensor): Tensor => make('detach', [x], {})[0]!;

/** `tanh` is the approximation that Wan's feed-forward uses; `exact` is by erf. */
export function gelu(x: Tensor, form: 'tanh' | 'exact' = 'tanh'): Tensor {
  const gate =
    form === 'exact'
      ? x.mul(Math.SQRT1_2).erf()
      : x
          .add(x.mul(x).mul(x).mul(0.044715))
          .mul(Math.sqrt(2 / Math.PI))
          .tanh();
  return x.mul(0.5).mul(gate.add(1));
}
export const silu = (x: Tensor): Tensor => x.mul(x.sigmoid());
/** max(x, 0), with slope 0 at 0. */
export const relu = (x: Tensor): Tensor => x.like(0).select(x.le(0), x);
/** log(1 + eˣ), without overflow. */
export const softplus = (x: Tensor): Tensor => x.max(0).add(x.abs().neg().exp().log1p());
export const lerp = (a: Tensor, b: Tensor, weight: Like): Tensor => a.add(b.sub(a).mul(weight));
export const clamp = (x: Tensor, lo: Like, hi: Like): Tensor => x.max(lo).min(hi);

/** x [...,in] · w [out,in]ᵀ + b [out]. */
export function linear(x: Tensor, w: Tensor, b?: Tensor): Tensor {
  const y = x.matmul(w, { transB: true });
  return b ? y.add(b) : y;
}

/** q [B,N,H,D], k and v [B,L,H,D] → [B,N,H,D]. Keys at or past `lengths` (u32 [B], ≥ 1) are masked. `scale` is 1/√D unless given. */
export function attention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  { lengths, scale }: { lengths?: Tensor | undefined; scale?: number } = {},
): Tensor {
  return make('attention', lengths ? [q, k, v, lengths] : [q, k, v], {
    scale: scale ?? 1 / Math.sqrt(q.shape.at(-1)!),
  })[0]!;
}

/**
 * Rows of table [V,...D] by ids (u32 or i32, [...]) → [...ids,...D]. On a device an id outside the table gives zeros; the oracle throws.
 */
export const gather = (table: Tensor, ids: Tensor): Tensor => make('gather', [table, ids], {})[0]!;

/** ids (i32 or u32, [...]) → 1 at the id and 0 elsewhere, [...,classes], f32 unless given. An id outside gives zeros. */
export function oneHot(ids: Tensor, classes: number, dtype: DType = 'f32'): Tensor {
  if (isFloat(ids.dtype)) fail('oneHot', `expected i32 or u32 ids, got ${ids.dtype}${printShapes(ids.shape)}`);
  return iota([...ids.shape, classes], -1)
    .cast(ids.dtype)
    .eq(ids.unsqueeze(-1))
    .cast(dtype);
}

function random(dist: 'normal' | 'uniform', key: Tensor, shape: readonly number[]): Tensor {
  return make('random', [key], { shape: [...shape], dist, stream: tracing('random').streams++ })[0]!;
}
/** Standard normals under a key u32[2]. Calls draw from streams numbered in call order, so they differ. */
export const normal = (key: Tensor, shape: readonly number[]): Tensor => random('normal', key, shape);
/** Uniform in [0, 1). */
export const uniform = (key: Tensor, shape: readonly number[]): Tensor => random('uniform', key, shape);

/** x [N,C,...] normalised over groups of channels; w and b [C]. */
export function groupNorm(x: Tensor, groups: number, w: Tensor, b: Tensor, eps = 1e-5): Tensor {
  const [n, c] = x.shape as [number, number];
  if (c % groups !== 0)
    fail('groupNorm', `${c} channels of ${printShapes(x.shape)} do not split into ${groups} groups`);
  const channel = [c, ...x.shape.slice(2).map(() => 1)];
  return x
    .reshape([n, groups, numel(x.shape) / n / groups])
    .layerNorm(eps)
    .reshape(x.shape)
    .mul(w.reshape(channel))
    .add(b.reshape(channel));
}

/** Mean of squared differences, a scalar. */
export const mse = (a: Tensor, b: Tensor): Tensor => a.sub(b).square().mean();

/**
 * Scales a tree of gradients down to `maxNorm` over all of them. `finite` is 0 when the norm is not: then the gradients are
 * of no use and the caller keeps its state.
 */
export function clipByGlobalNorm<T>(grads: T, maxNorm: Like): { grads: T; norm: Tensor; finite: Tensor } {
  const leaves = flatten<Tensor>(grads).leaves;
  if (!leaves.length) fail('clipByGlobalNorm', 'no gradients');
  const norm = leaves
    .map((g) => g.cast('f32').square().sum())
    .reduce((a, b) => a.add(b))
    .sqrt();
  const max = typeof maxNorm === 'number' ? scalar(maxNorm) : maxNorm;
  const coefficient = max.div(norm.add(1e-6)).min(1);
  return { grads: mapTree((g: Tensor) => g.mul(coefficient), grads), norm, finite: norm.isFinite() };
}

/** 1 - beta^step. A power in f32 would lose the small difference at early steps, so expm1 is spelled out. */
function biasCorrection(beta: number, step: Like): Like {
  if (typeof step === 'number') return 1 - beta ** step;
  const u = step.mul(Math.log(beta));
  let series: Like = 1;
  for (let n = 7; n > 1; n--) series = u.mul(series).div(n).add(1);
  return u.mul(series).neg().select(u.like(-0.5).lt(u), u.exp().neg().add(1));
}

export interface AdamW {
  lr: Like;
  beta1: number;
  beta2: number;
  eps: number;
  weightDecay: number;
  /** Counts from 1. */ step: Like;
}

/**
 * One step of decoupled-decay Adam as PyTorch counts it: p (1 - lr·wd) - lr m̂ / (√v̂ + eps). With beta1 = 0 there is no first
 * moment: m̂ is the gradient.
 */
export function adamW(
  p: Tensor,
  g: Tensor,
  state: { m?: Tensor | undefined; v: Tensor },
  { lr, beta1, beta2, eps, weightDecay, step }: AdamW,
): { p: Tensor; m?: Tensor; v: Tensor } {
  const v = state.v.mul(beta2).add(g.square().mul(1 - beta2));
  if (beta1 > 0 && !state.m) fail('adamW', `beta1 is ${beta1} but the state has no m`);
  const m = beta1 > 0 ? state.m!.mul(beta1).add(g.mul(1 - beta1)) : undefined;
  const rate = typeof lr === 'number' ? scalar(lr) : lr;
  const root = typeof step === 'number' ? Math.sqrt(1 - beta2 ** step) : (biasCorrection(beta2, step) as Tensor).sqrt();
  const denominator = v.sqrt().div(root).add(eps);
  const direction = (m ?? g).div(denominator);
  const size = m ? rate.div(biasCorrection(beta1, step)) : rate;
  const kept = weightDecay ? p.mul(rate.mul(-weightDecay).add(1)) : p;
  const next = kept.sub(direction.mul(size));
  return m ? { p: next, m, v } : { p: next, v };
}

/** target · decay + source · (1 - decay), over trees of one structure. */
export function ema<T>(target: T, source: T, decay: Like): T {
  return mapTree((t: Tensor, s: Tensor) => lerp(s, t, decay), target, source);
}

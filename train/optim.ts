/** One guarded optimiser step over named parameters: clip, AdamW, EMA; a non-finite gradient changes nothing. */
import type { Tensor } from '../engine/tensor.ts';
import { adamW, clipByGlobalNorm, ema, where } from '../engine/functional.ts';

type Tensors = Record<string, Tensor>;

/** Numbers of AdamW from a preset. beta1 = 0 keeps no first moment. */
export interface AdamConfig { lr: number; beta1: number; beta2: number; eps: number; weightDecay: number; clip: number }

/** What an optimiser owns of one network: weights, moments (m unless beta1 is 0) and, if kept, the moving average. */
export interface Trained<X = Tensor> {
  params: Record<string, X>;
  m?: Record<string, X>;
  v: Record<string, X>;
  ema?: Record<string, X>;
}

/** Scalars of one step: learning rate, 1-based update count, EMA decay. */
export interface Rates<X = Tensor> { lr: X; count: X; decay?: X }

/**
 * AdamW on gradients clipped to a global norm. When any gradient is not finite, every tensor stays as it was.
 * @returns the new tensors under the names of `s`, the norm before clipping, and `skipped` (0 or 1).
 */
export function update<S extends Trained>(s: S, grads: Tensors, config: AdamConfig, rates: Rates): { state: S; norm: Tensor; skipped: Tensor } {
  const clipped = clipByGlobalNorm(grads, config.clip);
  const keep = (fresh: Tensor, old: Tensor) => where(clipped.finite, fresh, old);
  const next = { params: {} as Tensors, m: {} as Tensors, v: {} as Tensors, ema: {} as Tensors };
  for (const [name, p] of Object.entries(s.params)) {
    const g = clipped.grads[name]!;
    const step = adamW(p, g, { m: s.m?.[name], v: s.v[name]! }, {
      lr: rates.lr, step: rates.count, beta1: config.beta1, beta2: config.beta2, eps: config.eps, weightDecay: decays(name, p) ? config.weightDecay : 0,
    });
    next.params[name] = keep(step.p, p);
    next.v[name] = keep(step.v, s.v[name]!);
    if (s.m) next.m[name] = keep(step.m!, s.m[name]!);
    if (s.ema) next.ema[name] = keep(ema(s.ema[name]!, step.p, rates.decay!), s.ema[name]!);
  }
  const state = { ...s, params: next.params, v: next.v, ...(s.m && { m: next.m }), ...(s.ema && { ema: next.ema }) };
  return { state, norm: clipped.norm, skipped: clipped.finite.neg().add(1) };
}

/** Matrices decay; biases, gains, modulations and other vectors do not. */
const decays = (name: string, p: Tensor): boolean => name.endsWith('weight') && p.shape.length > 1;

/** Linear warm-up to lr, then a cosine down to 0 at `steps`; step counts from 0. */
export function cosine(lr: number, step: number, warmup: number, steps: number): number {
  if (step < warmup) return (lr * (step + 1)) / warmup;
  return 0.5 * lr * (1 + Math.cos((Math.PI * (step - warmup)) / Math.max(steps - warmup, 1)));
}

/** Linear warm-up to lr, then constant. */
export const warm = (lr: number, step: number, warmup: number): number => lr * Math.min(1, (step + 1) / Math.max(warmup, 1));

/** EMA decay that forgets the initial weights: min(decay, (1 + n) / (10 + n)) after n updates, as TensorFlow's ExponentialMovingAverage. */
export const emaDecay = (decay: number, n: number): number => Math.min(decay, (1 + n) / (10 + n));

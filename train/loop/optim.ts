/** One guarded optimiser step over named parameters: clip, AdamW, EMA; a non-finite gradient changes nothing. */
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { adamW, clipByGlobalNorm, ema, where, zeros } from '../../engine/frontend/functional.ts';
import { isMatrix } from '../../model/params.ts';
import { eachRole, pack, packsOf, unpack } from './packs.ts';

type Tensors = Record<string, Tensor>;

/** Numbers of AdamW from a preset. beta1 = 0 keeps no first moment. */
export interface AdamConfig {
  lr: number;
  beta1: number;
  beta2: number;
  eps: number;
  weightDecay: number;
  clip: number;
}

/** What an optimiser owns of one network: weights, moments (m unless beta1 is 0) and, if kept, the moving average. */
export interface Trained<X = Tensor> {
  params: Record<string, X>;
  m?: Record<string, X>;
  v: Record<string, X>;
  ema?: Record<string, X>;
  /** Gradients accumulated over the micro-batches so far: zeros between updates. */
  grads?: Record<string, X>;
}

/** A micro-batch's share of its batch, and 1 for the last one, which updates, else 0. */
export interface Micro<X = Tensor> {
  share: X;
  last: X;
}

/** Scalars of one step: learning rate, 1-based update count, EMA decay. */
export interface Rates<X = Tensor> {
  lr: X;
  count: X;
  decay?: X;
  micro?: Micro<X>;
  /**
   * Takes a micro-batch's share of the gradients, in packs, in the update's place, where they
   * are added up over ranks first; gives what stands for its metrics.
   */
  hand?: (grads: Tensors, config: AdamConfig) => { norm: Tensor; skipped: Tensor };
}

/**
 * AdamW on gradients clipped to a global norm, pack by pack. When any gradient is not finite, every tensor stays as it was. Of a
 * batch in micro-batches (`rates.micro`, `s.grads`) all but the last only add their share to the gradients.
 * @returns the new tensors under the names of `s`, the norm before clipping, and
 * `skipped` (0 or 1); of micro-batches their mean is the batch's
 */
export function update<S extends Trained>(
  s: S,
  grads: Tensors,
  config: AdamConfig,
  rates: Rates,
): { state: S; norm: Tensor; skipped: Tensor } {
  const packs = packsOf(s.params);
  const { micro, hand } = rates;
  const shares = pack(grads, packs);
  if (micro) for (const [name, g] of Object.entries(shares)) shares[name] = g.mul(micro.share);
  if (hand) return { state: s, ...hand(shares, config) };
  const old = eachRole(s, (tensors) => pack(tensors, packs));
  const sums = shares;
  if (micro) for (const [name, g] of Object.entries(shares)) sums[name] = old.grads![name]!.add(g);
  const decays = (name: string): boolean => isMatrix(name, s.params[name]!.shape);
  const { state, norm, skipped } = applied(old, sums, config, rates, decays);
  return { state: { ...s, ...eachRole(state, (tensors) => unpack(tensors, packs)) }, norm, skipped };
}

/** The update of packed tensors by their whole gradients. @param decays biases, gains, modulations and other vectors do not */
export function applied(
  old: Trained,
  sums: Tensors,
  config: AdamConfig,
  rates: Rates,
  decays: (name: string) => boolean,
): { state: Trained; norm: Tensor; skipped: Tensor } {
  const { micro } = rates;
  const clipped = clipByGlobalNorm(sums, config.clip);
  const due = micro ? clipped.finite.mul(micro.last) : clipped.finite;
  const keep = (fresh: Tensor, before: Tensor) => where(due, fresh, before);
  const next = { params: {} as Tensors, m: {} as Tensors, v: {} as Tensors, ema: {} as Tensors, grads: {} as Tensors };
  for (const [name, p] of Object.entries(old.params)) {
    const g = clipped.grads[name]!;
    const step = adamW(
      p,
      g,
      { m: old.m?.[name], v: old.v[name]! },
      {
        lr: rates.lr,
        step: rates.count,
        beta1: config.beta1,
        beta2: config.beta2,
        eps: config.eps,
        weightDecay: decays(name) ? config.weightDecay : 0,
      },
    );
    next.params[name] = keep(step.p, p);
    next.v[name] = keep(step.v, old.v[name]!);
    if (old.m) next.m[name] = keep(step.m!, old.m[name]!);
    if (old.ema) next.ema[name] = keep(ema(old.ema[name]!, step.p, rates.decay!), old.ema[name]!);
    if (micro && old.grads) next.grads[name] = where(micro.last, zeros(p.shape), sums[name]!);
  }
  const once = (metric: Tensor): Tensor => (micro ? metric.mul(micro.last).div(micro.share) : metric);
  return {
    state: {
      params: next.params,
      v: next.v,
      ...(old.m && { m: next.m }),
      ...(old.ema && { ema: next.ema }),
      ...(old.grads && { grads: next.grads }),
    },
    norm: once(clipped.norm),
    skipped: once(clipped.finite.neg().add(1)),
  };
}

/** Linear warm-up to lr, then a cosine down to 0 at `steps`; step counts from 0. */
export function cosine(lr: number, step: number, warmup: number, steps: number): number {
  if (step < warmup) return (lr * (step + 1)) / warmup;
  return 0.5 * lr * (1 + Math.cos((Math.PI * (step - warmup)) / Math.max(steps - warmup, 1)));
}

/** Linear warm-up to lr, then constant. */
export const warm = (lr: number, step: number, warmup: number): number =>
  lr * Math.min(1, (step + 1) / Math.max(warmup, 1));

/** EMA decay that forgets the initial weights: min(decay, (1 + n) / (10 + n)) after n updates, as TensorFlow's ExponentialMovingAverage. */
export const emaDecay = (decay: number, n: number): number => Math.min(decay, (1 + n) / (10 + n));

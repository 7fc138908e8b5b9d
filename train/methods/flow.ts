/**
 * Rectified flow, as METHOD §1.0 writes it: the algebra between x0, ε, x_σ and v, and the laws that times are drawn from.
 *
 * σ in [0,1] is the flow time, t = 1000 σ what the network sees, x_σ = (1 - σ) x0 + σ ε, v = ε - x0. Everything is f32.
 */
import type { HostTensor } from '../../engine/frontend/tree.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { shiftSigma, TRAIN_TIMESTEPS } from '../../model/schedulers/index.ts';
import { Stream } from '../loop/rng.ts';

/** t = T σ. */
export const T = TRAIN_TIMESTEPS;

/** σ [B] → [B,1,1,1,1], to stand beside a latent [B,C,F,H,W]. */
export const perSample = (sigma: Tensor): Tensor => sigma.reshape([sigma.shape[0]!, 1, 1, 1, 1]);

/** x_σ = (1 - σ) x0 + σ ε. */
export function noise(x0: Tensor, eps: Tensor, sigma: Tensor): Tensor {
  const s = perSample(sigma);
  return x0.mul(s.neg().add(1)).add(eps.mul(s));
}

/** v = ε - x0. */
export const velocityOf = (x0: Tensor, eps: Tensor): Tensor => eps.sub(x0);

/** x̂0 = x_σ - σ v. */
export const toX0 = (x: Tensor, v: Tensor, sigma: Tensor): Tensor => x.sub(v.mul(perSample(sigma)));

/**
 * A distribution of σ.
 * - `logit-normal`: u = sigmoid(N(mean, std)), shifted;
 * - `uniform`: u ~ U(0,1), shifted, then clamped into [lo, hi];
 * - `endpoint`: U[from, 1], and exactly 1 (pure noise) with probability `pure`.
 */
export type TimeLaw =
  | { law: 'logit-normal'; mean: number; std: number; shift: number }
  | { law: 'uniform'; shift: number; lo: number; hi: number }
  | { law: 'endpoint'; from: number; pure: number };

/** n times by a law, decided by (seed, step, role) alone → σ f32[n]. */
export function drawTimes(law: TimeLaw, n: number, seed: number, step: number, role: string): HostTensor {
  const random = new Stream(seed, step, role);
  return { data: Float32Array.from({ length: n }, () => drawTime(law, random)), shape: [n], dtype: 'f32' };
}

/** One time σ. */
export function drawTime(law: TimeLaw, random: Stream): number {
  if (law.law === 'endpoint') return random.uniform() < law.pure ? 1 : random.uniform(law.from, 1);
  if (law.law === 'uniform') return Math.min(law.hi, Math.max(law.lo, shiftSigma(random.uniform(), law.shift)));
  return shiftSigma(1 / (1 + Math.exp(-(law.mean + law.std * random.normal()))), law.shift);
}

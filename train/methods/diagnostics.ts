/** What a step can tell of a run's health at no cost of a forward (METHOD §1.15). */
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { mse } from '../../engine/frontend/functional.ts';

/** Cosine of the angle between two tensors. */
export function cosine(a: Tensor, b: Tensor): Tensor {
  return a.mul(b).sum().div(a.square().sum().mul(b.square().sum()).add(1e-30).sqrt());
}

/** Root of the mean variance of the channels: 1 for unit-variance data. */
export function deviation(x: Tensor): Tensor {
  const centred = x.sub(x.mean([0, 2, 3, 4], true));
  return centred.square().mean().sqrt();
}

/** Mean absolute difference of consecutive frames of x [B,C,F,H,W]. */
const motion = (x: Tensor): Tensor =>
  x
    .slice(2, 1)
    .sub(x.slice(2, 0, -1))
    .abs()
    .mean();

/**
 * Generated latents beside the real ones of the same conditions, both [B,C,F,H,W], and the first frame's, if it is given:
 * - `deviation`: their ratio; above 1.15 it is saturation;
 * - `motion`: its ratio; below 0.7 the video is static. Stills have none;
 * - `first`: squared distance in the first latent frame; when it grows, the condition collapses. Text-to-video is not given one.
 */
export const health = (made: Tensor, real: Tensor, given: Tensor | undefined): Record<string, Tensor> => ({
  deviation: deviation(made).div(deviation(real)),
  ...(made.shape[2]! > 1 && { motion: motion(made).div(motion(real)) }),
  ...(given && { first: mse(made.slice(2, 0, 1), real.slice(2, 0, 1)) }),
});

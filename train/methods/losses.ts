/** Losses between a discriminator's logits [B] for real and generated samples, and its regulariser (METHOD §1.6–1.7). */
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { normal, relu, softplus } from '../../engine/frontend/functional.ts';

/** A term of a loss by its weight. One of weight 0 is left out, with all that only it needs: x · 0 would still be NaN where x is. */
export const weighted = (term: Tensor, weight: number): Tensor => (weight === 0 ? term.like(0) : term.mul(weight));

export interface Adversarial {
  discriminator: (real: Tensor, fake: Tensor) => Tensor;
  /** `real` gives the logits of the same pairs' real samples, for a loss that looks at them. */
  generator: (fake: Tensor, real: () => Tensor) => Tensor;
}

export const ADVERSARIAL: Record<'hinge' | 'logistic' | 'relativistic', Adversarial> = {
  /** mean relu(1 - D(real)) + mean relu(1 + D(fake)); -mean D(fake). */
  hinge: {
    discriminator: (real, fake) =>
      relu(real.neg().add(1))
        .mean()
        .add(relu(fake.add(1)).mean()),
    generator: (fake) => fake.mean().neg(),
  },
  /** mean log(1 + e^-D(real)) + mean log(1 + e^D(fake)); mean log(1 + e^-D(fake)), which does not saturate (APT). */
  logistic: {
    discriminator: (real, fake) => softplus(real.neg()).mean().add(softplus(fake).mean()),
    generator: (fake) => softplus(fake.neg()).mean(),
  },
  /** mean log(1 + e^(D(fake) - D(real))), and the other way round: only differences within a pair count (SeedVR2). */
  relativistic: {
    discriminator: (real, fake) => softplus(fake.sub(real)).mean(),
    generator: (fake, real) => softplus(real().sub(fake)).mean(),
  },
};

export interface Str1 {
  /** 0: not computed. */
  weight: number;
  /** σ_s: deviation of the perturbation drawn for every element. */
  spatial: number;
  /** σ_t: deviation of the temporal perturbation. */
  temporal: number;
  on: 'fake' | 'real' | 'both';
  /** e_t is drawn once a (sample, channel, frame), or for every element like e_s. */
  drawn: 'frame' | 'element';
}

/** σ_s e_s + σ_t e_t: with e_t constant over a frame D learns to ignore whole-frame shifts. */
export function perturbation(key: Tensor, shape: readonly number[], p: Str1): Tensor {
  const [b, c, f] = shape as [number, number, number];
  return normal(key, shape)
    .mul(p.spatial)
    .add(normal(key, p.drawn === 'frame' ? [b, c, f, 1, 1] : shape).mul(p.temporal));
}

/** mean (D(x̃) - D(x))² / (σ_s² + σ_t²): for small steps |∇D|² along the perturbation; the denominator is the mean square, not the sum. */
export function str1Loss(moved: Tensor, still: Tensor, p: Str1): Tensor {
  return moved
    .sub(still)
    .square()
    .mean()
    .div(p.spatial ** 2 + p.temporal ** 2);
}

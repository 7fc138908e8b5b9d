/** Phase II, unified adversarial equilibrium: a self-discriminator on the generator's EMA, STR1 and conditional SDS (METHOD §1.6–1.10). */
import type { Tensor } from '../engine/tensor.ts';
import { concat, constant, normal, relu, stopGradient } from '../engine/functional.ts';
import { vjp } from '../engine/autodiff.ts';
import { numel } from '../kernels/kernel.ts';
import type { DiTConfig } from '../model/config.ts';
import { head, type HeadConfig } from '../model/heads.ts';
import type { Params } from '../model/params.ts';
import { cosine, health } from './diagnostics.ts';
import { noise } from './flow.ts';
import { features, guidedX0, pictures, predictX0, stackConditions, stackTimes, type Batch, type Condition, type Time } from './networks.ts';
import { update, type AdamConfig, type Rates, type Trained } from './optim.ts';

export interface Str1 {
  weight: number;
  /** σ_s: deviation of the perturbation drawn for every element. */
  spatial: number;
  /** σ_t: deviation of the perturbation drawn once a (sample, channel, frame). */
  temporal: number;
  on: 'fake' | 'real' | 'both';
}

export interface EquilibriumConfig { dit: DiTConfig; head: HeadConfig; taps: readonly number[]; lambda: number; guidance: number; str1: Str1 }

export interface EquilibriumInputs<X = Tensor> extends Rates<X> {
  /** u32[2] */
  key: X;
  /** u32[2]: ε' of the discriminator, the same in the D step and the G step. */
  noiseKey: X;
  /** σ = 1. */
  end: Time<X>;
  /** Discriminator time. */
  t: Time<X>;
  /** C-SDS time t'; not read by the D step. */
  score: Time<X>;
}

/** σ_s e_s + σ_t e_t: e_s for every element, e_t constant over a frame, so D learns to ignore whole-frame shifts. */
export function perturbation(key: Tensor, shape: readonly number[], p: Str1): Tensor {
  const [b, c, f] = shape as [number, number, number];
  return normal(key, shape).mul(p.spatial).add(normal(key, [b, c, f, 1, 1]).mul(p.temporal));
}

/** mean (D(x̃) - D(x))² / (σ_s² + σ_t²): for small steps |∇D|² along the perturbation; the denominator is the mean square, not the sum. */
export function str1Loss(moved: Tensor, still: Tensor, p: Str1): Tensor {
  return moved.sub(still).square().mean().div(p.spatial ** 2 + p.temporal ** 2);
}

/** mean relu(1 - D(real)) + mean relu(1 + D(fake)). */
export function hinge(real: Tensor, fake: Tensor): Tensor {
  return relu(real.neg().add(1)).mean().add(relu(fake.add(1)).mean());
}

/** λ mean (x̂0 - sg xr)², as its gradient at x̂0: 2 λ (x̂0 - xr) / numel = 2 λ σ' (v_real - (ε' - x̂0)) / numel. */
export function csdsGradient(x0: Tensor, real: Tensor, lambda: number): Tensor {
  return x0.sub(real).mul((2 * lambda) / numel(x0.shape));
}

/** D(z, t, c) → logits [B]: the head on the tapped tokens of a backbone that is a constant of every loss. */
function logits(p: EquilibriumConfig, net: Params, taps: Tensor[], c: Condition): Tensor {
  return head(net, p.head, taps, { imageTokens: pictures(c.frame), context: c.text, lengths: c.lengths });
}

/** One update of the head `s`. Features come from forwards without gradient: real, fake and their perturbed copies in one batch. */
export function discriminatorStep(p: EquilibriumConfig, adam: AdamConfig) {
  return (s: Trained, generator: Params, ema: Params, batch: Batch, at: EquilibriumInputs) => {
    const { x0: x, c } = batch;
    const eps = normal(at.noiseKey, x.shape); // drawn first, as in the G step: one key and one place make one ε'
    const x0 = predictX0(generator, p.dit, normal(at.key, x.shape), at.end, c);
    const xt = noise(x, eps, at.t.sigma);
    const xh = noise(x0, eps, at.t.sigma);

    const inputs = [xt, xh];
    if (p.str1.on !== 'real') inputs.push(xh.add(perturbation(at.key, x.shape, p.str1)));
    if (p.str1.on !== 'fake') inputs.push(xt.add(perturbation(at.key, x.shape, p.str1)));
    const all = stackConditions(inputs.map(() => c));
    const taps = features(ema, p.dit, concat(inputs, 0), stackTimes(inputs.map(() => at.t)), all, p.taps).map(stopGradient);
    const [real, fake, ...moved] = logits(p, s.params, taps, all).split(0, inputs.length) as [Tensor, Tensor, ...Tensor[]];

    const still = p.str1.on === 'real' ? [real] : [fake, real];
    const str1 = moved.map((m, i) => str1Loss(m, still[i]!, p.str1)).reduce((a, b) => a.add(b));
    const adversarial = hinge(real, fake);
    const loss = adversarial.add(str1.mul(p.str1.weight));
    const { state, norm, skipped } = update(s, vjp(loss, constant(1), s.params), adam, at);
    const active = real.lt(1).mean().add(constant(-1).lt(fake).mean()).mul(0.5);
    return { ...state, metrics: { D: adversarial, real: real.mean(), fake: fake.mean(), active, str1, headNorm: norm, headSkipped: skipped } };
  };
}

/**
 * Gradients of -mean D + λ C-SDS for the generator. They meet at x̂0, so that the two branches run one after the other with disjoint
 * activations and the student forward is run once. The backbone `ema` is a constant: the generator can't make its own features look real.
 */
export function generatorGradients(p: EquilibriumConfig, generator: Params, ema: Params, psi: Params, real: Params, batch: Batch, at: EquilibriumInputs) {
  const { x0: x, c } = batch;
  const eps = normal(at.noiseKey, x.shape);
  const x0 = predictX0(generator, p.dit, normal(at.key, x.shape), at.end, c);

  const seen = stopGradient(x0);
  const xh = noise(seen, eps, at.t.sigma);
  const score = logits(p, psi, features(ema, p.dit, xh, at.t, c, p.taps), c).mean();
  const gD = vjp(score.neg(), constant(1), seen);

  const xr = guidedX0(real, p.dit, noise(seen, normal(at.key, x.shape), at.score.sigma), at.score, c, p.guidance);
  const gS = csdsGradient(seen, xr, p.lambda);

  const length = (g: Tensor) => g.square().sum().sqrt();
  const csds = seen.sub(xr).square();
  return {
    grads: vjp(x0, gD.add(gS), generator),
    metrics: {
      G: score.neg(), gD: length(gD), gS: length(gS), cos: cosine(gD, gS), csds: csds.mean(), csdsFirst: csds.slice(2, 0, 1).mean(),
      ...health(seen, x),
    },
  };
}

/** One update of the generator `s`, judged by its EMA as it was before the update. */
export function generatorStep(p: EquilibriumConfig, adam: AdamConfig) {
  return (s: Trained, psi: Params, real: Params, batch: Batch, at: EquilibriumInputs) => {
    const { grads, metrics } = generatorGradients(p, s.params, s.ema!, psi, real, batch, at);
    const { state, norm, skipped } = update(s, grads, adam, at);
    return { ...state, metrics: { ...metrics, norm, skipped } };
  };
}

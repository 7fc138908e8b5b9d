/** Phase II, unified adversarial equilibrium: a self-discriminator on the generator's EMA, STR1 and conditional SDS (METHOD §1.6–1.10). */
import type { Tensor } from '../engine/tensor.ts';
import { concat, constant, normal, stopGradient } from '../engine/functional.ts';
import { vjp } from '../engine/autodiff.ts';
import { numel } from '../kernels/kernel.ts';
import type { DiTConfig } from '../model/config.ts';
import { head, initHead, type HeadConfig } from '../model/heads.ts';
import type { HostParams, Params } from '../model/params.ts';
import { cosine, health } from './diagnostics.ts';
import { noise } from './flow.ts';
import { ADVERSARIAL, perturbation, str1Loss, type Str1 } from './losses.ts';
import { assemble, features, guidedX0, ownFrom, predictX0, semantics, stackConditions, stackTimes, type Batch, type Condition, type Form, type Net, type Time } from './networks.ts';
import { update, type AdamConfig, type Rates, type Trained } from './optim.ts';

export interface EquilibriumConfig {
  dit: DiTConfig;
  student: Form;
  head: HeadConfig;
  taps: readonly number[];
  backbone: 'ema' | 'live' | 'frozen' | 'full';
  loss: keyof typeof ADVERSARIAL;
  /** Whether the discriminator sees samples noised to its time, or clean ones. */
  sees: 'noised' | 'clean';
  /** Weight of C-SDS; at 0 it is not computed. */
  lambda: number;
  /** Inside C-SDS. */
  guidance: number;
  str1: Str1;
}

export interface EquilibriumInputs<X = Tensor> extends Rates<X> {
  /** u32[2] */
  key: X;
  /** u32[2]: ε' of the discriminator, the same in the D step and the G step. */
  noiseKey: X;
  /** Time of the generator's input: σ = 1, or the level of `input`. */
  end: Time<X>;
  /** State of a few-step student's own sampling [B,C,F,H,W]; pure noise, drawn in the step, unless given. */
  input?: X;
  /** Discriminator time. */
  t: Time<X>;
  /** C-SDS time t'; not read by the D step. */
  score: Time<X>;
}

/** λ mean (x̂0 - sg xr)², as its gradient at x̂0: 2 λ (x̂0 - xr) / numel = 2 λ σ' (v_real - (ε' - x̂0)) / numel. */
export function csdsGradient(x0: Tensor, real: Tensor, lambda: number): Tensor {
  return x0.sub(real).mul((2 * lambda) / numel(x0.shape));
}

/** Where the weights of a `full` backbone stand among the discriminator's. */
const BACKBONE = 'backbone.';

/** First weights of the discriminator: the head's, and those of a backbone of its own, which starts as the teacher (APT). */
export function initDiscriminator(p: EquilibriumConfig, teacher: HostParams, seed: number): HostParams {
  if (p.backbone !== 'full') return initHead(p.head, seed);
  const own = Object.entries(ownFrom(p.student, p.dit, teacher, seed)).map(([name, t]) => [BACKBONE + name, t]);
  return { ...initHead(p.head, seed), ...Object.fromEntries(own) as HostParams };
}

/** The network whose features the discriminator reads. */
function backboneOf(p: EquilibriumConfig, { generator, ema, psi, teacher }: Record<'generator' | 'ema' | 'psi' | 'teacher', Params>): Net {
  if (p.backbone === 'frozen') return teacher;
  if (p.backbone !== 'full') return assemble(p.student, teacher, p.backbone === 'ema' ? ema : generator);
  const own = Object.entries(psi).filter(([name]) => name.startsWith(BACKBONE)).map(([name, t]) => [name.slice(BACKBONE.length), t]);
  return assemble(p.student, teacher, Object.fromEntries(own) as Params);
}

/** D(z, t, c) → logits [B]: the head on the backbone's tapped tokens. */
const logits = (p: EquilibriumConfig, backbone: Net, psi: Params, z: Tensor, t: Time, c: Condition): Tensor =>
  head(psi, p.head, features(backbone, p.dit, z, t, c, p.taps), semantics(c));

/** What of a sample the discriminator sees. */
const seenAt = (p: EquilibriumConfig, x0: Tensor, eps: Tensor, t: Time): Tensor => (p.sees === 'noised' ? noise(x0, eps, t.sigma) : x0);

/**
 * One update of the discriminator `s`. The features come from forwards without gradient unless the backbone is its own; real, fake and
 * perturbed copies go in one batch.
 */
export function discriminatorStep(p: EquilibriumConfig, adam: AdamConfig) {
  return (s: Trained, generator: Params, ema: Params, teacher: Params, batch: Batch, at: EquilibriumInputs) => {
    const { x0: x, c } = batch;
    const eps = normal(at.noiseKey, x.shape); // drawn first, as in the G step: one key and one place make one ε'
    const x0 = predictX0(assemble(p.student, teacher, generator), p.dit, at.input ?? normal(at.key, x.shape), at.end, c);
    const xt = seenAt(p, x, eps, at.t);
    const xh = seenAt(p, x0, eps, at.t);

    const regularised = p.str1.weight === 0 ? [] : { fake: [xh], real: [xt], both: [xh, xt] }[p.str1.on];
    const inputs = [xt, xh, ...regularised.map((z) => z.add(perturbation(at.key, x.shape, p.str1)))];
    const backbone = backboneOf(p, { generator, ema, psi: s.params, teacher });
    const D = logits(p, backbone, s.params, concat(inputs, 0), stackTimes(inputs.map(() => at.t)), stackConditions(inputs.map(() => c)));
    const [real, fake, ...moved] = D.split(0, inputs.length) as [Tensor, Tensor, ...Tensor[]];

    const adversarial = ADVERSARIAL[p.loss].discriminator(real, fake);
    const str1 = moved.map((m, i) => str1Loss(m, regularised[i] === xt ? real : fake, p.str1)).reduce((a, b) => a.add(b), constant(0));
    const loss = adversarial.add(str1.mul(p.str1.weight));
    const { state, norm, skipped } = update(s, vjp(loss, constant(1), s.params), adam, at);
    const active = real.lt(1).mean().add(constant(-1).lt(fake).mean()).mul(0.5);
    return { ...state, metrics: { D: adversarial, real: real.mean(), fake: fake.mean(), active, str1, headNorm: norm, headSkipped: skipped } };
  };
}

/**
 * Gradients of the adversarial loss + λ C-SDS for the generator. They meet at x̂0, so that the two branches run one after the other with
 * disjoint activations and the student forward is run once. The backbone is a constant: the generator can't make its own features look real.
 */
export function generatorGradients(p: EquilibriumConfig, generator: Params, ema: Params, psi: Params, teacher: Params, batch: Batch, at: EquilibriumInputs) {
  const { x0: x, c } = batch;
  const eps = normal(at.noiseKey, x.shape);
  const x0 = predictX0(assemble(p.student, teacher, generator), p.dit, at.input ?? normal(at.key, x.shape), at.end, c);

  const seen = stopGradient(x0);
  const backbone = backboneOf(p, { generator, ema, psi, teacher });
  const D = (sample: Tensor) => logits(p, backbone, psi, seenAt(p, sample, eps, at.t), at.t, c);
  const loss = ADVERSARIAL[p.loss].generator(D(seen), () => D(x));
  const gD = vjp(loss, constant(1), seen);
  const metrics: Record<string, Tensor> = { G: loss, gD: length(gD), ...health(seen, x, c.latent) };
  if (p.lambda === 0) return { grads: vjp(x0, gD, generator), metrics };

  const xr = guidedX0(teacher, p.dit, noise(seen, normal(at.key, x.shape), at.score.sigma), at.score, c, p.guidance);
  const gS = csdsGradient(seen, xr, p.lambda);
  const csds = seen.sub(xr).square();
  return {
    grads: vjp(x0, gD.add(gS), generator),
    metrics: { ...metrics, gS: length(gS), cos: cosine(gD, gS), csds: csds.mean(), csdsFirst: csds.slice(2, 0, 1).mean() },
  };
}

const length = (g: Tensor): Tensor => g.square().sum().sqrt();

/** One update of the generator `s`, judged by its EMA as it was before the update. */
export function generatorStep(p: EquilibriumConfig, adam: AdamConfig) {
  return (s: Trained, psi: Params, teacher: Params, batch: Batch, at: EquilibriumInputs) => {
    const { grads, metrics } = generatorGradients(p, s.params, s.ema!, psi, teacher, batch, at);
    const { state, norm, skipped } = update(s, grads, adam, at);
    return { ...state, metrics: { ...metrics, norm, skipped } };
  };
}

/** Phase II, unified adversarial equilibrium: a self-discriminator on the generator's EMA, STR1 and conditional SDS (METHOD §1.6–1.10). */
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { concat, constant, normal, stopGradient } from '../../engine/frontend/functional.ts';
import { vjp } from '../../engine/frontend/autodiff.ts';
import type { HostTensor } from '../../engine/frontend/tree.ts';
import { numel } from '../../kernels/kernel.ts';
import type { DiTConfig } from '../../model/config.ts';
import { head, headShapes, initHead, type HeadConfig } from '../../model/heads.ts';
import type { Params } from '../../model/params.ts';
import { cosine, health } from './diagnostics.ts';
import { noise } from './flow.ts';
import { ADVERSARIAL, perturbation, str1Loss, weighted, type Str1 } from './losses.ts';
import {
  assemble,
  features,
  guidedX0,
  ownFrom,
  ownShapes,
  predictX0,
  scored,
  semantics,
  stackConditions,
  stackTimes,
  type Batch,
  type Condition,
  type Form,
  type Net,
  type Networks,
  type Time,
} from './networks.ts';
import { update, type AdamConfig, type Rates, type Trained } from '../loop/optim.ts';
import type { Numbers } from './stage.ts';

export interface EquilibriumConfig {
  dit: DiTConfig;
  student: Form;
  head: HeadConfig;
  taps: readonly number[];
  backbone: 'ema' | 'live' | 'frozen' | 'full';
  loss: keyof typeof ADVERSARIAL;
  /** Weight of the adversarial loss in the generator's. */
  adversarial: number;
  /** Whether the discriminator sees samples noised to its time, or clean ones. */
  sees: 'noised' | 'clean';
  /** Weight of C-SDS; at 0 it is not computed. */
  lambda: number;
  /** Inside C-SDS. */
  guidance: number;
  str1: Str1;
  /** Less memory: samples go to the discriminator one after the other, and the generator's forward is repeated for its gradient. */
  apart: boolean;
}

export function equilibriumConfigOf({
  config: dit,
  head: headConfig,
  student,
  equilibrium,
}: Numbers): EquilibriumConfig {
  const { taps, backbone, loss, adversarial, sees, lambda, guidance, str1, apart } = equilibrium;
  return { dit, student, head: headConfig, taps, backbone, loss, adversarial, sees, lambda, guidance, str1, apart };
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
  return weighted(x0.sub(real), (2 * lambda) / numel(x0.shape));
}

/** Where the weights of a `full` backbone stand among the discriminator's. */
const BACKBONE = 'backbone.';

/** Name → shape of what the discriminator trains. */
export const discriminatorShapes = (p: EquilibriumConfig): Record<string, readonly number[]> => ({
  ...headShapes(p.head),
  ...(p.backbone === 'full' &&
    Object.fromEntries(Object.entries(ownShapes(p.student, p.dit)).map(([name, shape]) => [BACKBONE + name, shape]))),
});

/** First weights of the discriminator: the head's, and those of a backbone of its own, which starts as the teacher (APT). */
export function initDiscriminator<T>(
  p: EquilibriumConfig,
  teacher: Readonly<Record<string, T>>,
  seed: number,
): Record<string, T | HostTensor> {
  if (p.backbone !== 'full') return initHead(p.head, seed);
  const own = Object.entries(ownFrom(p.student, p.dit, teacher, seed)).map(
    ([name, t]) => [BACKBONE + name, t] as const,
  );
  return { ...initHead(p.head, seed), ...Object.fromEntries(own) };
}

/** The networks that judge a sample: `discriminator` on the features of one of the others. */
type Judging = 'generator' | 'ema' | 'discriminator' | 'teacher';

/** The network whose features the discriminator reads. */
function backboneOf(p: EquilibriumConfig, { generator, ema, discriminator, teacher }: Networks<Judging>): Net {
  if (p.backbone === 'frozen') return teacher;
  if (p.backbone !== 'full') return assemble(p.student, teacher, p.backbone === 'ema' ? ema : generator);
  const own = Object.entries(discriminator)
    .filter(([name]) => name.startsWith(BACKBONE))
    .map(([name, t]) => [name.slice(BACKBONE.length), t]);
  return assemble(p.student, teacher, Object.fromEntries(own) as Params);
}

/** D(z, t, c) → logits [B]: the head on the backbone's tapped tokens. */
const logits = (
  p: EquilibriumConfig,
  { backbone, discriminator }: { backbone: Net; discriminator: Params },
  z: Tensor,
  t: Time,
  c: Condition,
): Tensor => head(discriminator, p.head, features(backbone, p.dit, z, t, { c, taps: p.taps }), semantics(c));

/** What of a sample the discriminator sees. */
const seenAt = (p: EquilibriumConfig, x0: Tensor, eps: Tensor, t: Time): Tensor =>
  p.sees === 'noised' ? noise(x0, eps, t.sigma) : x0;

/** ε' and what the generator is given. In every step they are drawn first and in this order: one key and one place make one number. */
const drawn = ({ x0: x }: Batch, at: EquilibriumInputs): { eps: Tensor; input: Tensor } => ({
  eps: normal(at.noiseKey, x.shape),
  input: at.input ?? normal(at.key, x.shape),
});

/** x̂0. */
const generated = (
  p: EquilibriumConfig,
  { generator, teacher }: Networks<'generator' | 'teacher'>,
  input: Tensor,
  { c }: Batch,
  at: EquilibriumInputs,
): Tensor => predictX0(assemble(p.student, teacher, generator), p.dit, input, at.end, c);

/**
 * One update of the discriminator `s`. The features come from forwards without gradient unless the backbone is its own; real, fake and
 * perturbed copies go in one batch, or one after the other.
 */
export function discriminatorStep(p: EquilibriumConfig, adam: AdamConfig) {
  return (s: Trained, networks: Networks<'generator' | 'ema' | 'teacher'>, batch: Batch, at: EquilibriumInputs) => {
    const discriminator = s.params;
    const { x0: x, c } = batch;
    const { eps, input } = drawn(batch, at);
    const x0 = generated(p, networks, input, batch, at);
    const xt = seenAt(p, x, eps, at.t);
    const xh = seenAt(p, x0, eps, at.t);

    const regularised = p.str1.weight === 0 ? [] : { fake: [xh], real: [xt], both: [xh, xt] }[p.str1.on];
    const inputs = [xt, xh, ...regularised.map((z) => z.add(perturbation(at.key, x.shape, p.str1)))];
    const backbone = backboneOf(p, { ...networks, discriminator });
    const D = (z: readonly Tensor[]): Tensor[] =>
      logits(
        p,
        { backbone, discriminator },
        concat(z, 0),
        stackTimes(z.map(() => at.t)),
        stackConditions(z.map(() => c)),
      ).split(0, z.length);
    const [real, fake, ...moved] = (p.apart ? inputs.flatMap((z) => D([z])) : D(inputs)) as [
      Tensor,
      Tensor,
      ...Tensor[],
    ];

    const adversarial = ADVERSARIAL[p.loss].discriminator(real, fake);
    const str1 = moved
      .map((m, i) => str1Loss(m, regularised[i] === xt ? real : fake, p.str1))
      .reduce((a, b) => a.add(b), constant(0));
    const loss = adversarial.add(weighted(str1, p.str1.weight));
    const { state, norm, skipped } = update(s, vjp(loss, constant(1), s.params), adam, at);
    const active = real.lt(1).mean().add(constant(-1).lt(fake).mean()).mul(0.5);
    return {
      ...state,
      metrics: {
        D: adversarial,
        real: real.mean(),
        fake: fake.mean(),
        active,
        margin: real.mean().sub(fake.mean()),
        str1,
        headNorm: norm,
        headSkipped: skipped,
      },
    };
  };
}

/**
 * Gradient of the weighted adversarial loss + λ C-SDS at x̂0, where the two branches meet: they run one after the other with
 * disjoint activations. The backbone is a constant: the generator can't make its own features look real.
 */
function judge(
  p: EquilibriumConfig,
  networks: Networks<Judging>,
  { seen, eps }: { seen: Tensor; eps: Tensor },
  batch: Batch,
  at: EquilibriumInputs,
) {
  const { x0: x, c } = batch;
  const { discriminator } = networks;
  const backbone = backboneOf(p, networks);
  const D = (sample: Tensor) => logits(p, { backbone, discriminator }, seenAt(p, sample, eps, at.t), at.t, c);
  const loss = ADVERSARIAL[p.loss].generator(D(seen), () => D(x));
  const gD = vjp(loss, constant(p.adversarial), seen);
  const metrics: Record<string, Tensor> = { G: loss, gD: length(gD), ...health(seen, x, c.latent) };
  if (p.lambda === 0) return { cotangent: gD, metrics };

  const again = noise(seen, normal(at.key, x.shape), at.score.sigma);
  const xr = guidedX0(scored(networks), p.dit, again, at.score, { c, guidance: p.guidance });
  const gS = csdsGradient(seen, xr, p.lambda);
  const csds = seen.sub(xr).square();
  return {
    cotangent: gD.add(gS),
    metrics: {
      ...metrics,
      gS: length(gS),
      cos: cosine(gD, gS),
      csds: csds.mean(),
      csdsFirst: csds.slice(2, 0, 1).mean(),
    },
  };
}

const length = (g: Tensor): Tensor => g.square().sum().sqrt();

/** Gradients for the generator, whose forward is run once. */
export function generatorGradients(
  p: EquilibriumConfig,
  networks: Networks<Judging>,
  batch: Batch,
  at: EquilibriumInputs,
) {
  const { eps, input } = drawn(batch, at);
  const x0 = generated(p, networks, input, batch, at);
  const { cotangent, metrics } = judge(p, networks, { seen: stopGradient(x0), eps }, batch, at);
  return { grads: vjp(x0, cotangent, networks.generator), metrics };
}

/** The first half of a generator step in two programs: a step without a state of its own, which makes the gradient at x̂0. */
export function judgeStep(p: EquilibriumConfig) {
  return (_: Trained, networks: Networks<Judging>, batch: Batch, at: EquilibriumInputs) => {
    const { eps, input } = drawn(batch, at);
    const seen = generated(p, networks, input, batch, at);
    const { cotangent, metrics } = judge(p, networks, { seen, eps }, batch, at);
    return { params: { cotangent }, v: {}, metrics };
  };
}

/** The second half: x̂0 is made again, and the gradient at it goes on to the generator `s`. */
export function followStep(p: EquilibriumConfig, adam: AdamConfig) {
  return (s: Trained, teacher: Params, cotangent: Tensor, batch: Batch, at: EquilibriumInputs) => {
    const x0 = generated(p, { generator: s.params, teacher }, drawn(batch, at).input, batch, at);
    const { state, norm, skipped } = update(s, vjp(x0, cotangent, s.params), adam, at);
    return { ...state, metrics: { norm, skipped } };
  };
}

/** One update of the generator `s`, judged by its EMA as it was before the update. */
export function generatorStep(p: EquilibriumConfig, adam: AdamConfig) {
  return (s: Trained, judges: Networks<'discriminator' | 'teacher'>, batch: Batch, at: EquilibriumInputs) => {
    const { grads, metrics } = generatorGradients(p, { ...judges, generator: s.params, ema: s.ema! }, batch, at);
    const { state, norm, skipped } = update(s, grads, adam, at);
    return { ...state, metrics: { ...metrics, norm, skipped } };
  };
}

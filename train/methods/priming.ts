/** Phase I, stability priming: variational score distillation of the one-step generator (METHOD §1.5). */
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { constant, mse, normal, stopGradient, where, zeros } from '../../engine/frontend/functional.ts';
import { vjp } from '../../engine/frontend/autodiff.ts';
import { numel } from '../../kernels/kernel.ts';
import type { DiTConfig } from '../../model/config.ts';
import { cosine, health } from './diagnostics.ts';
import { noise, velocityOf } from './flow.ts';
import {
  assemble,
  guidedX0,
  predictX0,
  scored,
  velocity,
  type Batch,
  type Condition,
  type Form,
  type Networks,
  type Time,
} from './networks.ts';
import { update, type AdamConfig, type Rates, type Trained } from '../loop/optim.ts';
import type { Numbers } from './stage.ts';

export interface PrimingInputs<X = Tensor> extends Rates<X> {
  /** u32[2] */
  key: X;
  /** Time of the generator's input: σ in [0.9, 1], half exactly 1, or the level of `input`. */
  t: Time<X>;
  /** State of a few-step student's own sampling [B,C,F,H,W]; the noised training latent, unless given. */
  input?: X;
  /** Time t' of the re-noised sample. */
  score: Time<X>;
}

const overSample = (x: Tensor): Tensor => x.mean([1, 2, 3, 4], true);

/**
 * The VSD gradient in x0 space, a cotangent for x̂0 whose loss is ½ mean(x̂0 - sg(x̂0 - G))²:
 * G = (xf - xr) / max(mean|x̂0 - xr|, wmin) per sample; entries that are not finite become 0.
 */
export function vsdGradient(x0: Tensor, real: Tensor, fake: Tensor, wmin: number): Tensor {
  const w = overSample(x0.sub(real).abs()).max(wmin);
  const g = fake.sub(real).div(w);
  return where(g.isFinite(), g, zeros(g.shape));
}

export interface PrimingConfig {
  dit: DiTConfig;
  student: Form;
  fake: Form;
  guidance: number;
  wmin: number;
}

export const primingConfigOf = ({
  config: dit,
  student,
  priming: { fake, guidance, wmin },
}: Numbers): PrimingConfig => ({ dit, student, fake, guidance, wmin });

/** What the generator makes of the step's input: x̂0 = f_θ(x_t, t, c). */
export function generate(
  p: PrimingConfig,
  { teacher, generator }: Networks<'teacher' | 'generator'>,
  { x0: x, c }: Batch,
  at: PrimingInputs,
): Tensor {
  return predictX0(
    assemble(p.student, teacher, generator),
    p.dit,
    at.input ?? noise(x, normal(at.key, x.shape), at.t.sigma),
    at.t,
    c,
  );
}

/**
 * Score distillation at a sample `seen`: both denoise it, noised again.
 * @returns G, and metrics of which `floor` is the share of samples whose normaliser is at its floor, and `lag` the fake model's squared
 * error on the sample beside the teacher's: a fake model that keeps up has less, 1 is one that learned nothing of the samples
 */
export function distil(
  p: PrimingConfig,
  networks: Networks<'teacher' | 'fake'>,
  seen: Tensor,
  { x0: x, c }: Batch,
  at: PrimingInputs,
): { G: Tensor; metrics: Record<string, Tensor> } {
  const xt = noise(seen, normal(at.key, x.shape), at.score.sigma);
  const xr = guidedX0(scored(networks), p.dit, xt, at.score, { c, guidance: p.guidance });
  const xf = predictX0(assemble(p.fake, scored(networks), networks.fake), p.dit, xt, at.score, c);
  const G = vsdGradient(seen, xr, xf, p.wmin);
  const gap = seen.sub(xr);
  return {
    G,
    metrics: {
      G: G.square().mean().sqrt(),
      gap: gap.abs().mean(),
      cos: cosine(gap, G),
      floor: overSample(gap.abs()).lt(p.wmin).mean(),
      lag: mse(seen, xf).div(mse(seen, xr)),
      ...health(seen, x, c.latent),
    },
  };
}

/** One update of the generator `s` against the frozen teacher and the fake model. */
export function primingStep(p: PrimingConfig, adam: AdamConfig) {
  return (s: Trained, networks: Networks<'teacher' | 'fake'>, batch: Batch, at: PrimingInputs) => {
    const x0 = generate(p, { teacher: networks.teacher, generator: s.params }, batch, at);
    const { G, metrics } = distil(p, networks, stopGradient(x0), batch, at);
    const { state, norm, skipped } = update(s, vjp(x0, G.div(numel(x0.shape)), s.params), adam, at);
    return { ...state, metrics: { ...metrics, norm, skipped } };
  };
}

/** Flow matching of the fake model on what the generator makes: mean (v_φ(x_t'') - (ε'' - sg(x̂0)))². */
export function fakeLoss(
  p: PrimingConfig,
  networks: Networks<'teacher' | 'fake'>,
  { x0, eps }: { x0: Tensor; eps: Tensor },
  c: Condition,
  t: Time,
): Tensor {
  const net = assemble(p.fake, scored(networks), networks.fake);
  return mse(velocity(net, p.dit, noise(x0, eps, t.sigma), t, c), velocityOf(x0, eps));
}

/** One update of the fake model `s`. */
export function fakeStep(p: PrimingConfig, adam: AdamConfig) {
  return (
    s: Trained,
    networks: Networks<'teacher' | 'generator'>,
    batch: Batch,
    at: PrimingInputs,
  ): Trained & { metrics: Record<string, Tensor> } => {
    const x0 = stopGradient(generate(p, networks, batch, at));
    const eps = normal(at.key, x0.shape);
    const loss = fakeLoss(p, { ...networks, fake: s.params }, { x0, eps }, batch.c, at.score);
    const { state, norm, skipped } = update(s, vjp(loss, constant(1), s.params), adam, at);
    return { ...state, metrics: { fakeLoss: loss, fakeNorm: norm, fakeSkipped: skipped } };
  };
}

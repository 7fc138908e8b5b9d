/**
 * MeanFlow (Geng et al., "Mean flows for one-step generative modeling", NeurIPS 2025) as distillation: the generator learns the average
 * velocity of the teacher's flow from σ down to 0 (METHOD §1.12), so that one step goes all the way, x̂0 = x_σ - σ u.
 *
 *   σ u = ∫₀^σ v dσ'   hence   u = v - σ du/dσ,   du/dσ = ∂u/∂x v + ∂u/∂σ along the flow
 *
 * The derivative is a difference of two forwards without gradient, as FastGen has it for attention that has no forward mode.
 */
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { constant, normal, stopGradient } from '../../engine/frontend/functional.ts';
import { vjp } from '../../engine/frontend/autodiff.ts';
import type { DiTConfig } from '../../model/config.ts';
import type { Params } from '../../model/params.ts';
import { drawTimes, noise, perSample } from './flow.ts';
import { assemble, guidedVelocity, velocity, type Batch, type Form, type Time } from './networks.ts';
import { update, type AdamConfig, type Trained } from '../loop/optim.ts';
import { soloStage, type SoloInputs } from './solo.ts';
import type { Method, Numbers } from './stage.ts';

export interface MeanFlowConfig {
  dit: DiTConfig;
  student: Form;
  guidance: number;
  /** Added to a sample's square error in the weight that divides it. */
  floor: number;
}

/** σ, and the two beside it between which du/dσ is taken: a step above and below, inside [0, 1]. */
type MeanFlowInputs = SoloInputs<'t' | 'above' | 'below'>;

/** du/dσ at x_σ along v: (u(x_σ + (σ₊ - σ) v, σ₊) - u(x_σ - (σ - σ₋) v, σ₋)) / (σ₊ - σ₋). */
export function alongFlow(
  u: (x: Tensor, t: Time) => Tensor,
  { t, above, below }: MeanFlowInputs,
  x: Tensor,
  v: Tensor,
) {
  const beside = (s: Time): Tensor => u(x.add(v.mul(perSample(s.sigma.sub(t.sigma)))), s);
  return beside(above)
    .sub(beside(below))
    .div(perSample(above.sigma.sub(below.sigma)));
}

/** mean w (u - sg(v - σ du/dσ))², w = 1 / sg(mean over a sample + floor): every sample counts alike, as MeanFlow weighs them. */
export function meanFlowLoss(
  p: MeanFlowConfig,
  teacher: Params,
  own: Params,
  batch: Batch,
  at: MeanFlowInputs,
): { loss: Tensor; error: Tensor; derivative: Tensor } {
  const { x0, c } = batch;
  const x = noise(x0, normal(at.key, x0.shape), at.t.sigma);
  const v = guidedVelocity(teacher, p.dit, x, at.t, { c, guidance: p.guidance });
  const u = (z: Tensor, t: Time) => velocity(assemble(p.student, teacher, own), p.dit, z, t, c);
  const du = alongFlow(u, at, x, v);
  const target = stopGradient(v.sub(du.mul(perSample(at.t.sigma))));
  const error = u(x, at.t).sub(target).square().mean([1, 2, 3, 4], true);
  return {
    loss: error.div(stopGradient(error.add(p.floor))).mean(),
    error: error.mean(),
    derivative: du.square().mean().sqrt(),
  };
}

/** One update of the generator `s`. */
function meanFlowStep(p: MeanFlowConfig, adam: AdamConfig) {
  return (s: Trained, teacher: Params, batch: Batch, at: MeanFlowInputs) => {
    const { loss, error, derivative } = meanFlowLoss(p, teacher, s.params, batch, at);
    const { state, norm, skipped } = update(s, vjp(loss, constant(1), s.params), adam, at);
    return { ...state, metrics: { loss: error, derivative, norm, skipped } };
  };
}

const meanFlowConfigOf = ({ config: dit, student, baselines: { meanflow } }: Numbers): MeanFlowConfig => ({
  dit,
  student,
  guidance: meanflow.guidance,
  floor: meanflow.floor,
});

export const meanflow = {
  title: 'MeanFlow: the average velocity of the whole way, from the teacher',
  paper: 'arXiv 2505.13447',
  section: '§1.12',
  stages: [
    soloStage('meanflow', {
      settings: ({ baselines }) => baselines.meanflow,
      accumulates: 'baselines.meanflow.accumulate',
      kept: ({ priming: { steps }, baselines }) => ({ steps, meanflow: baselines.meanflow }),
      step: (s) => meanFlowStep(meanFlowConfigOf(s), s.baselines.meanflow.adam),
      precision: () => 'f32', // a difference that f16 would round away
      times: ['t', 'above', 'below'],
      sigmas({ baselines, seed }, at, size) {
        const { times, step } = baselines.meanflow;
        const t = Array.from(drawTimes(times, size, seed, at, 'meanflow.time').data);
        return {
          t,
          above: t.map((sigma) => Math.min(1, sigma + step)),
          below: t.map((sigma) => Math.max(0, sigma - step)),
        };
      },
    }),
  ],
} as const satisfies Method;

/**
 * Consistency distillation: the generator predicts one x0 along each of the teacher's trajectories (METHOD §1.12).
 *
 * Song et al., "Consistency models" (ICML 2023), in the form of FastVideo's causal_cd: x_σ of a training latent, one guided Euler step of
 * the teacher to the next level of a grid, and the generator's average there as target. It takes phase I's place, or stands alone.
 */
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { constant, mse, normal, stopGradient } from '../../engine/frontend/functional.ts';
import { vjp } from '../../engine/frontend/autodiff.ts';
import type { DiTConfig } from '../../model/config.ts';
import type { Params } from '../../model/params.ts';
import { schedule } from '../../model/schedulers/index.ts';
import { noise, perSample } from './flow.ts';
import { assemble, guidedVelocity, predictX0, type Batch, type Form, type Networks } from './networks.ts';
import { update, type AdamConfig, type Trained } from '../loop/optim.ts';
import { Stream } from '../loop/rng.ts';
import { soloStage, type SoloInputs } from './solo.ts';
import type { Method, Numbers } from './stage.ts';

export interface ConsistencyConfig {
  dit: DiTConfig;
  student: Form;
  guidance: number;
}

/** A level of the grid, and the one below it. */
type ConsistencyInputs = SoloInputs<'t' | 'next'>;

/** mean (f_θ(x_t) - sg f_θ⁻(x_t + (σ' - σ) v_real))²; at σ' = 0 the target is the point itself. */
export function consistencyLoss(
  p: ConsistencyConfig,
  { teacher, own, average }: Networks<'teacher' | 'own' | 'average'>,
  { x0: x, c }: Batch,
  at: ConsistencyInputs,
): Tensor {
  const xt = noise(x, normal(at.key, x.shape), at.t.sigma);
  const v = guidedVelocity(teacher, p.dit, xt, at.t, { c, guidance: p.guidance });
  const below = xt.add(v.mul(perSample(at.next.sigma.sub(at.t.sigma))));
  const target = predictX0(assemble(p.student, teacher, average), p.dit, below, at.next, c);
  return mse(predictX0(assemble(p.student, teacher, own), p.dit, xt, at.t, c), stopGradient(target));
}

/** One update of the generator `s`. */
function consistencyStep(p: ConsistencyConfig, adam: AdamConfig) {
  return (s: Trained, teacher: Params, batch: Batch, at: ConsistencyInputs) => {
    const loss = consistencyLoss(p, { teacher, own: s.params, average: s.ema! }, batch, at);
    const { state, norm, skipped } = update(s, vjp(loss, constant(1), s.params), adam, at);
    return { ...state, metrics: { loss, norm, skipped } };
  };
}

const configOf = ({ config: dit, student, baselines }: Numbers): ConsistencyConfig => ({
  dit,
  student,
  guidance: baselines.consistency.guidance,
});

export const trajectories = soloStage('consistency', {
  settings: ({ baselines }) => ({ accumulate: 1, ...baselines.consistency }),
  accumulates: 'baselines.consistency.accumulate',
  kept: ({ priming: { steps }, baselines }) => ({ steps, consistency: baselines.consistency }),
  step: (s) => consistencyStep(configOf(s), s.baselines.consistency.adam),
  precision: (p) => p.run.precision,
  times: ['t', 'next'],
  sigmas({ baselines, seed, teacher }, at, size) {
    const { grid } = baselines.consistency;
    const { sigmas } = schedule('euler', grid, teacher.sampler.shift);
    const random = new Stream(seed, at, 'consistency.level');
    const levels = Array.from({ length: size }, () => random.int(grid));
    return { t: levels.map((i) => sigmas[i]!), next: levels.map((i) => sigmas[i + 1]!) };
  },
});

export const consistency = {
  title: 'consistency distillation',
  paper: 'arXiv 2303.01469',
  section: '§1.12',
  stages: [trajectories],
} as const satisfies Method;

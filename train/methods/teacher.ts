/** The teacher: flow matching with condition dropout. L = mean (μ(x_σ, t, c) - (ε - x0))². */
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { constant, mse, normal } from '../../engine/frontend/functional.ts';
import { vjp } from '../../engine/frontend/autodiff.ts';
import type { DiTConfig } from '../../model/config.ts';
import { noise, velocityOf } from './flow.ts';
import { velocity, type Batch, type Time } from './networks.ts';
import { update, type AdamConfig, type Rates, type Trained } from '../loop/optim.ts';

interface TeacherInputs<X = Tensor> extends Rates<X> {
  /** u32[2] */
  key: X;
  t: Time<X>;
  /** Of shape [B]; 1 keeps the text, 0 drops it. */
  keep: X;
}

/** One flow-matching update of `s`. */
export function teacherStep(config: DiTConfig, adam: AdamConfig) {
  return (s: Trained, batch: Batch, at: TeacherInputs) => {
    const eps = normal(at.key, batch.x0.shape);
    const c = { ...batch.c, text: batch.c.text.mul(at.keep.reshape([-1, 1, 1])) };
    const v = velocity(s.params, config, noise(batch.x0, eps, at.t.sigma), at.t, c);
    const loss = mse(v, velocityOf(batch.x0, eps));
    const { state, norm, skipped } = update(s, vjp(loss, constant(1), s.params), adam, at);
    return { ...state, metrics: { loss, norm, skipped } };
  };
}

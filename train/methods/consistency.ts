/**
 * Consistency distillation: the generator predicts one x0 along each of the teacher's trajectories (METHOD §1.12).
 *
 * Song et al., "Consistency models" (ICML 2023), in the form of FastVideo's causal_cd: x_σ of a training latent, one guided Euler step of the
 * teacher to the next level of a grid, and the generator's average there as target. It takes phase I's place, or stands alone.
 */
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { constant, mse, normal, stopGradient } from '../../engine/frontend/functional.ts';
import { vjp } from '../../engine/frontend/autodiff.ts';
import { host } from '../../engine/frontend/tree.ts';
import type { DiTConfig } from '../../model/config.ts';
import { place } from '../../model/files/origin.ts';
import type { Params } from '../../model/params.ts';
import { schedule } from '../../model/schedulers/index.ts';
import { freeTree } from '../loop/checkpoint.ts';
import { conditioner, ditConfigOf } from './conditions.ts';
import { noise, perSample } from './flow.ts';
import { draws, start, studentOf, type StudentJob } from './jobs.ts';
import {
  assemble,
  guidedVelocity,
  ownFrom,
  ownShapes,
  predictX0,
  timeAt,
  type Batch,
  type Form,
  type Time,
} from './networks.ts';
import { update, warm, type AdamConfig, type Rates, type Trained } from '../loop/optim.ts';
import { Stream } from '../loop/rng.ts';
import type { Method, Numbers, Opening, Outline, Stage, Types } from './stage.ts';
import { compileStep } from '../loop/step.ts';

export interface ConsistencyConfig {
  dit: DiTConfig;
  student: Form;
  guidance: number;
}

export interface ConsistencyInputs<X = Tensor> extends Rates<X> {
  /** u32[2] */
  key: X;
  /** A level of the grid, and the one below it. */
  t: Time<X>;
  next: Time<X>;
}

/** mean (f_θ(x_t) - sg f_θ⁻(x_t + (σ' - σ) v_real))²; at σ' = 0 the target is the point itself. */
export function consistencyLoss(
  p: ConsistencyConfig,
  real: Params,
  own: Params,
  average: Params,
  { x0: x, c }: Batch,
  at: ConsistencyInputs,
): Tensor {
  const xt = noise(x, normal(at.key, x.shape), at.t.sigma);
  const v = guidedVelocity(real, p.dit, xt, at.t, c, p.guidance);
  const below = xt.add(v.mul(perSample(at.next.sigma.sub(at.t.sigma))));
  const target = predictX0(assemble(p.student, real, average), p.dit, below, at.next, c);
  return mse(predictX0(assemble(p.student, real, own), p.dit, xt, at.t, c), stopGradient(target));
}

/** One update of the generator `s`. */
export function consistencyStep(p: ConsistencyConfig, adam: AdamConfig) {
  return (s: Trained, real: Params, batch: Batch, at: ConsistencyInputs) => {
    const loss = consistencyLoss(p, real, s.params, s.ema!, batch, at);
    const { state, norm, skipped } = update(s, vjp(loss, constant(1), s.params), adam, at);
    return { ...state, metrics: { loss, norm, skipped } };
  };
}

async function consistencyJob({ device, course: p, shards, teacher }: Opening): Promise<StudentJob> {
  const {
    baselines: { consistency: o },
    seed,
    student,
  } = p;
  const dit = ditConfigOf(p);
  const { batch } = conditioner(p);
  const { sigmas } = schedule('euler', o.grid, p.teacher.sampler.shift);
  const real = await place(device, teacher, p.stored);
  const step = compileStep(device, 'consistency', consistencyStep({ dit, student, guidance: o.guidance }, o.adam), {
    precision: p.run.precision,
  });
  return {
    name: 'consistency',
    steps: p.phase1.steps,
    alone: 0,
    initial: async () => ({
      generator: await start(device, ownFrom(student, dit, teacher, seed), { m: o.adam.beta1 > 0, ema: true }),
    }),
    async advance(state, n, rate = 1) {
      const random = new Stream(seed, n, 'consistency.level');
      const levels = Array.from({ length: o.batch }, () => random.int(o.grid));
      const at = (below: number) =>
        timeAt(
          dit,
          host(
            levels.map((i) => sigmas[i + below]!),
            [o.batch],
          ),
        );
      const { state: generator, metrics } = await step(
        state['generator']!,
        real,
        batch(shards, seed, n, o.batch, 'consistency'),
        {
          key: draws(p).key(n, 'consistency'),
          t: at(0),
          next: at(1),
          lr: rate * warm(o.adam.lr, n, o.warmup),
          count: n + 1,
          decay: o.ema,
        },
      );
      return { state: { generator }, metrics };
    },
    teacher: real,
    student: (state) => studentOf(student, real, state),
    async close() {
      await step.free();
      freeTree(real);
    },
  };
}

function outline(s: Numbers, on: Types): Outline {
  const {
    baselines: { consistency: o },
    config: dit,
    student,
  } = s;
  const generator = on.trained(ownShapes(student, dit), o.adam, true);
  return {
    trains: { generator },
    drawn: student.mode === 'lora' ? [ownShapes(student, dit)] : [],
    programs: [
      {
        name: 'consistency',
        fn: consistencyStep({ dit, student, guidance: o.guidance }, o.adam),
        state: generator,
        frozen: [on.teacher],
        inputs: { key: on.key(), t: on.time(), next: on.time(), decay: on.scalar() },
        precision: s.run.precision,
      },
    ],
  };
}

/** For as many updates as phase I has. */
export const trajectories: Stage<'consistency'> = {
  name: 'consistency',
  budget: (p, steps) => ({ ...p, phase1: { ...p.phase1, steps } }),
  steps: (p) => p.phase1.steps,
  settings: ({ phase1: { steps }, baselines: { consistency: o } }) => ({ steps, consistency: o }),
  batching: ({ baselines }) => ({ batch: baselines.consistency.batch, accumulate: 1 }),
  open: consistencyJob,
  outline,
};

export const consistency = {
  title: 'consistency distillation',
  paper: 'arXiv 2303.01469',
  section: '§1.12',
  stages: [trajectories],
} as const satisfies Method;

/** A generator that learns from the frozen teacher alone, for as many updates as phase I has: consistency distillation, MeanFlow. */
import type { Feed } from '../../engine/runtime/compile.ts';
import type { TensorType } from '../../engine/frontend/graph.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import type { Params } from '../../model/params.ts';
import type { Precision } from '../../model/pipeline/precision.ts';
import { accumulated, microBatch, turns, type Batching } from '../loop/accumulate.ts';
import { freeTree } from '../loop/checkpoint.ts';
import { conditioner, numbersOf } from './conditions.ts';
import { draws, freeze, start, studentOf, type StudentJob } from './jobs.ts';
import { ownFrom, ownShapes, timeAt, type Batch, type Time } from './networks.ts';
import { warm, type AdamConfig, type Rates, type Trained } from '../loop/optim.ts';
import type { Course, Settings } from '../presets/index.ts';
import type { Numbers, Opening, Outline, Stage, Types } from './stage.ts';
import { compileStep } from '../loop/step.ts';

/** What an update is told: its key (u32[2]) and its times, by what they are for. */
export type SoloInputs<T extends string, X = Tensor> = Rates<X> & { key: X } & Record<T, Time<X>>;
type SoloStep<T extends string> = (
  s: Trained,
  teacher: Params,
  batch: Batch,
  at: SoloInputs<T>,
) => Trained & { metrics: Record<string, Tensor> };

interface Solo<T extends string> {
  settings: (p: Settings) => Batching & { warmup: number; adam: AdamConfig; ema: number };
  accumulates?: string;
  /** Of its stage, as a run's configuration has them. */
  kept: Stage['settings'];
  step: (s: Numbers) => SoloStep<T>;
  precision: (p: Settings) => Precision;
  times: readonly T[];
  /** σ of each of them for every clip of a micro-batch. */
  sigmas: (p: Course, at: number, size: number) => Record<T, readonly number[]>;
}

/** @param name of its stage, and of its draws */
export const soloStage = <Name extends string, T extends string>(name: Name, solo: Solo<T>): Stage<Name> => ({
  name,
  budget: (p, steps) => ({ ...p, priming: { ...p.priming, steps } }),
  steps: (p) => p.priming.steps,
  settings: solo.kept,
  tells: ['loss'],
  batching: solo.settings,
  ...(solo.accumulates && { accumulates: solo.accumulates }),
  open: (o) => soloJob(o, name, solo),
  outline: (s, on) => outline(s, on, name, solo),
});

async function soloJob<T extends string>(
  { device, course: p, shards, teacher, ranks }: Opening,
  name: string,
  solo: Solo<T>,
): Promise<StudentJob> {
  const { student, seed } = p;
  const o = solo.settings(p);
  const numbers = numbersOf(p);
  const { config: dit } = numbers;
  const { batch } = conditioner(p);
  const size = microBatch(o);
  const frozen = await freeze(device, teacher, p);
  const step = compileStep(device, name, solo.step(numbers), {
    accumulate: o.accumulate,
    precision: solo.precision(p),
    ranks,
  });
  const shared = ranks && { ranks, accumulate: o.accumulate };
  const timesAt = (at: number): Record<T, Time<HostTensor>> => {
    const sigmas = solo.sigmas(p, at, size);
    return Object.fromEntries(solo.times.map((t) => [t, timeAt(dit, host(sigmas[t], [size]))])) as ReturnType<
      typeof timesAt
    >;
  };
  return {
    name,
    steps: p.priming.steps,
    alone: 0,
    initial: async () => ({
      generator: await start(device, ownFrom(student, dit, teacher, seed), { m: o.adam.beta1 > 0, ema: true }),
    }),
    async advance(state, n, rate = 1) {
      const { state: generator, metrics } = await accumulated(
        state['generator']!,
        turns(o, n, ranks),
        (s, { at, rates }) =>
          step(s, frozen, batch(shards, seed, at, size, name), {
            key: draws(p).key(at, name),
            ...timesAt(at),
            lr: rate * warm(o.adam.lr, n, o.warmup),
            count: n + 1,
            decay: o.ema,
            ...rates,
          } as Feed<SoloInputs<T>>),
        shared,
      );
      return { state: { generator }, metrics };
    },
    teacher: frozen,
    student: (state) => studentOf(student, frozen, state['generator']!.ema!),
    async close() {
      await step.free();
      freeTree(frozen);
    },
  };
}

function outline<T extends string>(s: Numbers, on: Types, name: string, solo: Solo<T>): Outline {
  const { student, config } = s;
  const generator = on.trained(ownShapes(student, config), solo.settings(s).adam, true);
  const times: Record<string, Time<TensorType>> = Object.fromEntries(solo.times.map((t) => [t, on.time()]));
  return {
    trains: { generator },
    drawn: student.mode === 'lora' ? [ownShapes(student, config)] : [],
    programs: [
      {
        name,
        fn: solo.step(s),
        state: generator,
        frozen: [on.teacher],
        inputs: { key: on.key(), ...times, decay: on.scalar() },
        precision: solo.precision(s),
      },
    ],
  };
}

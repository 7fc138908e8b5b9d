/** The two phases of V-PAE as jobs: what each starts from, and what one step draws and updates. */
import type { Feed } from '../../engine/runtime/compile.ts';
import type { Device } from '../../engine/runtime/device.ts';
import { ema } from '../../engine/frontend/functional.ts';
import type { NDArray } from '../../engine/runtime/ndarray.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import type { HostTensor } from '../../engine/frontend/tree.ts';
import { place, type Origin } from '../../model/files/origin.ts';
import type { Params } from '../../model/params.ts';
import { accumulated, microBatch, turns } from '../loop/accumulate.ts';
import { freeTree, type State } from '../loop/checkpoint.ts';
import { conditioner, ditConfigOf, equilibriumConfigOf, primingConfigOf } from './conditions.ts';
import type { Shards } from '../data/shards.ts';
import {
  discriminatorStep,
  followStep,
  generatorStep,
  initDiscriminator,
  judgeStep,
  type EquilibriumConfig,
  type EquilibriumInputs,
} from './equilibrium.ts';
import { draws, start, type StudentJob } from './jobs.ts';
import { ownFrom, type Batch, type Form } from './networks.ts';
import { warm, type AdamConfig, type Trained } from '../loop/optim.ts';
import { buffersOf, packsOf } from '../loop/packs.ts';
import { joined, type Pending } from '../loop/pending.ts';
import type { Course } from '../presets/index.ts';
import { fakeStep, primingStep } from './priming.ts';
import { Rollout } from './rollout.ts';
import type { Weights } from './sample.ts';
import { compileStep, type StepOptions } from '../loop/step.ts';

/** A generator's average as a network that samples. */
export const studentOf = ({ mode }: Form, teacher: Record<string, NDArray>, { generator }: State): Weights =>
  mode === 'lora' ? { ...teacher, ...generator!.ema! } : generator!.ema!;

/** A generator and a fake model that follows it, and how each is updated. */
export interface Pair {
  name: string;
  /** First weights of the fake model. */
  fake: () => Origin;
  fakeStep: ReturnType<typeof fakeStep>;
  generatorStep: ReturnType<typeof primingStep>;
}

/** Phase I. */
export const primingJob = (device: Device, p: Course, shards: Shards, teacher: Origin): Promise<StudentJob> =>
  pairJob(device, p, shards, teacher, {
    name: 'phase1',
    fake: () => ownFrom(p.phase1.fake, ditConfigOf(p), teacher, p.seed),
    fakeStep: fakeStep(primingConfigOf(p), p.phase1.fake.adam),
    generatorStep: primingStep(primingConfigOf(p), p.phase1.generator.adam),
  });

/**
 * By phase I's numbers: the first `fake.warmup` steps update the fake model alone; each later one updates it `fake.updates` times and the
 * generator once.
 */
export async function pairJob(
  device: Device,
  p: Course,
  shards: Shards,
  teacher: Origin,
  pair: Pair,
): Promise<StudentJob> {
  const { phase1: o, seed, student } = p;
  const { generator, fake } = o;
  const { batch } = conditioner(p);
  const draw = draws(p);
  const real = await place(device, teacher, p.stored);
  const size = microBatch(o);
  const { precision } = p.run;
  const updateFake = compileStep(device, 'fake', pair.fakeStep, { accumulate: o.accumulate, precision });
  const updateGenerator = compileStep(device, pair.name, pair.generatorStep, { accumulate: o.accumulate, precision });
  const align = device.compile(
    (params: Record<string, Tensor>, to: Record<string, Tensor>) => ema(params, to, fake.ida),
    { donate: [0], name: 'ida' },
  );
  const rollout = student.steps > 1 ? new Rollout(device, p, size) : undefined;
  const inputs = async ({ params }: Trained<NDArray>, { c }: Batch<HostTensor>, n: number, role: string) => ({
    key: draw.key(n, role),
    score: draw.times(o.scoreTimes, size, n, `${role}.score`),
    ...((await rollout?.to(params, real, c, n, role)) ?? { t: draw.times(generator.times, size, n, `${role}.input`) }),
  });
  return {
    name: pair.name,
    steps: fake.warmup + o.steps,
    alone: fake.warmup,
    initial: async () => ({
      generator: await start(device, ownFrom(student, ditConfigOf(p), teacher, seed), {
        m: generator.adam.beta1 > 0,
        ema: true,
      }),
      fake: await start(device, pair.fake(), { m: fake.adam.beta1 > 0 }),
    }),
    async advance(state, n, rate = 1) {
      const turn = n - fake.warmup;
      const own = state['generator']!;
      let follower = state['fake']!;
      let metrics: Pending = Promise.resolve({});
      for (let r = 0; r < (turn < 0 ? 1 : fake.updates); r++) {
        const done = turn < 0 ? n : fake.warmup + turn * fake.updates + r;
        ({ state: follower, metrics } = await accumulated(follower, turns(o, done), async (s, { at, rates }) => {
          const b = batch(shards, seed, at, size, 'fake');
          return updateFake(s, real, own.params, b, {
            ...(await inputs(own, b, at, 'fake')),
            lr: rate * warm(fake.adam.lr, done, o.warmup),
            count: done + 1,
            ...rates,
          });
        }));
      }
      if (turn < 0) return { state: { generator: own, fake: follower }, metrics };
      const { params } = follower;
      const updated = await accumulated(own, turns(o, turn), async (s, { at, rates }) => {
        const b = batch(shards, seed, at, size, 'priming');
        return updateGenerator(s, real, params, b, {
          ...(await inputs(s, b, at, 'priming')),
          lr: rate * warm(generator.adam.lr, turn, o.warmup),
          count: turn + 1,
          decay: generator.ema,
          ...rates,
        });
      });
      if (fake.ida < 1)
        await align(buffersOf(params, packsOf(params)), buffersOf(updated.state.params, packsOf(params)));
      return { state: { generator: updated.state, fake: follower }, metrics: joined(metrics, updated.metrics) };
    },
    teacher: real,
    student: (state) => studentOf(student, real, state),
    async close() {
      await Promise.all([updateFake.free(), updateGenerator.free(), align.free(), rollout?.close()]);
      freeTree(real);
    },
  };
}

/** One update of the generator: one program or, with less memory, two. */
function generatorUpdate(device: Device, config: EquilibriumConfig, adam: AdamConfig, options: StepOptions) {
  if (!config.apart) return compileStep(device, 'equilibrium', generatorStep(config, adam), options);
  const judge = compileStep(device, 'judgement', judgeStep(config), { precision: options.precision });
  const follow = compileStep(device, 'equilibrium', followStep(config, adam), options);
  const update = async (
    s: Trained<NDArray>,
    psi: Feed<Params>,
    teacher: Feed<Params>,
    b: Feed<Batch>,
    at: Feed<EquilibriumInputs>,
  ) => {
    const seen = await judge({ params: {}, v: {} }, s.params, s.ema!, psi, teacher, b, at);
    const { state, metrics } = await follow(s, teacher, seen.state.params['cotangent']!, b, at);
    return { state, metrics: joined(seen.metrics, metrics) };
  };
  return Object.assign(update, {
    free: async () => {
      await judge.free();
      await follow.free();
    },
  });
}

/**
 * Phase II, from what phase I trained (its averaged weights, or adapters). The first `head.warmup` steps update the discriminator alone.
 */
export async function equilibriumJob(
  device: Device,
  p: Course,
  shards: Shards,
  teacher: Origin,
  primed: Origin,
): Promise<StudentJob> {
  const { phase2: o, seed, student } = p;
  const { generator, head } = o;
  const config = equilibriumConfigOf(p);
  const { batch } = conditioner(p);
  const draw = draws(p);
  const real = await place(device, teacher, p.stored);
  const size = microBatch(o);
  const updateHead = compileStep(device, 'discriminator', discriminatorStep(config, head.adam), {
    accumulate: o.accumulate,
  }); // STR1 looks at differences that f16 would round away
  const updateGenerator = generatorUpdate(device, config, generator.adam, {
    accumulate: o.accumulate,
    precision: p.run.precision,
  });
  const rollout = student.steps > 1 ? new Rollout(device, p, size) : undefined;
  /** What the generator is given: pure noise, which the step draws itself, or a state of its own sampling. */
  const inputs = async ({ params }: Trained<NDArray>, { c }: Batch<HostTensor>, n: number, role: string) => {
    const given = await rollout?.to(params, real, c, n, role);
    return { key: draw.key(n, role), ...(given ? { input: given.input, end: given.t } : { end: draw.at(1, size) }) };
  };
  return {
    name: 'phase2',
    steps: head.warmup + o.steps,
    alone: head.warmup,
    initial: async () => ({
      generator: await start(device, primed, { m: generator.adam.beta1 > 0, ema: true }),
      head: await start(device, initDiscriminator(config, teacher, seed), { m: head.adam.beta1 > 0 }),
    }),
    async advance(state, n, rate = 1) {
      const own = state['generator']!;
      // Both updates see the same clips, noise and times.
      const shared = turns(o, n).map(({ at, rates }) => ({
        at,
        b: batch(shards, seed, at, size, 'equilibrium'),
        given: {
          noiseKey: draw.key(at, 'equilibrium.pair'),
          t: draw.times(o.discriminatorTimes, size, at, 'equilibrium.time'),
          score: draw.times(o.scoreTimes, size, at, 'equilibrium.score'),
          ...rates,
        },
      }));
      const D = await accumulated(state['head']!, shared, async (s, { at, b, given }) =>
        updateHead(s, own.params, own.ema!, real, b, {
          ...given,
          ...(await inputs(own, b, at, 'discriminator')),
          lr: rate * warm(head.adam.lr, n, o.warmup),
          count: n + 1,
        }),
      );
      const turn = n - head.warmup;
      if (turn < 0) return { state: { generator: own, head: D.state }, metrics: D.metrics };
      const G = await accumulated(own, shared, async (s, { at, b, given }) =>
        updateGenerator(s, D.state.params, real, b, {
          ...given,
          ...(await inputs(s, b, at, 'generator')),
          lr: rate * warm(generator.adam.lr, turn, o.warmup),
          count: turn + 1,
          decay: generator.ema,
        }),
      );
      return { state: { generator: G.state, head: D.state }, metrics: joined(D.metrics, G.metrics) };
    },
    teacher: real,
    student: (state) => studentOf(student, real, state),
    async close() {
      await Promise.all([updateHead.free(), updateGenerator.free(), rollout?.close()]);
      freeTree(real);
    },
  };
}

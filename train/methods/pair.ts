/** A generator and a fake model that follows it, trained in turns: what score distillation and DMD2 have in common. */
import { ema } from '../../engine/frontend/functional.ts';
import type { NDArray } from '../../engine/runtime/ndarray.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import type { HostTensor } from '../../engine/frontend/tree.ts';
import { accumulated, microBatch, turns, type Turn } from '../loop/accumulate.ts';
import { conditioner, ditConfigOf, numbersOf } from './conditions.ts';
import { draws, start, type StudentJob } from './jobs.ts';
import { ownFrom, ownShapes, type Batch } from './networks.ts';
import { warm, type Trained } from '../loop/optim.ts';
import { buffersOf, packsOf } from '../loop/packs.ts';
import type { Expert } from '../../model/pipeline/diffuse.ts';
import { beginning, Teachers } from './experts.ts';
import { joined, type Pending } from '../loop/pending.ts';
import type { fakeStep, primingStep } from './priming.ts';
import { Rollout } from './rollout.ts';
import type { Numbers, Opening, Outline, Stage, Types } from './stage.ts';
import { compileStep } from '../loop/step.ts';

/** The fake model, and how both are updated. */
interface Pair {
  /** First weights of the fake model, and their shapes. */
  fake: <T>(teacher: Readonly<Record<string, T>>, seed: number) => Record<string, T | HostTensor>;
  shapes: Record<string, readonly number[]>;
  fakeStep: ReturnType<typeof fakeStep>;
  generatorStep: ReturnType<typeof primingStep>;
}

/** A stage by phase I's numbers: its times, rates and updates. */
export const pairStage = <Name extends string>(
  name: Name,
  settings: Stage['settings'],
  of: (s: Numbers) => Pair,
): Stage<Name> => ({
  name,
  budget: (p, steps) => ({ ...p, priming: { ...p.priming, steps } }),
  steps: ({ priming: { steps, fake } }) => fake.warmup + steps,
  settings,
  tells: ['gap', 'fakeLoss'],
  batching: ({ priming }) => priming,
  accumulates: 'priming.accumulate',
  hearsExperts: true,
  open: (o) => pairJob(o, name, of(numbersOf(o.course))),
  outline: (s, on) => outlineOf(s, on, name, of(s)),
});

function outlineOf(s: Numbers, on: Types, name: string, pair: Pair): Outline {
  const { priming: o, student, run } = s;
  const generator = on.trained(ownShapes(student, s.config), o.generator.adam, true);
  const fake = on.trained(pair.shapes, o.fake.adam);
  const inputs = { key: on.key(), t: on.time(), score: on.time() };
  const told = { teacher: on.teacher, ...(on.low && { real: on.low }) };
  const { precision } = run;
  return {
    trains: {
      generator,
      'fake model': fake,
      ...(on.low && { 'fake model, low noise': on.trained(pair.shapes, o.fake.adam) }),
    },
    drawn: [student, o.fake].filter((form) => form.mode === 'lora').map((form) => ownShapes(form, s.config)),
    programs: [
      {
        name: 'fake',
        calls: o.fake.updates,
        fn: pair.fakeStep,
        state: fake,
        frozen: [{ ...told, generator: generator.params }],
        inputs,
        precision,
      },
      {
        name,
        fn: pair.generatorStep,
        state: generator,
        frozen: [{ ...told, fake: fake.params }],
        inputs: { ...inputs, decay: on.scalar() },
        precision,
      },
    ],
  };
}

/** Name of the second fake model, where one student is scored by two experts. */
const LOW = 'fake, low noise';

/** The first `fake.warmup` steps update the fake model alone; each later one updates it `fake.updates` times and the generator once. */
async function pairJob(opening: Opening, name: string, pair: Pair): Promise<StudentJob> {
  const { device, course: p, shards, low, ranks } = opening;
  const begun = beginning(opening);
  const { priming: o, seed, student } = p;
  const { generator, fake } = o;
  const { batch } = conditioner(p);
  const draw = draws(p);
  if (low && fake.ida < 1)
    throw new Error('[distill] priming.fake.ida draws a fake model to its generator: of two experts leave it at 1');
  const teachers = await Teachers.freeze(device, opening);
  const size = microBatch(o);
  const { precision } = p.run;
  const options = { accumulate: o.accumulate, precision, ranks };
  const shared = ranks && { ranks, accumulate: o.accumulate };
  const updateFake = compileStep(device, 'fake', pair.fakeStep, options);
  const updateGenerator = compileStep(device, name, pair.generatorStep, options);
  const align = device.compile(
    (params: Record<string, Tensor>, to: Record<string, Tensor>) => ema(params, to, fake.ida),
    { donate: [0], name: 'ida' },
  );
  const follower = (expert: Expert | undefined): string => (expert === 'low' && !teachers.range ? LOW : 'fake');
  const rollout = student.steps > 1 ? new Rollout(device, p, size, teachers.range) : undefined;
  const inputs = async (
    { params }: Trained<NDArray>,
    { c }: Batch<HostTensor>,
    { n, role, expert }: { n: number; role: string; expert: Expert | undefined },
  ) => ({
    key: draw.key(n, role),
    score: draw.times(o.scoreTimes, size, n, `${role}.score`, expert),
    ...((await rollout?.to(teachers.playing(params), c, n, role)) ?? {
      t: draw.times(generator.times, size, n, `${role}.input`),
    }),
  });
  return {
    name,
    steps: fake.warmup + o.steps,
    alone: fake.warmup,
    initial: async () => ({
      generator: await start(device, ownFrom(student, ditConfigOf(p), begun, seed), {
        m: generator.adam.beta1 > 0,
        ema: true,
      }),
      fake: await start(device, pair.fake(begun, seed), { m: fake.adam.beta1 > 0 }),
      ...(low && !teachers.range && { [LOW]: await start(device, pair.fake(low, seed), { m: fake.adam.beta1 > 0 }) }),
    }),
    async advance(state, n, rate = 1) {
      const turn = n - fake.warmup;
      const own = state['generator']!;
      let followers = state;
      let metrics: Pending = Promise.resolve({});
      for (let r = 0; r < (turn < 0 ? 1 : fake.updates); r++) {
        const done = turn < 0 ? n : fake.warmup + turn * fake.updates + r;
        const expert = teachers.expertAt(o.scoreTimes, done, 'fake');
        const follow = async (s: Trained<NDArray>, { at, rates }: Turn) => {
          const b = batch(shards, seed, at, size, 'fake');
          return updateFake(s, { ...teachers.told(expert), generator: own.params }, b, {
            ...(await inputs(own, b, { n: at, role: 'fake', expert })),
            lr: rate * warm(fake.adam.lr, done, o.warmup),
            count: done + 1,
            ...rates,
          });
        };
        const from = followers[follower(expert)]!;
        const updated = await accumulated(from, turns(o, done, ranks), follow, shared);
        followers = { ...followers, [follower(expert)]: updated.state };
        metrics = updated.metrics;
      }
      if (turn < 0) return { state: followers, metrics };
      const expert = teachers.expertAt(o.scoreTimes, turn, 'priming');
      const { params } = followers[follower(expert)]!;
      const lead = async (s: Trained<NDArray>, { at, rates }: Turn) => {
        const b = batch(shards, seed, at, size, 'priming');
        return updateGenerator(s, { ...teachers.told(expert), fake: params }, b, {
          ...(await inputs(s, b, { n: at, role: 'priming', expert })),
          lr: rate * warm(generator.adam.lr, turn, o.warmup),
          count: turn + 1,
          decay: generator.ema,
          ...rates,
        });
      };
      const updated = await accumulated(own, turns(o, turn, ranks), lead, shared);
      if (fake.ida < 1)
        await align(buffersOf(params, packsOf(params)), buffersOf(updated.state.params, packsOf(params)));
      return { state: { ...followers, generator: updated.state }, metrics: joined(metrics, updated.metrics) };
    },
    teacher: teachers.sampled,
    student: (state) => teachers.student(state),
    async close() {
      await Promise.all([updateFake.free(), updateGenerator.free(), align.free(), rollout?.close()]);
      teachers.free();
    },
  };
}

/** A generator and a fake model that follows it, trained in turns: what score distillation and DMD2 have in common. */
import { ema } from '../../engine/frontend/functional.ts';
import type { NDArray } from '../../engine/runtime/ndarray.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import type { HostTensor } from '../../engine/frontend/tree.ts';
import { accumulated, microBatch, turns, type Turn } from '../loop/accumulate.ts';
import { freeTree } from '../loop/checkpoint.ts';
import { conditioner, ditConfigOf, numbersOf } from './conditions.ts';
import { draws, freeze, start, studentOf, type StudentJob } from './jobs.ts';
import { ownFrom, ownShapes, type Batch } from './networks.ts';
import { warm, type Trained } from '../loop/optim.ts';
import { buffersOf, packsOf } from '../loop/packs.ts';
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
  open: (o) => pairJob(o, name, of(numbersOf(o.course))),
  outline: (s, on) => outlineOf(s, on, name, of(s)),
});

function outlineOf(s: Numbers, on: Types, name: string, pair: Pair): Outline {
  const { priming: o, student, run } = s;
  const generator = on.trained(ownShapes(student, s.config), o.generator.adam, true);
  const fake = on.trained(pair.shapes, o.fake.adam);
  const inputs = { key: on.key(), t: on.time(), score: on.time() };
  const { precision } = run;
  return {
    trains: { generator, 'fake model': fake },
    drawn: [student, o.fake].filter((form) => form.mode === 'lora').map((form) => ownShapes(form, s.config)),
    programs: [
      {
        name: 'fake',
        calls: o.fake.updates,
        fn: pair.fakeStep,
        state: fake,
        frozen: [{ teacher: on.teacher, generator: generator.params }],
        inputs,
        precision,
      },
      {
        name,
        fn: pair.generatorStep,
        state: generator,
        frozen: [{ teacher: on.teacher, fake: fake.params }],
        inputs: { ...inputs, decay: on.scalar() },
        precision,
      },
    ],
  };
}

/** The first `fake.warmup` steps update the fake model alone; each later one updates it `fake.updates` times and the generator once. */
async function pairJob(
  { device, course: p, shards, teacher, ranks }: Opening,
  name: string,
  pair: Pair,
): Promise<StudentJob> {
  const { priming: o, seed, student } = p;
  const { generator, fake } = o;
  const { batch } = conditioner(p);
  const draw = draws(p);
  const frozen = await freeze(device, teacher, p);
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
  const rollout = student.steps > 1 ? new Rollout(device, p, size) : undefined;
  const inputs = async ({ params }: Trained<NDArray>, { c }: Batch<HostTensor>, n: number, role: string) => ({
    key: draw.key(n, role),
    score: draw.times(o.scoreTimes, size, n, `${role}.score`),
    ...((await rollout?.to({ teacher: frozen, generator: params }, c, n, role)) ?? {
      t: draw.times(generator.times, size, n, `${role}.input`),
    }),
  });
  return {
    name,
    steps: fake.warmup + o.steps,
    alone: fake.warmup,
    initial: async () => ({
      generator: await start(device, ownFrom(student, ditConfigOf(p), teacher, seed), {
        m: generator.adam.beta1 > 0,
        ema: true,
      }),
      fake: await start(device, pair.fake(teacher, seed), { m: fake.adam.beta1 > 0 }),
    }),
    async advance(state, n, rate = 1) {
      const turn = n - fake.warmup;
      const own = state['generator']!;
      let follower = state['fake']!;
      let metrics: Pending = Promise.resolve({});
      for (let r = 0; r < (turn < 0 ? 1 : fake.updates); r++) {
        const done = turn < 0 ? n : fake.warmup + turn * fake.updates + r;
        const follow = async (s: Trained<NDArray>, { at, rates }: Turn) => {
          const b = batch(shards, seed, at, size, 'fake');
          return updateFake(s, { teacher: frozen, generator: own.params }, b, {
            ...(await inputs(own, b, at, 'fake')),
            lr: rate * warm(fake.adam.lr, done, o.warmup),
            count: done + 1,
            ...rates,
          });
        };
        ({ state: follower, metrics } = await accumulated(follower, turns(o, done, ranks), follow, shared));
      }
      if (turn < 0) return { state: { generator: own, fake: follower }, metrics };
      const { params } = follower;
      const lead = async (s: Trained<NDArray>, { at, rates }: Turn) => {
        const b = batch(shards, seed, at, size, 'priming');
        return updateGenerator(s, { teacher: frozen, fake: params }, b, {
          ...(await inputs(s, b, at, 'priming')),
          lr: rate * warm(generator.adam.lr, turn, o.warmup),
          count: turn + 1,
          decay: generator.ema,
          ...rates,
        });
      };
      const updated = await accumulated(own, turns(o, turn, ranks), lead, shared);
      if (fake.ida < 1)
        await align(buffersOf(params, packsOf(params)), buffersOf(updated.state.params, packsOf(params)));
      return { state: { generator: updated.state, fake: follower }, metrics: joined(metrics, updated.metrics) };
    },
    teacher: frozen,
    student: (state) => studentOf(student, frozen, state),
    async close() {
      await Promise.all([updateFake.free(), updateGenerator.free(), align.free(), rollout?.close()]);
      freeTree(frozen);
    },
  };
}

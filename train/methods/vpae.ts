/**
 * V-PAE as a method: stability priming, then unified adversarial equilibrium (METHOD §1.5 to §1.10). Priming alone is score distillation.
 */
import type { Feed } from '../../engine/runtime/compile.ts';
import type { Device } from '../../engine/runtime/device.ts';
import type { NDArray } from '../../engine/runtime/ndarray.ts';
import type { HostTensor } from '../../engine/frontend/tree.ts';
import { headShapes } from '../../model/heads.ts';
import { accumulated, microBatch, turns } from '../loop/accumulate.ts';
import { conditioner, numbersOf } from './conditions.ts';
import {
  discriminatorShapes,
  discriminatorStep,
  equilibriumConfigOf,
  followStep,
  generatorStep,
  initDiscriminator,
  judgeStep,
  type EquilibriumConfig,
  type EquilibriumInputs,
} from './equilibrium.ts';
import { beginning, Teachers } from './experts.ts';
import { draws, start, type StudentJob } from './jobs.ts';
import { ownFrom, ownShapes, type Batch, type Networks } from './networks.ts';
import { warm, type AdamConfig, type Trained } from '../loop/optim.ts';
import { pairStage } from './pair.ts';
import { joined } from '../loop/pending.ts';
import { fakeStep, primingConfigOf, primingStep } from './priming.ts';
import { Rollout } from './rollout.ts';
import type { Method, Numbers, Opening, Outline, Stage, Types } from './stage.ts';
import { compileStep, type StepOptions } from '../loop/step.ts';

/** Phase I. */
export const priming = pairStage(
  'priming',
  ({ priming }) => ({ priming }),
  (s) => {
    const { fake, generator } = s.priming;
    return {
      fake: (teacher, seed) => ownFrom(fake, s.config, teacher, seed),
      shapes: ownShapes(fake, s.config),
      fakeStep: fakeStep(primingConfigOf(s), fake.adam),
      generatorStep: primingStep(primingConfigOf(s), generator.adam),
    };
  },
);

/** One update of the generator: one program or, with less memory, two. */
function generatorUpdate(device: Device, config: EquilibriumConfig, adam: AdamConfig, options: StepOptions) {
  if (!config.apart) return compileStep(device, 'equilibrium', generatorStep(config, adam), options);
  const judge = compileStep(device, 'judgement', judgeStep(config), { precision: options.precision });
  const follow = compileStep(device, 'equilibrium', followStep(config, adam), options);
  const update = async (
    s: Trained<NDArray>,
    { discriminator, ...teachers }: Feed<Networks<'discriminator' | 'teacher'>>,
    b: Feed<Batch>,
    at: Feed<EquilibriumInputs>,
  ) => {
    const seen = await judge(
      { params: {}, v: {} },
      { generator: s.params, ema: s.ema!, discriminator, ...teachers },
      b,
      at,
    );
    const { state, metrics, whole } = await follow(s, teachers.teacher, seen.state.params['cotangent']!, b, at);
    return { state, metrics: joined(seen.metrics, metrics), whole };
  };
  return Object.assign(update, {
    free: async () => {
      await judge.free();
      await follow.free();
    },
  });
}

/** The first `head.warmup` steps update the discriminator alone. */
async function equilibriumJob(opening: Opening): Promise<StudentJob> {
  const { device, course: p, shards, before, ranks } = opening;
  const begun = beginning(opening);
  const { equilibrium: o, seed, student } = p;
  const { generator, head } = o;
  const config = equilibriumConfigOf(numbersOf(p));
  const { batch } = conditioner(p);
  const draw = draws(p);
  const teachers = await Teachers.freeze(device, opening);
  const frozen = teachers.own;
  const size = microBatch(o);
  const options = { accumulate: o.accumulate, precision: p.run.precision, ranks };
  const updateHead = compileStep(device, 'discriminator', discriminatorStep(config, head.adam), options);
  const updateGenerator = generatorUpdate(device, config, generator.adam, options);
  const together = ranks && { ranks, accumulate: o.accumulate };
  const rollout = student.steps > 1 ? new Rollout(device, p, size, teachers.range) : undefined;
  /** What the generator is given: pure noise, which the step draws itself, or a state of its own sampling. */
  const inputs = async ({ params }: Trained<NDArray>, { c }: Batch<HostTensor>, n: number, role: string) => {
    const given = await rollout?.to(teachers.playing(params), c, n, role);
    return { key: draw.key(n, role), ...(given ? { input: given.input, end: given.t } : { end: draw.at(1, size) }) };
  };
  return {
    name: 'equilibrium',
    steps: head.warmup + o.steps,
    alone: head.warmup,
    initial: async () => ({
      generator: await start(device, before ?? ownFrom(student, config.dit, begun, seed), {
        m: generator.adam.beta1 > 0,
        ema: true,
      }),
      head: await start(device, initDiscriminator(config, begun, seed), { m: head.adam.beta1 > 0 }),
    }),
    async advance(state, n, rate = 1) {
      const own = state['generator']!;
      const expert = teachers.expertAt(o.scoreTimes, n, 'equilibrium');
      // Both updates see the same clips, noise and times.
      const shared = turns(o, n, ranks).map(({ at, rates }) => ({
        at,
        b: batch(shards, seed, at, size, 'equilibrium'),
        given: {
          noiseKey: draw.key(at, 'equilibrium.pair'),
          t: {
            ...draw.times(o.discriminatorTimes, size, at, 'equilibrium.time', teachers.range),
            ...(o.told === 'end' && { emb: draw.at(1, size).emb }),
          },
          score: draw.times(o.scoreTimes, size, at, 'equilibrium.score', expert),
          ...rates,
        },
      }));
      const D = await accumulated(
        state['head']!,
        shared,
        async (s, { at, b, given }) =>
          updateHead(s, { generator: own.params, ema: own.ema!, teacher: frozen }, b, {
            ...given,
            ...(await inputs(own, b, at, 'discriminator')),
            lr: rate * warm(head.adam.lr, n, o.warmup),
            count: n + 1,
          }),
        together,
      );
      const turn = n - head.warmup;
      if (turn < 0) return { state: { generator: own, head: D.state }, metrics: D.metrics };
      const G = await accumulated(
        own,
        shared,
        async (s, { at, b, given }) =>
          updateGenerator(s, { discriminator: D.state.params, ...teachers.told(expert) }, b, {
            ...given,
            ...(await inputs(s, b, at, 'generator')),
            lr: rate * warm(generator.adam.lr, turn, o.warmup),
            count: turn + 1,
            decay: generator.ema,
          }),
        together,
      );
      return { state: { generator: G.state, head: D.state }, metrics: joined(D.metrics, G.metrics) };
    },
    teacher: teachers.sampled,
    student: (state) => teachers.student(state),
    async close() {
      await Promise.all([updateHead.free(), updateGenerator.free(), rollout?.close()]);
      teachers.free();
    },
  };
}

function outline(s: Numbers, on: Types): Outline {
  const { equilibrium: o, student, run } = s;
  const { precision } = run;
  const config = equilibriumConfigOf(s);
  const generator = on.trained(ownShapes(student, s.config), o.generator.adam, true);
  const head = on.trained(discriminatorShapes(config), o.head.adam);
  const inputs = { key: on.key(), noiseKey: on.key(), end: on.time(), t: on.time(), score: on.time() };
  const decaying = { ...inputs, decay: on.scalar() };
  const { teacher, batch } = on;
  const real = on.low && { real: on.low };
  const averaged = { generator: generator.params, ema: generator.ema!, teacher };
  const update = { name: 'equilibrium', state: generator, inputs: decaying, precision };
  return {
    trains: { generator, discriminator: head },
    drawn: [headShapes(s.head), ...(student.mode === 'lora' ? [ownShapes(student, s.config)] : [])],
    programs: [
      {
        name: 'discriminator',
        fn: discriminatorStep(config, o.head.adam),
        state: head,
        frozen: [averaged],
        inputs,
        precision,
      },
      ...(o.apart
        ? [
            {
              name: 'judgement',
              fn: judgeStep(config),
              state: { params: {}, v: {} },
              frozen: [{ ...averaged, ...real, discriminator: head.params }],
              inputs: decaying,
              precision,
            },
            { ...update, fn: followStep(config, o.generator.adam), frozen: [teacher, batch.x0] },
          ]
        : [
            {
              ...update,
              fn: generatorStep(config, o.generator.adam),
              frozen: [{ discriminator: head.params, teacher, ...real }],
            },
          ]),
    ],
  };
}

/** Phase II; without a stage before it, it begins at the teacher. */
export const equilibrium: Stage<'equilibrium'> = {
  name: 'equilibrium',
  budget: (p, steps) => ({ ...p, equilibrium: { ...p.equilibrium, steps } }),
  steps: ({ equilibrium: { steps, head } }) => head.warmup + steps,
  settings: ({ equilibrium }) => ({ equilibrium }),
  tells: ['D', 'csds'],
  batching: ({ equilibrium: o }) => o,
  accumulates: 'equilibrium.accumulate',
  hearsExperts: true,
  open: equilibriumJob,
  outline,
};

export const vpae = {
  title: 'V-PAE: stability priming, then unified adversarial equilibrium',
  paper: 'arXiv 2508.21019',
  section: '§1.5',
  stages: [priming, equilibrium],
} as const satisfies Method;

export const vsd = {
  title: 'variational score distillation: stability priming alone',
  paper: 'arXiv 2305.16213; DMD, arXiv 2311.18828',
  section: '§1.5',
  stages: [priming],
} as const satisfies Method;

/** The four training jobs as the loop drives them: what each starts from, and what one step draws and updates. */
import type { Device } from '../engine/device.ts';
import { host, mapTree, type HostTensor } from '../engine/tree.ts';
import { numel } from '../kernels/kernel.ts';
import { initHead } from '../model/heads.ts';
import { initLora } from '../model/lora.ts';
import type { HostParams } from '../model/params.ts';
import { ditShapes, initDiT } from '../model/wan/dit.ts';
import { initVAE } from '../model/wan/vae.ts';
import { freeTree, toDevice, type State } from './checkpoint.ts';
import { conditioner, ditConfigOf, headConfigOf, stackRows, vaeConfigOf, videoShape } from './conditions.ts';
import { digits } from './data/digits.ts';
import type { Shards } from './data/shards.ts';
import { discriminatorStep, generatorStep, type EquilibriumConfig } from './equilibrium.ts';
import { drawTimes, type TimeLaw } from './flow.ts';
import type { Job } from './loop.ts';
import { timeAt, type Time } from './networks.ts';
import { cosine, emaDecay, warm, type Trained } from './optim.ts';
import type { Preset } from './presets/index.ts';
import { fakeStep, primingStep, type PrimingConfig } from './priming.ts';
import { key, Stream } from './rng.ts';
import { compileStep } from './step.ts';
import { teacherStep } from './teacher.ts';
import { vaeStep } from './vae.ts';

/** A job holds compiled programs and frozen networks until `close`. */
export type OpenJob = Job & { close(): Promise<void> };

const zeros = (p: HostParams): HostParams => mapTree((t: HostTensor) => host(new Float32Array(numel(t.shape)), t.shape), p);
const start = (params: HostParams, keep: { m?: boolean; ema?: boolean }): Trained<HostTensor> =>
  ({ params, v: zeros(params), ...(keep.m && { m: zeros(params) }), ...(keep.ema && { ema: params }) });

/** Reconstruction of the training clips. */
export function vaeJob(device: Device, p: Preset): OpenJob {
  const { trainVae: o, seed } = p;
  const { clip } = digits('train', seed, p.data);
  const step = compileStep(device, 'vae', vaeStep(vaeConfigOf(p), o, o.adam));
  return {
    name: 'vae',
    steps: o.steps,
    initial: async () => ({ vae: start(initVAE(vaeConfigOf(p), seed), { m: o.adam.beta1 > 0 }) }),
    async advance(state, n, rate = 1) {
      const video = stackRows(Array.from({ length: o.batch }, (_, i) => clip((n * o.batch + i) % p.data.trainClips).video), videoShape(p));
      const { state: vae, metrics } = await step(state['vae']!, video, { key: key(seed, n, 'vae'), lr: rate * cosine(o.adam.lr, n, o.warmup, o.steps), count: n + 1 });
      return { state: { vae }, metrics };
    },
    close: () => step.free(),
  };
}

/** Draws of one job, each named by its role. */
function draws(p: Preset) {
  const dit = ditConfigOf(p);
  return {
    times: (law: TimeLaw, n: number, step: number, role: string): Time<HostTensor> => timeAt(dit, drawTimes(law, n, p.seed, step, role)),
    at: (sigma: number, n: number): Time<HostTensor> => timeAt(dit, host(new Float32Array(n).fill(sigma), [n])),
    key: (step: number, role: string) => key(p.seed, step, role),
  };
}

/** Flow matching from scratch. */
export function teacherJob(device: Device, p: Preset, shards: Shards): OpenJob {
  const { teacher: o, seed } = p;
  const dit = ditConfigOf(p);
  const { batch } = conditioner(p);
  const draw = draws(p);
  const step = compileStep(device, 'teacher', teacherStep(dit, o.adam));
  return {
    name: 'teacher',
    steps: o.steps,
    initial: async () => ({ teacher: start(initDiT(dit, seed), { m: o.adam.beta1 > 0, ema: true }) }),
    async advance(state, n, rate = 1) {
      const coin = new Stream(seed, n, 'teacher.drop');
      const { state: teacher, metrics } = await step(state['teacher']!, batch(shards, seed, n, o.batch, 'teacher'), {
        key: draw.key(n, 'teacher'), t: draw.times(o.times, o.batch, n, 'teacher.time'),
        keep: host(Float32Array.from({ length: o.batch }, () => (coin.uniform() < o.textDrop ? 0 : 1)), [o.batch]),
        lr: rate * cosine(o.adam.lr, n, o.warmup, o.steps), count: n + 1, decay: emaDecay(o.ema, n),
      });
      return { state: { teacher }, metrics };
    },
    close: () => step.free(),
  };
}

/** Phase I. The first `fake.warmup` steps update the fake model alone; each later one updates it `fake.updates` times and the generator once. */
export function primingJob(device: Device, p: Preset, shards: Shards, teacher: HostParams): OpenJob {
  const { phase1: o, seed } = p;
  const { generator, fake } = o;
  const dit = ditConfigOf(p);
  const config: PrimingConfig = { dit, guidance: o.guidance, wmin: o.wmin, loraScale: fake.alpha / fake.rank };
  const { batch } = conditioner(p);
  const draw = draws(p);
  const real = toDevice(device, teacher);
  const updateFake = compileStep(device, 'fake', fakeStep(config, fake.adam));
  const updateGenerator = compileStep(device, 'priming', primingStep(config, generator.adam));
  const inputs = (n: number, role: string) => ({
    key: draw.key(n, role), t: draw.times(generator.times, o.batch, n, `${role}.input`), score: draw.times(o.scoreTimes, o.batch, n, `${role}.score`),
  });
  return {
    name: 'phase1',
    steps: fake.warmup + o.steps,
    initial: async () => ({
      generator: start(teacher, { m: generator.adam.beta1 > 0, ema: true }),
      fake: start(initLora(ditShapes(dit), fake.rank, seed), { m: fake.adam.beta1 > 0 }),
    }),
    async advance(state, n, rate = 1) {
      const turn = n - fake.warmup;
      let current: State = state;
      let metrics = {};
      for (let r = 0; r < (turn < 0 ? 1 : fake.updates); r++) {
        const done = turn < 0 ? n : fake.warmup + turn * fake.updates + r;
        const b = batch(shards, seed, done, o.batch, 'fake');
        const result = await updateFake(current['fake']!, real, current['generator']!.params, b, { ...inputs(done, 'fake'), lr: rate * warm(fake.adam.lr, done, o.warmup), count: done + 1 });
        current = { ...current, fake: result.state };
        metrics = result.metrics;
      }
      if (turn < 0) return { state: current, metrics };
      const result = await updateGenerator(current['generator']!, real, current['fake']!.params, batch(shards, seed, turn, o.batch, 'priming'), {
        ...inputs(turn, 'priming'), lr: rate * warm(generator.adam.lr, turn, o.warmup), count: turn + 1, decay: generator.ema,
      });
      return { state: { ...current, generator: result.state }, metrics: { ...metrics, ...result.metrics } };
    },
    async close() {
      await Promise.all([updateFake.free(), updateGenerator.free()]);
      freeTree(real);
    },
  };
}

/** Phase II, from phase I's averaged weights. The first `head.warmup` steps update the head alone. */
export function equilibriumJob(device: Device, p: Preset, shards: Shards, teacher: HostParams, primed: HostParams): OpenJob {
  const { phase2: o, seed } = p;
  const { generator, head } = o;
  const config: EquilibriumConfig = { dit: ditConfigOf(p), head: headConfigOf(p), taps: o.taps, lambda: o.lambda, guidance: o.guidance, str1: o.str1 };
  const { batch } = conditioner(p);
  const draw = draws(p);
  const real = toDevice(device, teacher);
  const updateHead = compileStep(device, 'discriminator', discriminatorStep(config, head.adam));
  const updateGenerator = compileStep(device, 'equilibrium', generatorStep(config, generator.adam));
  return {
    name: 'phase2',
    steps: head.warmup + o.steps,
    initial: async () => ({
      generator: start(primed, { m: generator.adam.beta1 > 0, ema: true }),
      head: start(initHead(headConfigOf(p), seed), { m: head.adam.beta1 > 0 }),
    }),
    async advance(state, n, rate = 1) {
      const { params, ema } = state['generator']!;
      const b = batch(shards, seed, n, o.batch, 'equilibrium');
      const shared = {
        noiseKey: draw.key(n, 'equilibrium.pair'), end: draw.at(1, o.batch),
        t: draw.times(o.discriminatorTimes, o.batch, n, 'equilibrium.time'), score: draw.times(o.scoreTimes, o.batch, n, 'equilibrium.score'),
      };
      const D = await updateHead(state['head']!, params, ema!, b, { ...shared, key: draw.key(n, 'discriminator'), lr: rate * warm(head.adam.lr, n, o.warmup), count: n + 1 });
      const turn = n - head.warmup;
      const next: State = { ...state, head: D.state };
      if (turn < 0) return { state: next, metrics: D.metrics };
      const G = await updateGenerator(state['generator']!, D.state.params, real, b, {
        ...shared, key: draw.key(n, 'generator'), lr: rate * warm(generator.adam.lr, turn, o.warmup), count: turn + 1, decay: generator.ema,
      });
      return { state: { ...next, generator: G.state }, metrics: { ...D.metrics, ...G.metrics } };
    },
    async close() {
      await Promise.all([updateHead.free(), updateGenerator.free()]);
      freeTree(real);
    },
  };
}

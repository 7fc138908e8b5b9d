/** A preset's training steps on made-up data: what `plan` counts and `bench` times. */
import type { Device } from '../engine/device.ts';
import type { Plan } from '../engine/plan.ts';
import { flatten, host, type HostTensor } from '../engine/tree.ts';
import { numel } from '../kernels/kernel.ts';
import type { HostParams } from '../model/params.ts';
import { initDiT } from '../model/wan/dit.ts';
import { initVAE } from '../model/wan/vae.ts';
import { conditioner, ditConfigOf, equilibriumConfigOf, latentShape, primingConfigOf, vaeConfigOf, videoShape } from '../train/conditions.ts';
import { DIRECTIONS, captionOf } from '../train/data/digits.ts';
import type { Shards } from '../train/data/shards.ts';
import { discriminatorStep, generatorStep, initDiscriminator } from '../train/equilibrium.ts';
import { ownFrom, timeAt } from '../train/networks.ts';
import type { AdamConfig, Trained } from '../train/optim.ts';
import type { Preset } from '../train/presets/index.ts';
import { fakeStep, primingStep } from '../train/priming.ts';
import { key, Stream } from '../train/rng.ts';
import { compileStep } from '../train/step.ts';
import { teacherStep } from '../train/teacher.ts';
import { vaeStep } from '../train/vae.ts';

/** Standard normals. */
export function noise(shape: readonly number[], seed = 0): HostTensor {
  const random = new Stream(seed, 0, 'noise');
  return host(Float32Array.from({ length: numel(shape) }, () => random.normal()), shape);
}

const caption = (i: number): string => captionOf(i % 10, DIRECTIONS[i % 8]!);

/** Latents of noise in place of a data set. */
export function noiseShards(p: Preset): Shards {
  const records = (numbers: ArrayLike<number>) => ({
    latent: noise([numbers.length, ...latentShape(p)], 1), imageLatent: noise([numbers.length, ...latentShape(p)], 2),
    firstFrame: noise([numbers.length, p.vae.channels, p.data.size, p.data.size], 3),
    captions: Array.from(numbers, caption), meta: [],
  });
  return { count: p.data.trainClips, made: 'noise', records, batch: (_seed, step, size) => records(Array.from({ length: size }, (_, i) => step + i)) };
}

/** One step's cost. `state` is what is trained and what is frozen, in bytes. */
export interface StepPlan { name: string; batch: number; state: number; plan: Plan }

const bytesOf = (tree: unknown): number => flatten<HostTensor>(tree).leaves.reduce((sum, t) => sum + 4 * numel(t.shape), 0);

/** Plans every training step of a preset; nothing is run. */
export async function planSteps(device: Device, p: Preset): Promise<StepPlan[]> {
  const dit = ditConfigOf(p);
  const { fake, generator } = p.phase1;
  const { head } = p.phase2;
  const [priming, equilibrium] = [primingConfigOf(p), equilibriumConfigOf(p)];
  const real = initDiT(dit, p.seed);
  const student = ownFrom(p.student, dit, real, p.seed);
  const follower = ownFrom(fake, dit, real, p.seed);
  const psi = initDiscriminator(equilibrium, real, p.seed);
  const batch = (n: number) => conditioner(p).batch(noiseShards(p), 0, 0, n, 'plan');
  const state = (params: HostParams, adam: AdamConfig, ema = false): Trained<HostTensor> =>
    ({ params, v: params, ...(adam.beta1 > 0 && { m: params }), ...(ema && { ema: params }) });
  const time = (n: number) => timeAt(dit, host(new Float32Array(n).fill(0.5), [n]));
  const random = key(0, 0, 'plan');
  /** What any of the steps reads. */
  const at = (n: number) => ({ key: random, noiseKey: random, lr: 0, count: 1, decay: 0, end: time(n), t: time(n), score: time(n), keep: host(new Float32Array(n), [n]) });

  const plans: StepPlan[] = [];
  /**
   * @param fn (state, ...frozen networks, batch, times and rates) → the next state and its metrics
   * @param data the batch; conditions and latents unless given
   */
  const add = async (name: string, size: number, fn: unknown, trained: Trained<HostTensor>, frozen: readonly HostParams[], data: unknown = batch(size)) => {
    const step = compileStep(device, name, fn as Parameters<typeof compileStep>[2]);
    const plan = await step.plan(trained as never, ...frozen, data, at(size)) as Plan;
    await step.free();
    plans.push({ name, batch: size, state: bytesOf([trained, frozen]), plan });
  };
  const { teacher, trainVae, phase1, phase2 } = p;
  await add('vae', trainVae.batch, vaeStep(vaeConfigOf(p), trainVae, trainVae.adam),
    state(initVAE(vaeConfigOf(p), p.seed), trainVae.adam), [], noise([trainVae.batch, ...videoShape(p)]));
  await add('teacher', teacher.batch, teacherStep(dit, teacher.adam), state(real, teacher.adam, true), []);
  await add('fake model', phase1.batch, fakeStep(priming, fake.adam), state(follower, fake.adam), [real, student]);
  await add('priming', phase1.batch, primingStep(priming, generator.adam), state(student, generator.adam, true), [real, follower]);
  await add('discriminator', phase2.batch, discriminatorStep(equilibrium, head.adam), state(psi, head.adam), [student, student, real]);
  await add('equilibrium', phase2.batch, generatorStep(equilibrium, phase2.generator.adam), state(student, phase2.generator.adam, true), [psi, real]);
  return plans;
}

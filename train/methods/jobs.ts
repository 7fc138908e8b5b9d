/** The jobs that train VAE and teacher, and what every job is made of: first states, draws, the preset's times. */
import type { Device } from '../../engine/runtime/device.ts';
import type { NDArray } from '../../engine/runtime/ndarray.ts';
import { host, mapTree, type HostTensor } from '../../engine/frontend/tree.ts';
import { place, placeAround, type Origin } from '../../model/files/origin.ts';
import type { HostParams } from '../../model/params.ts';
import { initDiT } from '../../model/wan/dit.ts';
import { initVAE } from '../../model/wan/vae.ts';
import { localVAE } from '../../model/wan/vaestart.ts';
import { accumulated, microBatch, turns, type Turn } from '../loop/accumulate.ts';
import type { State } from '../loop/checkpoint.ts';
import { conditioner, ditConfigOf, stackRows, vaeConfigOf, videoShape } from './conditions.ts';
import { initCritic } from './critic.ts';
import { clipsOf } from '../data/sets.ts';
import { crop } from '../data/crops.ts';
import type { Shards } from '../data/shards.ts';
import { checkShare } from '../ranks/cut.ts';
import type { Expert } from '../../model/pipeline/diffuse.ts';
import { drawTime, type TimeLaw } from './flow.ts';
import type { Job } from '../loop/loop.ts';
import { timeAt, type Form, type Time } from './networks.ts';
import { cosine, emaDecay, type Trained } from '../loop/optim.ts';
import { moved, packsOf, views } from '../loop/packs.ts';
import type { Course, Preset } from '../presets/index.ts';
import type { Ranks } from '../ranks/ranks.ts';
import { key, Stream } from '../loop/rng.ts';
import type { Sampled, Weights } from './sample.ts';
import { compileStep } from '../loop/step.ts';
import { teacherStep } from './teacher.ts';
import { vaeStep } from './vae.ts';

/** A job holds compiled programs and frozen networks until `close`. */
export type OpenJob = Job & { close(): Promise<void> };
/** A job that makes a student. */
export type StudentJob = OpenJob & {
  /** Steps at the start that leave the generator as it is. */
  alone: number;
  teacher: Sampled;
  /** What samples: the generator's average. */
  student: (state: State) => Sampled;
};

/** What a generator trains, or its average, as a network that samples. */
export const studentOf = ({ mode }: Form, teacher: Weights, own: Weights): Weights =>
  mode === 'lora' ? { ...teacher, ...own } : own;

/** A frozen network: all of it on the device, or its blocks in host memory. */
export const freeze = (device: Device, origin: Origin, { stored, run }: Course): Promise<Weights> =>
  (run.offload ? placeAround : place)(device, origin, stored);

/** Weights with zeroed moments, in packs; `ema` begins at them. */
export async function start(
  device: Device,
  first: Origin,
  keep: { m?: boolean; ema?: boolean },
): Promise<Trained<NDArray>> {
  const alone = await place(device, first);
  const packs = packsOf(alone);
  const weights = moved(device, alone, packs);
  const like = (make: (t: NDArray) => NDArray) => views(mapTree(make, weights), packs);
  const zeros = (t: NDArray) => device.zeros(t.shape);
  return {
    params: like((t) => t),
    v: like(zeros),
    ...(keep.m && { m: like(zeros) }),
    ...(keep.ema && { ema: like((t) => t.keep()) }),
  };
}

/** Single frames that are drawn from each clip: to compose one costs what training on several of its frames does. */
const STILLS = 4;

/** Reconstruction of the training clips: first of single frames of them, where asked, as Wan2.1's VAE began (arXiv 2503.20314). */
export function vaeJob(device: Device, p: Preset, ranks?: Ranks): OpenJob {
  const { seed } = p;
  const o = { accumulate: 1, ...p.trainVae };
  checkShare('vae', o, ranks);
  const { crops } = o;
  if (crops && crops.stills.batch % o.accumulate)
    throw new Error(
      `[vae] trainVae.crops.stills.batch ${crops.stills.batch} does not go into ${o.accumulate} micro-batches`,
    );
  const clip = clipsOf(p, 'train');
  const shape = videoShape(p);
  const step = compileStep(device, 'vae', vaeStep(vaeConfigOf(p), o, o.adam), { accumulate: o.accumulate, ranks });
  const batch = (n: number, at: number): HostTensor => {
    const still = crops !== undefined && n < crops.stills.steps;
    const count = microBatch({ ...o, ...(still && crops.stills) });
    const first = at * count;
    const numbers = Array.from({ length: count }, (_, i) => Math.floor((first + i) / (still ? STILLS : 1)));
    const videos = new Map([...new Set(numbers)].map((i) => [i, clip(i % p.data.trainClips).video]));
    const rows = numbers.map((i) => videos.get(i)!);
    if (!crops) return stackRows(rows, shape);
    const { size } = crops;
    const random = new Stream(seed, at, 'vae.crops');
    const cut = rows.map((video) => crop(video, shape, { size, still }, random));
    return stackRows(cut, [shape[0], still ? 1 : shape[1], size, size]);
  };
  return {
    name: 'vae',
    steps: o.steps,
    async initial() {
      const vae = (o.local ? localVAE : initVAE)(vaeConfigOf(p), seed);
      const first = o.critic ? { ...vae, ...initCritic(p.vae.channels, seed) } : vae;
      return { vae: await start(device, first, { m: o.adam.beta1 > 0 }) };
    },
    async advance(state, n, rate = 1) {
      const update = (s: Trained<NDArray>, { at, rates }: Turn) =>
        step(s, batch(n, at), {
          key: key(seed, at, 'vae'),
          lr: rate * cosine(o.adam.lr, n, o.warmup, o.steps),
          count: n + 1,
          ...(o.critic && { critic: n < o.critic.from ? 0 : o.critic.weight }),
          ...rates,
        });
      const { state: vae, metrics } = await accumulated(
        state['vae']!,
        turns(o, n, ranks),
        update,
        ranks && { ranks, accumulate: o.accumulate },
      );
      return { state: { vae }, metrics };
    },
    close: () => step.free(),
  };
}

/** Draws of one job, each named by its role. */
export function draws(p: Course) {
  const dit = ditConfigOf(p);
  return {
    /** @param expert of two, within whose range they are drawn */
    times: (law: TimeLaw, n: number, step: number, role: string, expert?: Expert): Time<HostTensor> => {
      const random = new Stream(p.seed, step, role);
      const draw = (): number => {
        const sigma = drawTime(law, random);
        return expert && sigma < p.experts!.boundary !== (expert === 'low') ? draw() : sigma;
      };
      return timeAt(dit, host(Float32Array.from({ length: n }, draw), [n]));
    },
    at: (sigma: number, n: number): Time<HostTensor> => timeAt(dit, host(new Float32Array(n).fill(sigma), [n])),
    key: (step: number, role: string) => key(p.seed, step, role),
  };
}

/**
 * Flow matching, from scratch or from a model.
 * @param more `from`: weights to begin at, and the steps that made them: draws go on behind those, so that nothing is seen twice
 * `expert`: of two, whose range of times is trained
 */
export function teacherJob(
  device: Device,
  p: Preset,
  shards: Shards,
  {
    from,
    ranks,
    expert,
  }: {
    from?: { params: HostParams; steps: number } | undefined;
    ranks?: Ranks | undefined;
    expert?: Expert | undefined;
  } = {},
): OpenJob {
  const { teacher: o, seed } = p;
  checkShare('teacher', o, ranks);
  const dit = ditConfigOf(p);
  const { batch } = conditioner(p);
  const draw = draws(p);
  const step = compileStep(device, 'teacher', teacherStep(dit, o.adam), {
    accumulate: o.accumulate,
    precision: p.run.precision,
    ranks,
  });
  const size = microBatch(o);
  return {
    name: expert === 'low' ? 'teacher-low' : 'teacher',
    steps: o.steps,
    initial: async () => ({
      teacher: await start(device, from?.params ?? initDiT(dit, seed), { m: o.adam.beta1 > 0, ema: true }),
    }),
    async advance(state, n, rate = 1) {
      const { state: teacher, metrics } = await accumulated(
        state['teacher']!,
        turns(o, n + (from?.steps ?? 0), ranks),
        (s, { at, rates }) => {
          const coin = new Stream(seed, at, 'teacher.drop');
          return step(s, batch(shards, seed, at, size, 'teacher'), {
            key: draw.key(at, 'teacher'),
            t: draw.times(o.times, size, at, 'teacher.time', expert),
            keep: host(
              Float32Array.from({ length: size }, () => (coin.uniform() < o.textDrop ? 0 : 1)),
              [size],
            ),
            lr: rate * cosine(o.adam.lr, n, o.warmup, o.steps),
            count: n + 1,
            decay: emaDecay(o.ema, n),
            ...rates,
          });
        },
        ranks && { ranks, accumulate: o.accumulate },
      );
      return { state: { teacher }, metrics };
    },
    close: () => step.free(),
  };
}

/**
 * Prompts to clips: text, image, diffusion, decoding, one stage after another for all jobs. Every part of a model is read, used and
 * freed before the next, so that the largest alone decides the memory.
 */
import type { Ranges } from '../../engine/compiler/ranges.ts';
import type { Device } from '../../engine/runtime/device.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import type { NDArray } from '../../engine/runtime/ndarray.ts';
import type { DiTConfig, VAEConfig } from '../config.ts';
import type { Family } from '../families/index.ts';
import { StreamingVAE } from '../wan/vaestream.ts';
import { Diffusion, evaluationsOf, isGuided, spans, type Expert, type Sampling, type Underway } from './diffuse.ts';
import type { Network } from './forward.ts';
import { encodeGiven } from './given.ts';
import { checkFinite, type Precision } from './precision.ts';
import { latentShape, type Size } from './size.ts';

/** Told of what is under way and how far it is. What it throws ends the work. */
export type Progress = (stage: string, unit: string, done: number, total: number) => void;

type DeviceWeights = Readonly<Record<string, NDArray>>;

/** A model of any kind, as its folder gives it: its numbers, and each of its parts when it is asked for. */
export interface VideoModel {
  readonly dit: DiTConfig;
  readonly vae: VAEConfig;
  /** The size that a clip of `area` has which begins with `image`, in multiples of `step`; each edge rounded down unless given. */
  readonly sizeLike?: Family['sizeLike'];
  /** Texts → [text_len, text_dim] each, zero past the text. Whatever this loads is freed when it returns. */
  encodeText(device: Device, texts: readonly string[], progress: Progress): Promise<HostTensor[]>;
  /** Tokens of each text; past `dit.text_len` they are cut off. Of models whose texts may be that long. */
  countTokens?(texts: readonly string[]): Promise<number[]>;
  /** Pictures [channels, H, W] in [-1, 1], of any size, → [I, clip_dim] each. Image-to-video only. */
  encodeImages?(device: Device, pictures: readonly HostTensor[], progress: Progress): Promise<HostTensor[]>;
  /** The VAE's half; its caller frees it. */
  loadVAE(device: Device, half: 'encoder' | 'decoder', progress: Progress): Promise<DeviceWeights>;
  /** The DiT, or one of two experts; its caller frees it, once or more often. */
  loadDiT(device: Device, progress: Progress, expert?: Expert): Promise<Network>;
}

const HALVES = { encoder: /^(encoder|conv1)\./, decoder: /^(decoder|conv2)\./ };
/** Of a VAE's parameters those that one direction needs. */
export const halfOf = <T>(params: Readonly<Record<string, T>>, half: keyof typeof HALVES): Record<string, T> =>
  Object.fromEntries(Object.entries(params).filter(([name]) => HALVES[half].test(name)));

/** One clip to make. */
export interface Job {
  prompt: string;
  negative: string;
  /** The frames that the model is given, first and last, [channels, H, W] in [-1, 1], of any size; brought to `size`. */
  pictures: readonly HostTensor[];
  size: Size;
  /** 1 more than a multiple of the VAE's stride. */
  frames: number;
  seed: number;
}

/** Where a job's clip goes: chunks [channels, t, H, W] in [-1, 1], in order. */
interface ClipSink {
  add(chunk: HostTensor): Promise<void>;
  end(): Promise<void>;
  abort(): Promise<void>;
}

interface GenerateOptions {
  sampling: Sampling;
  /** Of the DiT's operands; f32 unless given. */
  precision?: Precision | undefined;
  /** Edge of the VAE's tiles in pixels; unless given, as few as fit. */
  tile?: number | undefined;
  progress: Progress;
  /** Called when a job's first frames are about to come. */
  sink: (job: number) => Promise<ClipSink>;
}

export interface Made {
  /** Of diffusion, seconds. */ seconds: number;
  /** Forwards of the DiT. */ evaluations: number;
  /** Runs of its programs that were given numbers which are infinite in f16, whatever became of them. */ overflowed: number;
}

export const freeAll = (weights: DeviceWeights): void => Object.values(weights).forEach((t) => t.free());

/**
 * Makes every job's clip, in order.
 * @throws what a part or a sink throws, and where a latent is not finite; clips that were finished stay
 */
export async function generate(
  device: Device,
  model: VideoModel,
  jobs: readonly Job[],
  { sampling, precision = 'f32', tile, progress, sink }: GenerateOptions,
): Promise<Made> {
  const texts = await encodeTexts(device, model, jobs, isGuided(sampling), progress);
  const given = await encodeGiven(device, model, jobs, tile, progress);
  let decoder: DeviceWeights = {};
  let net: Network | undefined;
  const runs: Promise<Ranges>[] = [];
  let overflowed = 0;
  const diffusion = new Diffusion(device, model.dit, {
    operands: precision,
    onRanges(found) {
      runs.push(found);
      found.catch(() => {}); // told when it is awaited
    },
  });
  const shapeOf = (job: Job) => latentShape(model.vae, job.size, job.frames);
  const under: (Underway | undefined)[] = [];
  const legs = spans(sampling);
  const total = jobs.length * sampling.steps;
  let [seconds, done] = [0, 0];
  try {
    // One network is on the device at a time: every clip is brought to where the next one takes over.
    for (const [leg, span] of legs.entries()) {
      net = await model.loadDiT(device, progress, span.expert);
      for (const [i, job] of jobs.entries()) {
        const input = {
          shape: shapeOf(job),
          seeds: [job.seed],
          text: alone(texts.get(job.prompt)!),
          negative: alone(texts.get(job.negative) ?? texts.get(job.prompt)!),
          ...given[i],
        };
        const onStep = () => progress('diffusion', 'steps', ++done, total);
        const way = (under[i] = await diffusion.advance(net, input, sampling, { span, under: under[i], onStep }));
        if (leg + 1 < legs.length) continue;
        under[i] = undefined;
        const latent = host(await way.state.x.read(), shapeOf(job));
        freeState(way);
        for (const found of await Promise.all(runs.splice(0))) overflowed += Number(found.overflowed > 0);
        checkFinite(latent, { precision, prompt: job.prompt, outOfRange: device.outOfRange });
        seconds += way.seconds;
        await diffusion.close();
        if (i === jobs.length - 1) await net.free();
        if (i === 0) decoder = await model.loadVAE(device, 'decoder', progress);
        await decodeTo(await sink(i), new StreamingVAE(device, model.vae, decoder), latent, tile, progress);
      }
      if (leg + 1 === legs.length) continue;
      await diffusion.close();
      await net.free();
    }
  } finally {
    under.forEach((way) => way && freeState(way));
    await diffusion.close();
    await net?.free();
    freeAll(decoder);
  }
  return { seconds, evaluations: evaluationsOf(sampling), overflowed };
}

const freeState = ({ state }: Underway): void => Object.values(state).forEach((t: NDArray) => t.free());

/** As a batch of one. */
const alone = (t: HostTensor): HostTensor => ({ ...t, shape: [1, ...t.shape] });

/** Every text that is asked for, once. */
async function encodeTexts(
  device: Device,
  model: VideoModel,
  jobs: readonly Job[],
  guided: boolean,
  progress: Progress,
): Promise<Map<string, HostTensor>> {
  const texts = [...new Set(jobs.flatMap((j) => (guided ? [j.prompt, j.negative] : [j.prompt])))];
  const encoded = await model.encodeText(device, texts, progress);
  return new Map(texts.map((text, i) => [text, encoded[i]!]));
}

/** Frees `vae`. */
async function decodeTo(
  clip: ClipSink,
  vae: StreamingVAE,
  latent: HostTensor,
  tile: number | undefined,
  progress: Progress,
): Promise<void> {
  try {
    for await (const chunk of vae.decode(latent, {
      tile,
      onProgress: (done, total) => progress('decoding', 'chunks', done, total),
    }))
      await clip.add(chunk);
    await clip.end();
  } catch (error) {
    await clip.abort();
    throw error;
  } finally {
    vae.free();
  }
}

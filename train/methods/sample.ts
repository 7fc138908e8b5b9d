/**
 * Requests to clips in batches: the codec around the VAE, and how teachers and students are sampled. The sampling itself is `Diffusion`.
 */
import type { CompiledFunction } from '../../engine/runtime/compile.ts';
import type { Device } from '../../engine/runtime/device.ts';
import type { NDArray } from '../../engine/runtime/ndarray.ts';
import type { Streamed } from '../../engine/runtime/streamed.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { numel } from '../../kernels/kernel.ts';
import { givenFrames, vaeStride, type DiTConfig, type VAEConfig } from '../../model/config.ts';
import type { HostParams, Params } from '../../model/params.ts';
import { TRAIN_TIMESTEPS } from '../../model/schedulers/index.ts';
import {
  Diffusion,
  evaluationsOf,
  type DiffusionInput,
  type Expert,
  type Sampling,
} from '../../model/pipeline/diffuse.ts';
import { networkOf } from '../../model/pipeline/forward.ts';
import { withMask } from '../../model/pipeline/given.ts';
import { decode, denormalise, encode, latentStats, normalise, type LatentStats } from '../../model/wan/vae.ts';
import { microBatch } from '../loop/accumulate.ts';
import { freeTree, toDevice } from '../loop/checkpoint.ts';
import { conditioner, ditConfigOf, latentShape, stackRows, vaeConfigOf, videoShape } from './conditions.ts';
import { loadDiT, type Model } from '../loop/models.ts';
import { pictures, type Condition } from './networks.ts';
import type { Course, Preset } from '../presets/index.ts';

/** Weights that sample, on a device or brought to it; adapters lie beside what they are added to, as `Network` says. */
export type Weights = Readonly<Record<string, NDArray | Streamed>>;
/** One network, or two experts, each for its range of noise. */
export type Sampled = Weights | Readonly<Record<Expert, Weights>>;

const areTwo = (net: Sampled): net is Readonly<Record<Expert, Weights>> => 'high' in net && 'low' in net;

/** The VAE on a device: pixels in [-1, 1] ↔ normalised latents. */
export class Codec {
  private readonly params: Record<string, NDArray>;
  private readonly stats: LatentStats<NDArray>;
  private readonly encoder: CompiledFunction<[Params, LatentStats<Tensor>, Tensor], Tensor>;
  private readonly decoder: CompiledFunction<[Params, LatentStats<Tensor>, Tensor], Tensor>;

  constructor(device: Device, config: VAEConfig, params: HostParams) {
    this.params = toDevice(device, params) as Record<string, NDArray>;
    this.stats = toDevice(device, latentStats(config));
    this.encoder = device.compile(
      (p: Params, s: LatentStats<Tensor>, video: Tensor) => normalise(encode(p, config, video).mean, s),
      { name: 'encode' },
    );
    this.decoder = device.compile(
      (p: Params, s: LatentStats<Tensor>, z: Tensor) => decode(p, config, denormalise(z, s)),
      { name: 'decode' },
    );
  }

  /** [B,channels,T,H,W] → [B,C,F,h,w]. */
  async encode(video: HostTensor): Promise<HostTensor> {
    const z = await this.encoder(this.params, this.stats, video);
    return host(await z.read(), z.shape);
  }

  /** [B,C,F,h,w] → one clip [channels,T,H,W] a sample, clamped to [-1, 1]. */
  async decode(latent: NDArray): Promise<Float32Array[]> {
    const video = await this.decoder(this.params, this.stats, latent);
    const size = video.size / video.shape[0]!;
    const pixels = (await video.read()).map((v) => Math.min(1, Math.max(-1, v)));
    return Array.from({ length: video.shape[0]! }, (_, i) => pixels.slice(i * size, (i + 1) * size));
  }

  async close(): Promise<void> {
    await Promise.all([this.encoder.free(), this.decoder.free()]);
    freeTree([this.params, this.stats]);
  }
}

/** One clip to make. `seed` decides its noise, whatever stands beside it in the batch. */
export interface Request {
  caption: string;
  /** [channels,height,width] in [-1,1] */ frame: Float32Array;
  seed: number;
}

/** How a sampler's requests become conditions, and its latents clips. */
export interface Ends<R> {
  condition(group: readonly R[]): Promise<Condition<HostTensor>>;
  /** [B,C,F,h,w] → one clip [channels,T,H,W] a sample in [-1, 1]. */
  decode(latent: NDArray): Promise<Float32Array[]>;
}

/** Captions and first frames, through a preset's VAE. */
export const endsOf = (p: Preset, codec: Codec): Ends<Request> => ({
  decode: (latent) => codec.decode(latent),
  async condition(group) {
    const captions = group.map((r) => r.caption);
    if (p.dit.model_type === 't2v') return conditioner(p).condition(captions);
    const [channels, frames, height, width] = videoShape(p);
    const plane = height * width;
    const stills = group.map(({ frame }) => {
      const video = new Float32Array(channels * frames * plane);
      for (let c = 0; c < channels; c++) video.set(frame.subarray(c * plane, (c + 1) * plane), c * frames * plane);
      return video;
    });
    const latent = await codec.encode(stackRows(stills, videoShape(p)));
    return conditioner(p).condition(
      captions,
      stackRows(
        group.map((r) => r.frame),
        [channels, height, width],
      ),
      latent,
    );
  },
});

export interface Samples {
  /** [channels,T,H,W] each. */
  videos: Float32Array[];
  /** Forwards of the network for one clip. */
  evaluations: number;
  /** Diffusion time for all clips, without compiling, encoding and decoding. */
  seconds: number;
}

export const teacherSampler = (p: Preset): Sampling => ({
  kind: 'euler',
  ...p.teacher.sampler,
  ...(p.experts && { low: { below: TRAIN_TIMESTEPS * p.experts.boundary, guidance: p.teacher.sampler.guidance } }),
});
/** Few-step levels are shifted by 5 (METHOD §1.13); one step starts at 1 whatever the shift. */
export const studentSampler = (steps = 1): Sampling => ({ kind: 'renoise', steps, shift: 5, guidance: 1 });

/** Whether each of two experts gets a student, for its range of noise: one that answers in one step sees pure noise alone. */
export const teachesTwo = ({ experts, student }: Pick<Course, 'experts' | 'student'>): boolean =>
  experts !== undefined && student.steps > 1;

/** A course's students in the steps that they are trained for. */
export const studentsSampler = (p: Pick<Course, 'experts' | 'student'>): Sampling => ({
  ...studentSampler(p.student.steps),
  ...(teachesTwo(p) && { low: { below: TRAIN_TIMESTEPS * p.experts!.boundary, guidance: 1 } }),
});

/** As a model is meant to be sampled: a teacher by its preset, a student in the steps it was trained for. */
export const samplerOf = ({ kind, about: { preset } }: Pick<Model<DiTConfig>, 'kind' | 'about'>): Sampling =>
  kind === 'teacher' ? teacherSampler(preset) : studentsSampler(preset);

/** Of a model of two networks, whose file this is, that for low noise: it lies beside it. @throws one line where it does not */
export function loadLow({ kind, path, about: { preset } }: Model<DiTConfig>): Promise<Model<DiTConfig> | undefined> {
  const two = kind === 'teacher' ? preset.experts !== undefined : teachesTwo(preset);
  return two ? loadDiT(path.replace(/(?=\.safetensors$)/, '.low')) : Promise.resolve(undefined);
}

/** Clips that are sampled together: real videos are large, and go as they are trained on. */
export const batchOf = ({ data, priming }: Course): number => (data.set === 'videos' ? microBatch(priming) : 32);

export interface SampleOptions {
  batch?: number | undefined;
  onProgress?: ((done: number, count: number) => void) | undefined;
  signal?: AbortSignal | undefined;
}

/**
 * Samples with any weights of a course's network. `R` is what one clip is asked for
 * by; its seed decides its noise, whatever stands beside it.
 */
export class Sampler<R extends { seed: number } = Request> {
  private readonly device: Device;
  private readonly course: Course;
  private readonly ends: Ends<R>;
  private readonly diffusion: Diffusion;
  private readonly tokens: CompiledFunction<[Tensor], Tensor>;
  private readonly warm = new Set<string>();

  constructor(device: Device, course: Course, ends: Ends<R>) {
    this.device = device;
    this.course = course;
    this.ends = ends;
    this.diffusion = new Diffusion(device, ditConfigOf(course), {
      adapterScale: course.student.alpha / course.student.rank,
    });
    this.tokens = device.compile(pictures, { name: 'picture tokens' });
  }

  /** Clips for requests, in their order, `batch` at a time. */
  async sample(
    net: Sampled,
    requests: readonly R[],
    sampling: Sampling,
    { batch = batchOf(this.course), onProgress, signal }: SampleOptions = {},
  ): Promise<Samples> {
    const { kind, steps, guidance } = sampling;
    const size = Math.min(batch, requests.length);
    const network = areTwo(net) ? { high: networkOf(net.high), low: networkOf(net.low) } : networkOf(net);
    const videos: Float32Array[] = [];
    let seconds = 0;
    for (let first = 0; first < requests.length; first += size) {
      const group = Array.from({ length: size }, (_, i) => requests[Math.min(first + i, requests.length - 1)]!); // the last is padded
      const input = await this.inputFor(group);
      const run = (how: Sampling, onStep?: (done: number) => void) => this.diffusion.run(network, input, how, onStep);
      const signature = `${kind} ${guidance} ${size}`;
      if (!this.warm.has(signature)) {
        // the first run compiles: off the clock
        (await run({ ...sampling, steps: 1 })).latent.free();
        this.warm.add(signature);
      }
      const told = (done: number): void => {
        signal?.throwIfAborted();
        onProgress?.(Math.min(first + (size * done) / steps, requests.length), requests.length);
      };
      const made = await run(sampling, this.device.info.kind === 'software' ? told : undefined); // a GPU would lose time by waiting for each step
      told(steps);
      seconds += made.seconds;
      videos.push(...(await this.ends.decode(made.latent)).slice(0, requests.length - first));
      made.latent.free();
    }
    return { videos, evaluations: evaluationsOf(sampling), seconds };
  }

  /** What the network is told of a group; the unguided branch loses the text only, as in training. */
  private async inputFor(group: readonly R[]): Promise<DiffusionInput> {
    const { text, frame, latent, first, pictures: given } = await this.ends.condition(group);
    const imageTokens = given ?? (frame && (await this.patches(frame)));
    return {
      shape: latentShape(this.course),
      seeds: group.map((r) => r.seed),
      text,
      negative: host(new Float32Array(numel(text.shape)), text.shape),
      imageTokens,
      beside: latent && withMask(latent, vaeStride(vaeConfigOf(this.course))[0], givenFrames(this.course.dit)),
      first,
    };
  }

  private async patches(frame: HostTensor): Promise<HostTensor> {
    const tokens = await this.tokens(frame);
    return host(await tokens.read(), tokens.shape);
  }

  async close(): Promise<void> {
    await Promise.all([this.diffusion.close(), this.tokens.free()]);
  }
}

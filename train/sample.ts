/** From captions and first frames to clips: the codec around the VAE, the teacher's Euler sampler, the student's one-step and few-step sampler. */
import { compile, type CompiledFunction } from '../engine/compile.ts';
import type { Device } from '../engine/device.ts';
import type { NDArray } from '../engine/ndarray.ts';
import type { Tensor } from '../engine/tensor.ts';
import { host, type HostTensor } from '../engine/tree.ts';
import { numel } from '../kernels/kernel.ts';
import type { DiTConfig, VAEConfig } from '../model/config.ts';
import { withLora } from '../model/lora.ts';
import type { HostParams, Params } from '../model/params.ts';
import { schedule } from '../model/schedulers/index.ts';
import { decode, denormalise, encode, latentStats, normalise, type LatentStats } from '../model/wan/vae.ts';
import { freeTree, toDevice } from './checkpoint.ts';
import { conditioner, ditConfigOf, latentShape, stackRows, videoShape } from './conditions.ts';
import { noise } from './flow.ts';
import type { Model } from './models.ts';
import { guidedVelocity, predictX0, timeAt, type Condition, type Net, type Time } from './networks.ts';
import type { Preset } from './presets/index.ts';
import { Stream } from './rng.ts';

/** Weights that sample: a network's own, or the teacher's with adapters. */
export type Weights = Record<string, NDArray> | Adapted<NDArray, number>;
interface Adapted<X = Tensor, S = X> { base: Readonly<Record<string, X>>; lora: Readonly<Record<string, X>>; scale: S }

const isAdapted = (net: Params | Adapted): net is Adapted => 'lora' in net;
const netOf = (net: Params | Adapted): Net => (isAdapted(net) ? withLora(net.base, net.lora, net.scale) : net);

/** The VAE on a device: pixels in [-1, 1] ↔ normalised latents. */
export class Codec {
  private readonly params: Record<string, NDArray>;
  private readonly stats: LatentStats<NDArray>;
  private readonly encoder: CompiledFunction<[Params, LatentStats<Tensor>, Tensor], Tensor>;
  private readonly decoder: CompiledFunction<[Params, LatentStats<Tensor>, Tensor], Tensor>;

  constructor(device: Device, config: VAEConfig, params: HostParams) {
    this.params = toDevice(device, params) as Record<string, NDArray>;
    this.stats = toDevice(device, latentStats(config));
    this.encoder = compile(device, (p: Params, s: LatentStats<Tensor>, video: Tensor) => normalise(encode(p, config, video).mean, s), { name: 'encode' });
    this.decoder = compile(device, (p: Params, s: LatentStats<Tensor>, z: Tensor) => decode(p, config, denormalise(z, s)), { name: 'decode' });
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
export interface Request { caption: string; /** [channels,height,width] in [-1,1] */ frame: Float32Array; seed: number }

/**
 * - `euler`: steps along the velocity, guided: the teacher's, 2 evaluations a step;
 * - `renoise`: x0 at each level, noised afresh to the next: the student's; one step is x̂0 = ε - v (METHOD §1.13).
 */
export interface SamplerSettings { kind: 'euler' | 'renoise'; steps: number; shift: number; guidance: number }

export interface Samples {
  /** [channels,T,H,W] each. */
  videos: Float32Array[];
  /** Forwards of the network for one clip. */
  evaluations: number;
  /** Diffusion time for all clips, without compiling, encoding and decoding. */
  seconds: number;
}

export const teacherSampler = (p: Preset): SamplerSettings => ({ kind: 'euler', ...p.teacher.sampler });
/** Few-step levels are shifted by 5 (METHOD §1.13); one step starts at 1 whatever the shift. */
export const studentSampler = (steps = 1): SamplerSettings => ({ kind: 'renoise', steps, shift: 5, guidance: 1 });

/** As a model is meant to be sampled: a teacher by its preset, a student in the steps it was trained for. */
export const samplerOf = ({ kind, about: { preset } }: Pick<Model<DiTConfig>, 'kind' | 'about'>): SamplerSettings =>
  (kind === 'teacher' ? teacherSampler(preset) : studentSampler(preset.student.steps));

interface Move { x: Tensor }
type Program = CompiledFunction<[Move, Params | Adapted, Time, Condition, { next: Tensor; eps: Tensor }], Move>;

/** Samples with any weights of a preset's network. */
export class Sampler {
  private readonly device: Device;
  private readonly preset: Preset;
  private readonly codec: Codec;
  private readonly programs = new Map<string, Program>();
  private readonly warm = new Set<string>();

  constructor(device: Device, preset: Preset, codec: Codec) {
    this.device = device;
    this.preset = preset;
    this.codec = codec;
  }

  /** x at σ → x at the next level. At σ = 0 and for Euler eps has no weight. */
  private program({ kind, guidance }: SamplerSettings): Program {
    const name = `${kind} ${guidance}`;
    const known = this.programs.get(name);
    if (known) return known;
    const dit = ditConfigOf(this.preset);
    const made: Program = compile(this.device, ({ x }: Move, weights: Params | Adapted, t: Time, c: Condition, { next, eps }: { next: Tensor; eps: Tensor }) => {
      const net = netOf(weights);
      if (kind === 'renoise') return { x: noise(predictX0(net, dit, x, t, c), eps, next) };
      const step = next.sub(t.sigma).reshape([-1, 1, 1, 1, 1]);
      return { x: x.add(guidedVelocity(net, dit, x, t, c, guidance).mul(step)) };
    }, { donate: [0], name: `sample ${name}` });
    this.programs.set(name, made);
    return made;
  }

  /** Clips for requests, in their order, `batch` at a time. */
  async sample(net: Weights, requests: readonly Request[], settings: SamplerSettings, { batch = 32, onProgress, signal }: { batch?: number | undefined; onProgress?: ((done: number, count: number) => void) | undefined; signal?: AbortSignal | undefined } = {}): Promise<Samples> {
    const { kind, steps, shift, guidance } = settings;
    const { sigmas } = schedule('euler', steps, shift);
    const size = Math.min(batch, requests.length);
    const dit = ditConfigOf(this.preset);
    const videos: Float32Array[] = [];
    let seconds = 0;
    for (let first = 0; first < requests.length; first += size) {
      const group = Array.from({ length: size }, (_, i) => requests[Math.min(first + i, requests.length - 1)]!); // the last is padded
      const c = toDevice(this.device, await this.condition(group)) as Condition<NDArray>;
      const at = (sigma: number) => host(new Float32Array(size).fill(sigma), [size]);
      let x: NDArray = toDevice(this.device, this.noise(group, 'start')) as NDArray;
      const none = x.keep(); // stands where no noise is read
      const move = async (i: number) => {
        const fresh = kind === 'renoise' && i + 1 < steps ? toDevice(this.device, this.noise(group, `level ${i + 1}`)) as NDArray : undefined;
        ({ x } = await this.program(settings)({ x }, net, timeAt(dit, at(sigmas[i]!)), c, { next: at(sigmas[i + 1]!), eps: fresh ?? none }));
        fresh?.free();
      };
      const signature = `${kind} ${guidance} ${size}`;
      if (!this.warm.has(signature)) { // the first run compiles: off the clock
        const kept = x.keep();
        await move(0);
        x.free();
        x = kept;
        this.warm.add(signature);
      }
      await this.device.idle();
      const start = performance.now();
      for (let i = 0; i < steps; i++) {
        await move(i);
        if (this.device.info.kind === 'software') await this.device.idle(); // so that progress is what is done; on a GPU it would cost time
        signal?.throwIfAborted();
        onProgress?.(Math.min(first + (size * (i + 1)) / steps, requests.length), requests.length);
      }
      await this.device.idle();
      seconds += (performance.now() - start) / 1000;
      videos.push(...(await this.codec.decode(x)).slice(0, requests.length - first));
      freeTree([x, none, c]);
    }
    return { videos, evaluations: steps * (kind === 'euler' && guidance !== 1 ? 2 : 1), seconds };
  }

  private async condition(group: readonly Request[]): Promise<Condition<HostTensor>> {
    const captions = group.map((r) => r.caption);
    if (this.preset.dit.model_type === 't2v') return conditioner(this.preset).condition(captions);
    const [channels, frames, height, width] = videoShape(this.preset);
    const plane = height * width;
    const stills = group.map(({ frame }) => {
      const video = new Float32Array(channels * frames * plane);
      for (let c = 0; c < channels; c++) video.set(frame.subarray(c * plane, (c + 1) * plane), c * frames * plane);
      return video;
    });
    const latent = await this.codec.encode(stackRows(stills, videoShape(this.preset)));
    return conditioner(this.preset).condition(captions, stackRows(group.map((r) => r.frame), [channels, height, width]), latent);
  }

  /** Standard normals of each request's own. */
  private noise(group: readonly Request[], role: string): HostTensor {
    const shape = latentShape(this.preset);
    return stackRows(group.map(({ seed }) => {
      const stream = new Stream(seed, 0, `sample ${role}`);
      return Float32Array.from({ length: numel(shape) }, () => stream.normal());
    }), shape);
  }

  async close(): Promise<void> {
    for (const p of this.programs.values()) await p.free();
    this.programs.clear();
  }
}

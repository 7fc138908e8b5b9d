/**
 * The VAE on a device for clips of any length: frames go through in chunks that hand on a cache, so that memory does not grow with
 * the clip; where a whole frame is too much, tiles of it go through one after another.
 */
import type { CompiledFunction } from '../../engine/runtime/compile.ts';
import type { Device } from '../../engine/runtime/device.ts';
import { EngineError } from '../../engine/host/errors.ts';
import { typeOf } from '../../engine/frontend/graph.ts';
import type { NDArray } from '../../engine/runtime/ndarray.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { trace } from '../../engine/frontend/trace.ts';
import { host, mapTree, type HostTensor } from '../../engine/frontend/tree.ts';
import { numel } from '../../kernels/kernel.ts';
import { vaeStride, type VAEConfig } from '../config.ts';
import type { Params } from '../params.ts';
import { blend, cut, layTiles, type Tile } from './tiles.ts';
import { decode, denormalise, encode, latentStats, normalise, type LatentStats } from './vae.ts';
import { Cache } from './vaelayers.ts';

/** Edges of the tiles that are tried, in pixels, when a whole frame does not fit. */
const EDGES = [512, 256, 128];

type Weights = Readonly<Record<string, NDArray>>;
type Memory = { cache: Record<string, Tensor> };
/** One chunk [1,C,t,h,w] → one chunk. */
type Coder = (params: Params, stats: LatentStats<Tensor>, x: Tensor, cache: Cache) => Tensor;
/** Pixels to normalised latents, or back. */
export const coderOf = (config: VAEConfig, half: 'encoder' | 'decoder'): Coder =>
  half === 'encoder'
    ? (p, s, x, cache) => normalise(encode(p, config, x, { cache }).mean, s)
    : (p, s, x, cache) => decode(p, config, denormalise(x, s), { cache });
type Program = CompiledFunction<[Memory, Params, LatentStats<Tensor>, Tensor], Memory & { y: Tensor }>;

interface StreamOptions {
  /** Edge of square tiles in pixels, a multiple of the VAE's stride; unless given, the largest that fits, whole frames if they do. */
  tile?: number | undefined;
  /** Told after every chunk of every tile. What it throws ends the work. */
  onProgress?: ((done: number, total: number) => void) | undefined;
}

/** Two programs: one for a clip's first chunk, one for every other. The cache is written in place. */
class Chunks {
  private readonly device: Device;
  private readonly coder: Coder;
  private readonly params: Weights;
  private readonly stats: LatentStats<NDArray>;
  private readonly first: Program;
  private readonly next: Program;
  private memory: { cache: Record<string, NDArray> } = { cache: {} };
  private begun = false;

  constructor(device: Device, name: string, coder: Coder, params: Weights, stats: LatentStats<NDArray>) {
    [this.device, this.coder, this.params, this.stats] = [device, coder, params, stats];
    const program = (after: boolean): Program =>
      device.compile(
        ({ cache: before }: Memory, p: Params, s: LatentStats<Tensor>, x: Tensor) => {
          const cache = new Cache(after ? before : undefined);
          return { y: coder(p, s, x, cache), cache: cache.after };
        },
        { donate: [0], name: `${name} ${after ? 'later chunks' : 'first chunk'}` },
      );
    this.first = program(false);
    this.next = program(true);
  }

  /** The cache that a first chunk of this shape leaves. */
  private cacheTypes(shape: readonly number[]): Record<string, HostTensor> {
    const { outputs, outTree } = trace(
      (p: Params, s: LatentStats<Tensor>, x: Tensor) => {
        const cache = new Cache();
        this.coder(p, s, x, cache);
        return cache.after;
      },
      [this.params, this.stats, { shape, dtype: 'f32' }],
    );
    return outTree.rebuild(outputs.map(typeOf)) as Record<string, HostTensor>;
  }

  /**
   * Whether chunks of these shapes fit into memory, and every tensor into one of the
   * adapter's bindings: beside several of them, tiles are cheap.
   */
  async fits(first: readonly number[], next: readonly number[] | undefined): Promise<boolean> {
    const type = (shape: readonly number[]) => ({ shape, dtype: 'f32' }) as HostTensor;
    try {
      const memory = { cache: this.cacheTypes(first) };
      const plans = [await this.first.plan(memory, this.params, this.stats, type(first))];
      if (next) plans.push(await this.next.plan(memory, this.params, this.stats, type(next)));
      return plans.every(({ largest }) => !largest || largest.bytes <= this.device.caps.maxBindingBytes);
    } catch (error) {
      if (error instanceof EngineError && (error.op === 'memory' || error.op === 'tensor')) return false;
      throw error;
    }
  }

  /** Makes room for clips whose first chunk has this shape. */
  open(shape: readonly number[]): void {
    this.memory = {
      cache: mapTree(
        (t: HostTensor) => this.device.empty(t.shape, t.dtype),
        this.cacheTypes(shape),
      ) as unknown as Record<string, NDArray>,
    };
  }

  /** The next chunk is a clip's first. */
  begin(): void {
    this.begun = false;
  }

  /** [C,t,h,w] → [C',t',h',w']. */
  async feed(x: HostTensor): Promise<HostTensor> {
    const { y, cache } = await (this.begun ? this.next : this.first)(this.memory, this.params, this.stats, {
      ...x,
      shape: [1, ...x.shape],
    });
    this.begun = true;
    this.memory = { cache };
    return host(await y.read(), y.shape.slice(1));
  }

  /** Gives back everything but the weights. */
  async close(): Promise<void> {
    await this.first.free();
    await this.next.free();
    for (const t of Object.values(this.memory.cache)) t.free();
    this.memory = { cache: {} };
  }
}

/**
 * How a clip lies in chunks: [channels, 1, h·scale, w·scale] and then [channels, length,
 * h·scale, w·scale], over a latent of `count` frames h x w.
 */
interface Walk {
  channels: number;
  scale: number;
  length: number;
  count: number;
  h: number;
  w: number;
}
/** Chunk `k` of one tile: where it lies in the latent and in the pixels. */
interface Stop {
  k: number;
  latent: Tile;
  pixels: Tile;
  /** No other tile follows. */ last: boolean;
}

/** One clip at a time: pixels in [-1, 1] ↔ normalised latents. Programs and caches are held during a call only. */
export class StreamingVAE {
  private readonly device: Device;
  private readonly config: VAEConfig;
  private readonly params: Weights;
  private readonly stats: LatentStats<NDArray>;

  /** @param params the whole checkpoint, or the half that is used; they stay the caller's */
  constructor(device: Device, config: VAEConfig, params: Weights) {
    this.device = device;
    this.config = config;
    this.params = params;
    this.stats = mapTree(
      (t: HostTensor) => device.tensor(t.data as Float32Array, t.shape),
      latentStats(config),
    ) as unknown as LatentStats<NDArray>;
  }

  /**
   * @param shape [frames, height, width] of the clip
   * @param frames gives [channels, count, height, width] from frame `first` on
   * @returns [z_dim, 1 + (frames - 1) / stride, h, w]
   */
  async encode(
    [total, height, width]: readonly [number, number, number],
    frames: (first: number, count: number) => HostTensor,
    options: StreamOptions = {},
  ): Promise<HostTensor> {
    const { config } = this;
    const [length, scale] = vaeStride(config);
    const [count, h, w] = [1 + Math.floor((total - 1) / length), height / scale, width / scale];
    const latent = host(new Float32Array(config.z_dim * count * h * w), [config.z_dim, count, h, w]);
    const chunks = new Chunks(this.device, 'vae encode', coderOf(config, 'encoder'), this.params, this.stats);
    for await (const stop of this.walk(chunks, { channels: config.channels, scale, length, count, h, w }, options)) {
      const video = stop.k ? frames(1 + (stop.k - 1) * length, length) : frames(0, 1);
      blend(latent, await chunks.feed(cut(video, stop.pixels)), stop.latent, stop.k);
    }
    return latent;
  }

  /**
   * The clip of a normalised latent [z_dim, F, h, w], clamped to [-1, 1], in order: [channels, 1, H, W], then [channels,
   * stride, H, W] each. With several tiles the host holds the whole clip until the last one.
   */
  async *decode(latent: HostTensor, options: StreamOptions = {}): AsyncGenerator<HostTensor> {
    const { config } = this;
    const [, count, h, w] = latent.shape as [number, number, number, number];
    const [length, scale] = vaeStride(config);
    const chunks = new Chunks(this.device, 'vae decode', coderOf(config, 'decoder'), this.params, this.stats);
    const video: (HostTensor | undefined)[] = [];
    for await (const { k, latent: from, pixels, last } of this.walk(
      chunks,
      { channels: config.z_dim, scale: 1, length: 1, count, h, w },
      options,
    )) {
      const shape = [config.channels, k ? length : 1, h * scale, w * scale];
      const whole = (video[k] ??= host(new Float32Array(numel(shape)), shape));
      blend(whole, await chunks.feed(cut(frame(latent, k), from)), pixels);
      if (!last) continue;
      whole.data.forEach((v, i) => {
        whole.data[i] = Math.min(1, Math.max(-1, v));
      });
      yield whole;
      video[k] = undefined;
    }
  }

  /** Every chunk of every tile. The programs' memory is given back at the end, however it comes. */
  private async *walk(
    chunks: Chunks,
    { channels, scale, length, count, h, w }: Walk,
    { tile, onProgress }: StreamOptions,
  ): AsyncGenerator<Stop> {
    const stride = vaeStride(this.config)[1];
    const shape = (edge: number, frames: number) => [
      1,
      channels,
      frames,
      Math.min(edge, h) * scale,
      Math.min(edge, w) * scale,
    ];
    const whole = Math.max(h, w);
    const edges = tile
      ? [tile / stride]
      : [whole, ...EDGES.map((e) => e / stride).filter((e) => e < whole && Number.isInteger(e))];
    let edge = edges.shift()!;
    while (edges.length && !(await chunks.fits(shape(edge, 1), count > 1 ? shape(edge, length) : undefined)))
      edge = edges.shift()!;
    const fine = layTiles(h, w, edge, stride);
    const tiles = layTiles(h, w, edge).map((latent, i) => ({ latent, pixels: fine[i]!, last: i === fine.length - 1 }));
    try {
      chunks.open(shape(edge, 1));
      let done = 0;
      for (const place of tiles) {
        chunks.begin();
        for (let k = 0; k < count; k++) {
          yield { k, ...place };
          onProgress?.(++done, tiles.length * count);
        }
      }
    } finally {
      await chunks.close();
    }
  }

  free(): void {
    for (const t of Object.values(this.stats) as NDArray[]) t.free();
  }
}

/** Frame k of [C,T,H,W] as [C,1,H,W]. */
export function frame(x: HostTensor, k: number): HostTensor {
  const [c, t, h, w] = x.shape as [number, number, number, number];
  const out = new Float32Array(c * h * w);
  for (let i = 0; i < c; i++)
    out.set((x.data as Float32Array).subarray((i * t + k) * h * w, (i * t + k + 1) * h * w), i * h * w);
  return host(out, [c, 1, h, w]);
}

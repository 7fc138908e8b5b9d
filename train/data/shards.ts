/**
 * Latents and conditions, computed once and kept on disk: records packed by msgpackr into shard files, and an index.json that says
 * what made them. Making is resumable (good shards stay), reading refuses what was cut short, changed or made by something else.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Packr } from 'msgpackr';
import type { HostTensor } from '../../engine/frontend/tree.ts';
import { fromF16, toF16 } from '../../model/halves.ts';
import { writeWhole } from '../loop/files.ts';
import { frameOf, type ClipShape } from './frames.ts';
import { Stream } from '../loop/rng.ts';
import type { DigitClip } from './digits.ts';
import { readSealed, sealed, sha256 } from './seal.ts';
import type { Clip } from './sets.ts';
import { here, type Spread } from '../spread.ts';

const VERSION = 1; // of the layout on disk; a part of the hash

/** What else a set knows of a clip. */
type Meta = Partial<Pick<DigitClip, 'digit' | 'direction' | 'velocity'>>;

/** One clip as stored: f16 bit patterns. */
interface Packed {
  latent: Uint16Array;
  imageLatent: Uint16Array;
  firstFrame: Uint16Array;
  caption: string;
  meta: Meta;
}
interface Shard {
  made: string;
  first: number;
  records: Packed[];
}

interface Entry {
  file: string;
  records: number;
  bytes: number;
  sha256: string;
}

interface Index {
  /** Hash of everything that decides the records. */
  made: string;
  /** The same in words, for people. */
  settings: unknown;
  /** [C, F, h, w] of a latent; [channels, height, width] of a first frame. */
  latent: ClipShape;
  frame: readonly [number, number, number];
  /** Null where one is still being made. */
  shards: (Entry | null)[];
}

export interface Batch {
  /** [B, C, F, h, w], normalised as the encoder gave it. */
  latent: HostTensor;
  /** Of shape [B, C, F, h, w]; encoding of (first frame, then zero pixel frames), Wan's image condition. */
  imageLatent?: HostTensor;
  /** [B, channels, height, width] in [-1, 1]. */
  firstFrame?: HostTensor;
  captions: string[];
  /** Of drawn clips: what was drawn. */
  meta: Meta[];
  /** Of real videos, in place of what the small data sets' own encoders make of captions and first frames. */
  embedded?: Embedded;
}

/** Made by a checkpoint's own encoders. */
export interface Embedded {
  /** [B, text_len, dim], zero past each text, and each one's tokens. */
  text: HostTensor;
  lengths: number[];
  /** Image-to-video: [B, I, clip_dim]. */
  imageTokens?: HostTensor;
}

export interface Shards {
  readonly count: number;
  readonly made: string;
  /** Records by number, in order. */
  readonly records: (numbers: ArrayLike<number>) => Batch;
  /** A random batch, a pure function of its arguments. Within an epoch of a (seed, role) every record comes once. */
  readonly batch: (seed: number, step: number, size: number, role?: string) => Batch;
}

/** What a folder of shards is to hold. */
export interface Plan {
  dir: string;
  /** Clips in all and a shard. */
  count: number;
  shardSize: number;
  video: ClipShape;
  latent: ClipShape;
  /** What decides the records beside the code: hash of the VAE's weights, data settings, split, seed. Must be plain JSON. */
  settings: unknown;
}

/** How shards are made. */
export interface Recipe extends Plan {
  /** Clips in a call of the encoder. */
  batchSize: number;
  clip: (i: number) => Clip & Meta;
  /** [batchSize, ...video] → [batchSize, ...latent]. The last batch of a shard may be padded with copies. */
  encode: (videos: Float32Array) => Promise<Float32Array>;
  onProgress?: ((done: number, count: number) => void) | undefined;
}

const packr = new Packr({ moreTypes: true });
const numel = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

/** JSON with sorted keys, so that equal settings give equal hashes. */
const canonical = (value: unknown): string =>
  JSON.stringify(value, (_, v: unknown) =>
    v && typeof v === 'object' && !Array.isArray(v)
      ? Object.fromEntries(Object.entries(v).sort(([a], [b]) => (a < b ? -1 : 1)))
      : v,
  );

const planned = ({ settings, count, shardSize, video, latent }: Plan) => ({
  settings,
  count,
  shardSize,
  video,
  latent,
});
const hashOf = (plan: Plan): string => sha256(canonical({ version: VERSION, ...planned(plan) })).slice(0, 16);
const clipsIn = ({ count, shardSize }: Plan, s: number): number => Math.min(shardSize, count - s * shardSize);

/** Makes the shards of a recipe, or those that are still missing, and opens them. */
export function precompute(recipe: Recipe): Promise<Shards> {
  const { dir, shardSize, count } = recipe;
  const there = existsSync(join(dir, 'index.json')) ? readIndex(dir).shards.filter(Boolean).length : 0;
  recipe.onProgress?.(Math.min(count, there * shardSize), count);
  return collect(
    recipe,
    here((s: number) => makeShard(recipe, s)),
  );
}

/** One shard's file. */
export async function makeShard(recipe: Recipe, s: number): Promise<Uint8Array> {
  const first = s * recipe.shardSize;
  const records = await makeRecords(recipe, first, first + clipsIn(recipe, s));
  return packr.pack({ made: hashOf(recipe), first, records } satisfies Shard);
}

/** Has the missing shards of a plan made by their numbers, wherever that is, and opens them all. */
export async function collect(plan: Plan, make: Spread<number>): Promise<Shards> {
  const { dir, count, shardSize, video, latent } = plan;
  const made = hashOf(plan);
  const old = existsSync(join(dir, 'index.json')) ? readIndex(dir) : undefined;
  if (old && old.made !== made) {
    throw new Error(
      `[shards] ${join(dir, 'index.json')} was made by another VAE or other data settings (it says ${old.made}, this run makes ${made}): choose another folder or remove ${dir}`,
    );
  }
  const frame = [video[0], video[2], video[3]] as const;
  const index: Index = { made, settings: planned(plan), latent, frame, shards: old?.shards ?? [] };
  const missing = Array.from({ length: Math.ceil(count / shardSize) }, (_, s) => s).filter((s) => {
    const entry = index.shards[s];
    if (!entry || !existsSync(join(dir, entry.file))) return true;
    readShard(dir, made, entry); // refuses what is damaged
    return false;
  });
  await make(missing, (at, bytes) => {
    const s = missing[at]!;
    const file = `shard-${String(s).padStart(5, '0')}.msgpack`;
    writeWhole(join(dir, file), bytes);
    while (index.shards.length < s) index.shards.push(null); // they may come in any order
    index.shards[s] = { file, records: clipsIn(plan, s), bytes: bytes.length, sha256: sha256(bytes) };
    writeWhole(join(dir, 'index.json'), sealed(index));
  });
  return openShards(dir, made);
}

async function makeRecords(recipe: Recipe, from: number, to: number): Promise<Packed[]> {
  const { batchSize, video, latent } = recipe;
  const [channels, frames, height, width] = video;
  const [clipSize, plane, latentSize] = [numel(video), height * width, numel(latent)];
  const records: Packed[] = [];
  for (let start = from; start < to; start += batchSize) {
    const clips = Array.from({ length: batchSize }, (_, j) => recipe.clip(Math.min(start + j, to - 1)));
    const videos = new Float32Array(batchSize * clipSize);
    const stills = new Float32Array(batchSize * clipSize);
    clips.forEach((clip, b) => {
      videos.set(clip.video, b * clipSize);
      const frame = frameOf(clip.video, video, 0);
      for (let c = 0; c < channels; c++)
        stills.set(frame.subarray(c * plane, (c + 1) * plane), b * clipSize + c * frames * plane);
    });
    const [latents, imageLatents] = [await recipe.encode(videos), await recipe.encode(stills)];
    for (const out of [latents, imageLatents]) {
      if (out.length !== batchSize * latentSize)
        throw new Error(
          `[shards] the encoder gave ${out.length} numbers for ${batchSize} clips, expected ${batchSize * latentSize}`,
        );
      const bad = out.findIndex((v) => !(Math.abs(v) <= 65504)); // the largest f16
      if (bad >= 0)
        throw new Error(
          `[shards] the encoder gave ${out[bad]} for clip ${start + Math.floor(bad / latentSize)}: its weights are broken or not normalised`,
        );
    }
    for (let b = 0; b < Math.min(batchSize, to - start); b++) {
      const { caption, video: pixels, ...meta } = clips[b]!;
      const part = (all: Float32Array): Uint16Array => toF16(all.subarray(b * latentSize, (b + 1) * latentSize));
      records.push({
        latent: part(latents),
        imageLatent: part(imageLatents),
        firstFrame: toF16(frameOf(pixels, video, 0)),
        caption,
        meta,
      });
    }
    recipe.onProgress?.(Math.min(to, start + batchSize), recipe.count);
  }
  return records;
}

function readIndex(dir: string): Index {
  const path = join(dir, 'index.json');
  let index: Partial<Index>;
  try {
    index = readSealed(path);
    if (typeof index.made !== 'string' || !Array.isArray(index.shards)) throw new Error('it names no shards');
  } catch (error) {
    const missing = (error as NodeJS.ErrnoException).code === 'ENOENT';
    const why = missing
      ? 'is missing: make the data first, or name the folder that holds it'
      : `is not an index of shards (${(error as Error).message}): remove ${dir} and make the data again`;
    throw new Error(`[shards] ${path} ${why}`, { cause: error });
  }
  return index as Index;
}

function readShard(dir: string, made: string, entry: Entry): Shard {
  const path = join(dir, entry.file);
  const refuse = (what: string): never => {
    throw new Error(`[shards] ${path} ${what}: remove this file and make the data again (the other shards are kept)`);
  };
  if (!existsSync(path)) refuse('is missing');
  const bytes = readFileSync(path);
  if (bytes.length < entry.bytes) refuse(`is cut short (${bytes.length} of ${entry.bytes} bytes)`);
  if (bytes.length > entry.bytes || sha256(bytes) !== entry.sha256) refuse('is not the file that the index describes');
  const shard = packr.unpack(bytes) as Shard;
  if (shard.made !== made) refuse(`was made by another VAE or other data settings (${shard.made} instead of ${made})`);
  return shard;
}

/**
 * Opens a folder of shards; each file is read and checked when its first record is asked for.
 * @param made if given, refuses records that something else made.
 */
export function openShards(dir: string, made?: string): Shards {
  const index = readIndex(dir);
  if (made !== undefined && index.made !== made) {
    throw new Error(
      `[shards] ${dir} was made by another VAE or other data settings (it says ${index.made}, expected ${made}): make the data again in another folder`,
    );
  }
  const shards = index.shards.filter((s) => s !== null);
  if (shards.length < index.shards.length)
    throw new Error(
      `[shards] ${dir} lacks ${index.shards.length - shards.length} of ${index.shards.length} shards: the command that makes them goes on where it stopped`,
    );
  const starts = shards.reduce((at, s) => [...at, at.at(-1)! + s.records], [0]);
  const count = starts.pop()!;
  const open: (Shard | undefined)[] = [];
  const record = (i: number): Packed => {
    const s = starts.findLastIndex((start) => start <= i);
    return (open[s] ??= readShard(dir, index.made, shards[s]!)).records[i - starts[s]!]!;
  };

  const records = (numbers: ArrayLike<number>): Batch => {
    const found = Array.from(numbers, record);
    const stack = (name: 'latent' | 'imageLatent' | 'firstFrame', shape: readonly number[]): HostTensor => {
      const data = new Float32Array(found.length * numel(shape));
      found.forEach((r, b) => data.set(fromF16(r[name]), b * numel(shape)));
      return { shape: [found.length, ...shape], dtype: 'f32', data };
    };
    return {
      latent: stack('latent', index.latent),
      imageLatent: stack('imageLatent', index.latent),
      firstFrame: stack('firstFrame', index.frame),
      captions: found.map((r) => r.caption),
      meta: found.map((r) => r.meta),
    };
  };

  const choose = inEpochs(count);
  return {
    count,
    made: index.made,
    records,
    batch: (seed, step, size, role = 'batch') => records(choose(seed, step, size, role)),
  };
}

/** Numbers below `count` for each step: shuffled anew every epoch of a (seed, role), in which every number comes once. */
export function inEpochs(count: number): (seed: number, step: number, size: number, role: string) => number[] {
  const orders = new Map<string, Uint32Array>(); // the newest few epochs
  const order = (seed: number, epoch: number, role: string): Uint32Array => {
    const name = `${seed} ${epoch} ${role}`;
    const known = orders.get(name) ?? new Stream(seed, epoch, `shards.${role}`).shuffle(count);
    if (orders.size > 8) orders.clear();
    orders.set(name, known);
    return known;
  };
  return (seed, step, size, role) =>
    Array.from({ length: size }, (_, j) => {
      const place = step * size + j;
      return order(seed, Math.floor(place / count), role)[place % count]!;
    });
}

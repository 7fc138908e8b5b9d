/**
 * Real videos and captions as training records: latents, text and image embeddings, computed once by a checkpoint's own parts and kept in
 * shard files. A shard is made whole or not at all, by whichever process claims it first, so that several may share the work.
 */
import { closeSync, existsSync, mkdirSync, openSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { Packr } from 'msgpackr';
import type { Device } from '../../engine/runtime/device.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { numel } from '../../kernels/kernel.ts';
import { fromF16, toF16 } from '../../model/halves.ts';
import { givenFrames } from '../../model/config.ts';
import { freeAll, type Progress, type VideoModel } from '../../model/pipeline/generate.ts';
import { encodePictures, withZeros } from '../../model/pipeline/given.ts';
import { sizeLike, type Size } from '../../model/pipeline/size.ts';
import { StreamingVAE } from '../../model/wan/vaestream.ts';
import { writeWhole } from '../loop/files.ts';
import { isThere, ownerOf, releaseLock, takeLock } from '../loop/lock.ts';
import { frameOf, type ClipShape } from './frames.ts';
import { Stream } from '../loop/rng.ts';
import { canonical } from '../loop/canonical.ts';
import { hashOf } from '../loop/run.ts';
import { readSealed, sealed, sha256 } from './seal.ts';
import { inEpochs, type Batch, type Shards } from './shards.ts';

/** A video that may become a record. */
export interface VideoSource {
  readonly file: string;
  readonly caption: string;
  /** Of the frames as they are shown. */
  size(): Promise<Size>;
  /** The first frames at the recipe's rate, cut to fill `size`: [channels, frames, H, W] in [-1, 1]. @throws one line when it is damaged or too short */
  frames(size: Size): Promise<HostTensor>;
}

/** Forms that videos are cut to, width over height, all of one area. */
const FORMS = [16 / 9, 4 / 3, 1, 3 / 4, 9 / 16];
const LARGEST_F16 = 65504;
const VERSION = 1; // of the layout on disk

/** Shapes are without a batch axis; numbers are bits of f16. */
interface Packed {
  data: Uint16Array;
  shape: number[];
}

/** One clip as stored. */
interface Packing {
  latent: Packed;
  /** Text embedding [tokens, dim], its padding left out. */
  text: Packed;
  /** Image-to-video: the latent of the clip with zeros in all frames that are not given, and the tokens of those that are. */
  imageLatent?: Packed;
  imageTokens?: Packed;
}
export interface Refused {
  file: string;
  why: string;
}
/** What stands beside a shard's records, which lie one after the other in the file of the same name. */
interface Shard {
  made: string;
  /** `sha256` of a record's bytes; those of before there were checksums have none. */
  records: { file: string; caption: string; latent: readonly number[]; bytes: number; sha256?: string }[];
  refused: Refused[];
}
interface Index {
  made: string;
  settings: unknown;
  shards: number;
  textLen: number;
}

export interface VideoRecipe {
  device: Device;
  dir: string;
  model: VideoModel;
  sources: readonly VideoSource[];
  /** Its area is every bucket's. */
  size: Size;
  frames: number;
  /** Clips in a shard: what goes through the text encoder at a time. */
  shardClips: number;
  /** What decides the records beside files and captions: rate, and what the checkpoint is. Plain JSON. */
  settings: unknown;
  progress: Progress;
  /** Told of every shard that is done, whoever made it. */
  onShard: (done: number, total: number) => void;
  onRefused: (refused: Refused) => void;
}

const packr = new Packr({ moreTypes: true });
/** Written last: a shard without it is not made. */
const shardIndex = (dir: string, s: number): string => join(dir, `shard-${String(s).padStart(5, '0')}.json`);
const shardData = (dir: string, s: number): string => shardIndex(dir, s).replace(/json$/, 'msgpack');

/** The form nearest to a video's, at the recipe's area. */
export function bucketOf({ model: { dit, vae }, size }: Pick<VideoRecipe, 'model' | 'size'>, video: Size): Size {
  const off = (form: number) => Math.abs(Math.log((form * video.height) / video.width));
  const form = FORMS.reduce((a, b) => (off(b) < off(a) ? b : a));
  return sizeLike(dit, vae, { width: form, height: 1 }, size);
}

/**
 * Makes the shards that are missing and that nobody else is making.
 * @returns how many others are still making
 * @throws one line when the folder holds records of other settings or other videos
 */
export async function makeVideoShards(recipe: VideoRecipe): Promise<{ others: number }> {
  const { dir, sources, shardClips, size, frames, settings, model } = recipe;
  if (!sources.length) throw new Error('[videos] there is no video with a caption');
  const deciding = {
    version: VERSION,
    settings,
    size,
    frames,
    shardClips,
    videos: hashOf(sources.map((s) => [s.file, s.caption])),
  };
  const index: Index = {
    made: hashOf(deciding),
    settings: deciding,
    shards: Math.ceil(sources.length / shardClips),
    textLen: model.dit.text_len,
  };
  mkdirSync(join(dir, 'claims'), { recursive: true });
  const path = join(dir, 'index.json');
  if (!existsSync(path)) writeWhole(path, sealed(index));
  const { made } = readIndex(dir);
  if (made !== index.made)
    throw new Error(
      `[videos] ${path} was made of other videos, captions or settings (it says ${made}, these make ${index.made}): choose another folder or remove ${dir}`,
    );

  const claimOf = (s: number): string => join(dir, 'claims', `${s}.lock`);
  const isDone = (s: number): boolean => existsSync(shardIndex(dir, s));
  const tell = () =>
    recipe.onShard(Array.from({ length: index.shards }, (_, s) => s).filter(isDone).length, index.shards);
  tell();
  for (let s = 0; s < index.shards; s++) {
    if (isDone(s) || takeLock(claimOf(s))) continue;
    try {
      if (isDone(s)) continue; // made and let go between the two looks
      const { shard, data } = await makeShard(recipe, made, sources.slice(s * shardClips, (s + 1) * shardClips));
      writeWhole(shardData(dir, s), data);
      writeWhole(shardIndex(dir, s), sealed(shard));
    } finally {
      releaseLock(claimOf(s));
    }
    tell();
  }
  const others = Array.from({ length: index.shards }, (_, s) => s).filter((s) => !isDone(s));
  return {
    others: others.filter((s) => {
      const owner = ownerOf(claimOf(s));
      return owner && isThere(owner);
    }).length,
  };
}

interface Seen {
  source: VideoSource;
  /** Frames that the network is told. */ given: HostTensor[];
  latent: HostTensor;
  imageLatent: HostTensor | undefined;
}

async function makeShard(
  recipe: VideoRecipe,
  made: string,
  sources: readonly VideoSource[],
): Promise<{ shard: Shard; data: Uint8Array }> {
  const { device, model, progress } = recipe;
  const { seen, refused } = await encodeVideos(recipe, sources);
  const texts = seen.length
    ? await model.encodeText(
        device,
        seen.map((c) => c.source.caption),
        progress,
      )
    : [];
  const tokens =
    seen.length && model.encodeImages
      ? await encodePictures(
          device,
          model,
          seen.map((c) => c.given),
          progress,
        )
      : undefined;
  const records = seen.map(({ source: { file, caption }, latent, imageLatent }, i) => {
    const packing: Packing = {
      latent: packed(file, latent),
      text: packed(file, trimmed(texts[i]!)),
      ...(imageLatent && tokens && { imageLatent: packed(file, imageLatent), imageTokens: packed(file, tokens[i]!) }),
    };
    return { file, caption, latent: latent.shape, data: new Uint8Array(packr.pack(packing)) };
  });
  return {
    shard: {
      made,
      records: records.map(({ data, ...r }) => ({ ...r, bytes: data.length, sha256: sha256(data) })),
      refused,
    },
    data: new Uint8Array(Buffer.concat(records.map((r) => r.data))),
  };
}

/** One video at a time is in memory. */
async function encodeVideos(
  recipe: VideoRecipe,
  sources: readonly VideoSource[],
): Promise<{ seen: Seen[]; refused: Refused[] }> {
  const { device, model, progress, frames } = recipe;
  const weights = await model.loadVAE(device, 'encoder', progress);
  const vae = new StreamingVAE(device, model.vae, weights);
  const [seen, refused]: [Seen[], Refused[]] = [[], []];
  try {
    for (const [i, source] of sources.entries()) {
      const found = await read(recipe, source).catch((error: Error) => {
        refused.push({ file: source.file, why: error.message });
        recipe.onRefused(refused.at(-1)!);
      });
      if (found) {
        const { size, video } = found;
        const shape = [frames, size.height, size.width] as const;
        const latent = await vae.encode(shape, (first, count) => part(video, first, count));
        const given = [0, frames - 1].slice(0, givenFrames(model.dit)).map((t) => frameAt(video, t));
        seen.push({
          source,
          given,
          latent,
          imageLatent: given.length ? await vae.encode(shape, withZeros(given, frames)) : undefined,
        });
      }
      progress('latents', 'videos', i + 1, sources.length);
    }
    return { seen, refused };
  } finally {
    vae.free();
    freeAll(weights);
  }
}

async function read(recipe: VideoRecipe, source: VideoSource): Promise<{ size: Size; video: HostTensor }> {
  const size = bucketOf(recipe, await source.size());
  return { size, video: await source.frames(size) };
}

/** Frames `first` to `first + count` of [C,T,H,W]. */
function part(video: HostTensor, first: number, count: number): HostTensor {
  const [c, t, h, w] = video.shape as [number, number, number, number];
  const data = new Float32Array(c * count * h * w);
  for (let i = 0; i < c; i++)
    data.set(
      (video.data as Float32Array).subarray((i * t + first) * h * w, (i * t + first + count) * h * w),
      i * count * h * w,
    );
  return host(data, [c, count, h, w]);
}

function frameAt({ data, shape }: HostTensor, t: number): HostTensor {
  const [c, , h, w] = shape as ClipShape;
  return host(frameOf(data as Float32Array, shape as ClipShape, t), [c, h, w]);
}

/** Without the zero rows at its end. */
function trimmed(text: HostTensor): HostTensor {
  const dim = text.shape[1]!;
  const length = Math.floor((text.data as Float32Array).findLastIndex((x) => x !== 0) / dim) + 1;
  return host(text.data.slice(0, length * dim), [length, dim]);
}

function packed(file: string, t: HostTensor): Packed {
  const bad = t.data.findIndex((x) => !(Math.abs(x) <= LARGEST_F16));
  if (bad >= 0)
    throw new Error(`[videos] the encoders gave ${t.data[bad]} for ${file}: the checkpoint's weights are broken`);
  return { data: toF16(t.data as Float32Array), shape: [...t.shape] };
}

function readIndex(dir: string): Index {
  const path = join(dir, 'index.json');
  const refuse = (why: string): Error =>
    new Error(`[videos] ${path} is ${why}: make the data first, or name the folder that holds it`);
  let index: Partial<Index>;
  try {
    index = readSealed(path);
  } catch (error) {
    throw (error as NodeJS.ErrnoException).code === 'ENOENT'
      ? refuse('missing')
      : refuse(`no index of video shards (${(error as Error).message})`);
  }
  if (typeof index.made === 'string' && Number.isInteger(index.shards)) return index as Index;
  throw refuse('no index of video shards');
}

function readShardIndex(dir: string, s: number): Shard {
  const path = shardIndex(dir, s);
  try {
    const shard = readSealed(path) as Partial<Shard>;
    if (Array.isArray(shard.records) && Array.isArray(shard.refused)) return shard as Shard;
    throw new Error('it holds no records');
  } catch (error) {
    throw new Error(
      `[videos] ${path} is no index of a shard (${(error as Error).message}): remove this file and make the data again`,
      { cause: error },
    );
  }
}

/** The records of one form, as training takes them. */
export interface VideoShards extends Shards {
  /** [C, F, h, w] of every latent. */
  readonly latent: readonly number[];
  /** Records of other forms, which are left aside. */
  readonly others: number;
  /** Videos that were left out, and why. */
  readonly refused: readonly Refused[];
  /** Records without a checksum, of an earlier version: damage to them is not seen. */
  readonly unchecked: number;
}

/** A record's place: its file, and where it lies in it. */
type Place = Shard['records'][number] & { path: string; from: number };

/**
 * Opens a folder whose shards are all made; records are read when they are asked for.
 * @param latent the form to take, [C, F, h, w]; the commonest unless given
 * @throws one line that names what is missing or was made of something else
 */
export function openVideoShards(dir: string, latent?: readonly number[]): VideoShards {
  const { made, shards, textLen } = readIndex(dir);
  const all = Array.from({ length: shards }, (_, s) => s);
  const missing = all.filter((s) => !existsSync(shardIndex(dir, s)));
  if (missing.length)
    throw new Error(
      `[videos] ${dir} lacks ${missing.length} of ${shards} shards: the command that makes them goes on where it stopped`,
    );
  const opened = all.map((s) => readShardIndex(dir, s));
  const places = opened.flatMap((shard, s): Place[] => {
    if (shard.made !== made)
      throw new Error(
        `[videos] ${shardIndex(dir, s)} was made of other videos or settings (${shard.made} instead of ${made}): remove this file and make the data again`,
      );
    let from = 0;
    return shard.records.map((r) => ({ ...r, path: shardData(dir, s), from: (from += r.bytes) - r.bytes }));
  });
  const forms = new Map<string, Place[]>();
  for (const p of places) forms.set(canonical(p.latent), [...(forms.get(canonical(p.latent)) ?? []), p]);
  const commonest = [...forms.values()].sort((a, b) => b.length - a.length)[0];
  const own = latent ? forms.get(canonical(latent)) : commonest;
  if (!own)
    throw new Error(
      `[videos] ${dir} holds no record${latent ? ` of latents ${latent.join('x')}` : ': all its videos were left out'}`,
    );
  const records = (numbers: ArrayLike<number>): Batch =>
    stackRecords(
      Array.from(numbers, (n) => own[n]!),
      textLen,
    );
  const choose = inEpochs(own.length);
  return {
    count: own.length,
    made,
    latent: own[0]!.latent,
    others: places.length - own.length,
    refused: opened.flatMap((s) => s.refused),
    unchecked: own.filter((p) => p.sha256 === undefined).length,
    records,
    batch: (seed, step, size, role = 'batch') => records(choose(seed, step, size, role)),
  };
}

/**
 * Sets records aside that are never trained on, one in twenty but no more than `most` and none of a single one; how many there are alone
 * decides which.
 * @returns what is left to train on, and the others' numbers in `all`
 */
export function setAside(all: VideoShards, most: number): { shards: Shards; heldOut: number[] } {
  const order = Array.from(new Stream(0, 0, 'held out').shuffle(all.count));
  const held = Math.min(most, Math.ceil(all.count / 20), all.count - 1);
  const kept = order.slice(held).sort((a, b) => a - b);
  const choose = inEpochs(kept.length);
  const records = (numbers: ArrayLike<number>): Batch => all.records(Array.from(numbers, (n) => kept[n]!));
  return {
    heldOut: order.slice(0, held),
    shards: {
      count: kept.length,
      made: all.made,
      records,
      batch: (seed, step, size, role = 'batch') => records(choose(seed, step, size, role)),
    },
  };
}

function stackRecords(places: readonly Place[], textLen: number): Batch {
  const found = places.map(readRecord);
  const stack = (each: (r: Packing) => Packed | undefined): HostTensor | undefined =>
    each(found[0]!) ? stackPacked(found.map((r) => each(r)!)) : undefined;
  const [imageLatent, imageTokens] = [stack((r) => r.imageLatent), stack((r) => r.imageTokens)];
  return {
    latent: stack((r) => r.latent)!,
    ...(imageLatent && { imageLatent }),
    captions: places.map((p) => p.caption),
    meta: [],
    embedded: {
      text: stackPacked(found.map(({ text }) => padded(text, textLen))),
      lengths: found.map(({ text }) => text.shape[0]!),
      ...(imageTokens && { imageTokens }),
    },
  };
}

function readRecord({ path, from, bytes, file, sha256: expected }: Place): Packing {
  const refuse = (what: string): Error =>
    new Error(`[videos] ${path} ${what} at ${file}: remove it with its .json and make the data again`);
  const data = new Uint8Array(bytes);
  const handle = openSync(path, 'r');
  try {
    if (readSync(handle, data, 0, bytes, from) !== bytes) throw refuse('is cut short');
  } finally {
    closeSync(handle);
  }
  if (expected !== undefined && sha256(data) !== expected) throw refuse('is damaged');
  try {
    return packr.unpack(data) as Packing;
  } catch {
    throw refuse('is damaged');
  }
}

/** [L, D] → [length, D], zeros behind. */
function padded({ data, shape: [, dim] }: Packed, length: number): Packed {
  const all = new Uint16Array(length * dim!);
  all.set(data);
  return { data: all, shape: [length, dim!] };
}

function stackPacked(parts: readonly Packed[]): HostTensor {
  const size = numel(parts[0]!.shape);
  const data = new Float32Array(parts.length * size);
  parts.forEach((p, b) => data.set(fromF16(p.data), b * size));
  return host(data, [parts.length, ...parts[0]!.shape]);
}

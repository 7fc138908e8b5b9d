/**
 * Real videos and captions as training records: latents, text and image embeddings, computed once by a checkpoint's own parts and kept in
 * shard files. A shard is made whole or not at all, by whichever process claims it first, so that several may share the work.
 */
import { closeSync, openSync, readSync, rmSync } from 'node:fs';
import { Packr } from 'msgpackr';
import type { Device } from '../../engine/runtime/device.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { numel } from '../../kernels/kernel.ts';
import { fromF16, toF16 } from '../../model/halves.ts';
import { givenFrames, hasBeside } from '../../model/config.ts';
import { freeAll, type Progress, type VideoModel } from '../../model/pipeline/generate.ts';
import { encodePictures, withZeros } from '../../model/pipeline/given.ts';
import { sizeLike, type Size } from '../../model/pipeline/size.ts';
import { StreamingVAE } from '../../model/wan/vaestream.ts';
import { writeWhole } from '../loop/files.ts';
import { isThere, ownerOf, releaseLock, takeLock } from '../loop/lock.ts';
import { frameOf, type ClipShape } from './frames.ts';
import { Stream } from '../loop/rng.ts';
import { canonical } from '../loop/canonical.ts';
import { sealed, sha256 } from './seal.ts';
import { inEpochs, type Batch, type Shards } from './shards.ts';
import {
  claimOf,
  isMade,
  keyOf,
  liveOf,
  madeOf,
  planShards,
  readIndex,
  readShard,
  shardData,
  shardIndex,
  type Refused,
  type Shard,
  Unusable,
} from './videoindex.ts';

/** A video that may become a record. */
export interface VideoSource {
  readonly file: string;
  readonly caption: string;
  /** Of the file: one of another size is another video. */
  readonly bytes: number;
  /** Of the frames as they are shown. */
  size(): Promise<Size>;
  /**
   * The first frames at the recipe's rate, cut to fill `size`: [channels, frames, H, W] in [-1, 1].
   * @throws Unusable when it is damaged or too short
   */
  frames(size: Size): Promise<HostTensor>;
}

/** Forms that videos are cut to, width over height, all of one area. */
const FORMS = [16 / 9, 4 / 3, 1, 3 / 4, 9 / 16];
const LARGEST_F16 = 65504;

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
interface VideoRecipe {
  device: Device;
  dir: string;
  model: VideoModel;
  sources: readonly VideoSource[];
  /** Its area is every bucket's. */
  size: Size;
  frames: number;
  /** Clips in a shard: what goes through the text encoder at a time. */
  shardClips: number;
  /** What decides the records beside files, captions, size and frames: rate, and what the checkpoint is. Plain JSON. */
  settings: Readonly<Record<string, unknown>>;
  progress: Progress;
  /** Told of every shard that is done, whoever made it. */
  onShard: (done: number, total: number) => void;
  onRefused: (refused: Refused) => void;
}

const packr = new Packr({ moreTypes: true });

/** The form nearest to a video's, at the recipe's area. */
function bucketOf({ model, size }: Pick<VideoRecipe, 'model' | 'size'>, video: Size): Size {
  const off = (form: number) => Math.abs(Math.log((form * video.height) / video.width));
  const form = FORMS.reduce((a, b) => (off(b) < off(a) ? b : a));
  return sizeLike(model, { width: form, height: 1 }, size);
}

/** What became of the videos. */
export interface Outcome {
  records: number;
  refused: readonly Refused[];
  /** Records of videos that are gone: they stay where they are, unused. */
  aside: number;
  /** Shards that other processes are still making. */
  others: number;
}

/**
 * Makes the shards that are missing and that nobody else is making.
 * @throws one line when the folder holds records of other settings, when the machine fails, and when no video becomes a record
 */
export async function makeVideoShards(recipe: VideoRecipe): Promise<Outcome> {
  const { dir, sources, shardClips, size, frames, settings, model } = recipe;
  if (!sources.length) throw new Error('[videos] there is no video with a caption');
  const byKey = new Map(sources.map((source) => [keyOf(source), source]));
  const index = await planShards(dir, {
    settings: { ...settings, size, frames },
    textLen: model.dit.text_len,
    keys: [...byKey.keys()],
    shardClips,
  });
  const missing = () => index.shards.filter((s) => !isMade(dir, s.number));
  const tell = () => recipe.onShard(index.shards.length - missing().length, index.shards.length);
  tell();
  for (const { number, clips } of index.shards) {
    const claim = claimOf(dir, number);
    if (isMade(dir, number) || takeLock(claim)) continue;
    try {
      if (isMade(dir, number)) continue; // made and let go between the two looks
      const { shard, data } = await makeShard(
        recipe,
        index.made,
        clips.map((key) => byKey.get(key)!),
      );
      writeWhole(shardData(dir, number), data);
      writeWhole(shardIndex(dir, number), sealed(shard));
    } finally {
      releaseLock(claim);
    }
    tell();
  }
  const others = missing().filter(({ number }) => {
    const owner = ownerOf(claimOf(dir, number));
    return owner && isThere(owner);
  }).length;
  const { records, refused, aside } = liveOf(dir, index);
  if (!records && !others) {
    if (!aside) for (const { number } of index.shards) rmSync(shardIndex(dir, number), { force: true }); // to be tried again
    const [first] = refused;
    throw new Error(
      `[videos] none of ${sources.length} videos became a record${first ? `; ${first.file}: ${first.why}` : ''}`,
    );
  }
  return { records, refused, aside, others };
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
  const records = seen.map(({ source, latent, imageLatent }, i) => {
    const { file, caption } = source;
    const packing: Packing = {
      latent: packed(file, latent),
      text: packed(file, trimmed(texts[i]!)),
      ...(imageLatent && { imageLatent: packed(file, imageLatent) }),
      ...(tokens && { imageTokens: packed(file, tokens[i]!) }),
    };
    return { key: keyOf(source), file, caption, latent: latent.shape, data: new Uint8Array(packr.pack(packing)) };
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
): Promise<{ seen: Seen[]; refused: Shard['refused'] }> {
  const { device, model, progress, frames } = recipe;
  const weights = await model.loadVAE(device, 'encoder', progress);
  const vae = new StreamingVAE(device, model.vae, weights);
  const [seen, refused]: [Seen[], Shard['refused']] = [[], []];
  try {
    for (const [i, source] of sources.entries()) {
      const found = await read(recipe, source).catch((error: Error) => {
        if (!(error instanceof Unusable)) throw error;
        refused.push({ key: keyOf(source), file: source.file, why: error.message });
        recipe.onRefused(refused.at(-1)!);
      });
      if (found) {
        const { size, video } = found;
        const shape = [frames, size.height, size.width] as const;
        const latent = await vae.encode(shape, (first, count) => part(video, first, count));
        const beside = hasBeside(model.dit) ? givenFrames(model.dit) : 0; // a frame that is held is the clip's own latent's first
        const given = [0, frames - 1].slice(0, beside).map((t) => frameAt(video, t));
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
  const index = readIndex(dir);
  const { shards, textLen } = index;
  const missing = shards.filter((s) => !isMade(dir, s.number));
  if (missing.length)
    throw new Error(
      `[videos] ${dir} lacks ${missing.length} of ${shards.length} shards: the command that makes them goes on where it stopped`,
    );
  const places = shards.flatMap(({ number, clips }): Place[] => {
    const { made, records } = readShard(dir, number);
    if (made !== index.made)
      throw new Error(
        `[videos] ${shardIndex(dir, number)} was made with other settings (${made} instead of ${index.made}): remove this file and make the data again`,
      );
    let from = 0;
    return records
      .map((r) => ({ ...r, path: shardData(dir, number), from: (from += r.bytes) - r.bytes }))
      .filter((r) => clips.includes(r.key));
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
    made: madeOf(index),
    latent: own[0]!.latent,
    others: places.length - own.length,
    refused: liveOf(dir, index).refused,
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

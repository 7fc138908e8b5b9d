/** What is planned: the networks and phases of a preset, or of a released model at a size, with every tensor as its type. */
import type { StreamedType } from '../../engine/compiler/stages.ts';
import type { TensorType } from '../../engine/frontend/graph.ts';
import { numel, type DType } from '../../kernels/kernel.ts';
import { blockOf as packedBlock, isPacked, type Packed } from '../../kernels/packed.ts';
import { clipTokens } from '../../model/clip/clip.ts';
import { CLIP_VIT_H } from '../../model/clip/config.ts';
import {
  givenFrames,
  hasBeside,
  headDim,
  holdsFirst,
  readsImages,
  vaeStride,
  type DiTConfig,
  type VAEConfig,
} from '../../model/config.ts';
import { RELEASED, usualSampling, type Family } from '../../model/families/index.ts';
import { blockOf } from '../../model/files/origin.ts';
import { checkExtent } from '../../model/pipeline/size.ts';
import { isMatrix } from '../../model/params.ts';
import { tokenGrid } from '../../model/wan/tables.ts';
import { ditShapes } from '../../model/wan/dit.ts';
import { headOf, latentShape, numbersOf, vaeConfigOf, videoShape } from '../methods/conditions.ts';
import type { Batch, Condition, Time } from '../methods/networks.ts';
import type { Numbers } from '../methods/stage.ts';
import type { Sampling } from '../../model/pipeline/diffuse.ts';
import { TRAIN_TIMESTEPS } from '../../model/schedulers/index.ts';
import { teacherSampler } from '../methods/sample.ts';
import { loadPreset, type Preset } from '../presets/index.ts';
import { wanSettings } from '../presets/wan.ts';

export interface Subject extends Numbers {
  name: string;
  vae: VAEConfig;
  /** [C,F,h,w] and [channels,frames,H,W]. */
  latent: readonly number[];
  video: readonly number[];
  /** How the matrices of the blocks lie in a file and on the device, in the place of `stored`. */
  packed?: Packed | undefined;
  /** Text and first frame go through umT5 and CLIP. */
  encoders: boolean;
  /** As it is sampled unless told otherwise. */
  usual: Sampling;
  /** Set where it is a preset of this repository. */
  preset?: Preset;
}

/** Of a released model's clip in pixels; and its blocks, where a shallower network is meant. */
export interface Size {
  width: number;
  height: number;
  frames: number;
  layers?: number;
}

export const type = (shape: readonly number[], dtype: DType = 'f32'): TensorType => ({ shape, dtype });

/** @throws one line when the name is unknown or the size is none of the network's */
export function subjectOf(name: string, sets: readonly string[], size?: Partial<Size>): Subject {
  const released = Object.hasOwn(RELEASED, name) ? RELEASED[name] : undefined;
  return released
    ? wanSubject(name, sets, { vae: released.family.vae, frames: released.family.frames, ...released, ...size })
    : presetSubject(name, sets, size);
}

function presetSubject(name: string, sets: readonly string[], size?: Partial<Size>): Subject {
  if (size && Object.keys(size).length)
    throw new Error(
      `[plan] --size, --frames and --layers are for released models; "${name}" has its own: --set data.size=…, data.frames=…`,
    );
  const p = loadPreset(name, sets);
  return {
    ...p,
    ...numbersOf(p),
    vae: vaeConfigOf(p),
    latent: latentShape(p),
    video: videoShape(p),
    encoders: false,
    usual: teacherSampler(p),
    preset: p,
  };
}

/** Of a latent [C,F,h,w] of a VAE. */
export function clipSize(vae: VAEConfig, [, frames, tall, wide]: readonly number[]): Size {
  const [time, high, broad] = vaeStride(vae);
  return { width: wide! * broad, height: tall! * high, frames: 1 + (frames! - 1) * time };
}

/** @throws one line when the size is none of the network's */
export function wanSubject(
  name: string,
  sets: readonly string[],
  {
    dit: released,
    family,
    vae,
    width,
    height,
    frames,
    layers = released.num_layers,
  }: Size & { dit: DiTConfig; family: Family; vae: VAEConfig },
): Subject {
  const dit = { ...released, num_layers: layers };
  const [time, tall, wide] = vaeStride(vae);
  const cell = tall * dit.patch_size[1];
  if (width % cell || height % cell)
    throw new Error(`[plan] --size must be multiples of ${cell}, got ${width}x${height}`);
  if ((frames - 1) % time) throw new Error(`[plan] --frames must be 1 + a multiple of ${time}, got ${frames}`);
  const latent = [vae.z_dim, 1 + (frames - 1) / time, height / tall, width / wide];
  checkExtent({ width, height }, frames, numel(tokenGrid(dit, latent)));
  const settings = wanSettings(dit, latent, sets);
  const usual = usualSampling({ family, dit }, { width, height });
  const config = { ...dit, ...settings.dit };
  return {
    ...settings,
    name,
    config,
    vae,
    usual,
    ...(usual.low && { experts: { boundary: usual.low.below / TRAIN_TIMESTEPS } }),
    latent,
    video: [vae.channels, frames, height, width],
    encoders: true,
    head: headOf(settings.equilibrium, config, latent),
  };
}

/** How a parameter lies: files pack the matrices of blocks, where their rows are whole ones, and leave others in bf16. */
function liesAs(name: string, shape: readonly number[], stored: DType): DType {
  if (!isMatrix(name, shape)) return 'f32';
  if (!isPacked(stored)) return stored;
  return blockOf(name) !== undefined && shape.at(-1)! % packedBlock(stored).elements === 0 ? stored : 'bf16';
}

/** Parameters as types: `stored` is how matrices lie; vectors and modulations are always f32. */
export const paramTypes = (
  shapes: Readonly<Record<string, readonly number[]>>,
  stored: DType = 'f32',
): Record<string, TensorType> =>
  Object.fromEntries(Object.entries(shapes).map(([name, shape]) => [name, type(shape, liesAs(name, shape, stored))]));

/** A frozen network as types: all of it on the device, or its blocks in host memory. */
export function frozenTypes({ config, stored, packed, run }: Subject): Record<string, TensorType | StreamedType> {
  const types = paramTypes(ditShapes(config), packed ?? stored);
  if (!run.offload) return types;
  const streamed = (name: string, t: TensorType): TensorType | StreamedType => {
    const set = blockOf(name);
    return set === undefined ? t : { ...t, set };
  };
  return Object.fromEntries(Object.entries(types).map(([name, t]) => [name, streamed(name, t)]));
}

export function conditionTypes({ config: c, latent, preset }: Subject, batch: number): Condition<TensorType> {
  const [t, h, w] = tokenGrid(c, latent);
  const angles = type([1, t * h * w, headDim(c)]);
  const image = preset
    ? { frame: type([batch, preset.vae.channels, preset.data.size, preset.data.size]) }
    : { pictures: type([batch, givenFrames(c) * clipTokens(CLIP_VIT_H), c.clip_dim]) };
  return {
    text: type([batch, c.text_len, c.text_dim]),
    lengths: type([batch], 'u32'),
    tables: { cos: angles, sin: angles },
    ...(readsImages(c) && image),
    ...(hasBeside(c) && { latent: type([batch, ...latent]) }),
    ...(holdsFirst(c) && { first: type([batch, ...latent.with(1, 1)]), held: type([batch]) }),
  };
}

export const batchTypes = (s: Subject, batch: number): Batch<TensorType> => ({
  x0: type([batch, ...s.latent]),
  c: conditionTypes(s, batch),
});
export const timeTypes = ({ config }: Subject, batch: number): Time<TensorType> => ({
  sigma: type([batch]),
  emb: type([batch, config.freq_dim]),
});

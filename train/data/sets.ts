/** The data sets that presets name: captioned clips as pure functions of a split, a seed and a number. */
import type { Preset } from '../presets/index.ts';
import { digits, type DigitsSettings } from './digits.ts';
import { emoji } from './emoji.ts';
import { flare, type FlareSettings } from './flare/clips.ts';

export type Split = 'train' | 'heldout';

export interface Clip {
  /** [channels, frames, size, size] in [-1, 1]. */
  readonly video: Float32Array;
  readonly caption: string;
}

/** The clips of a split; defined for every i ≥ 0. @throws one line when the set was not fetched */
export function clipsOf(p: Preset, split: Split): (i: number) => Clip {
  const { data, seed } = p;
  if (data.set === 'emoji') return emoji(split, seed, data).clip;
  return data.set === 'flare' ? flare(split, seed, data).clip : digits(split, seed, data).clip;
}

/** The first `count` clips of the held-out split: what reports are made on. */
export function heldOutClips(p: Preset, count = p.data.heldOutClips): Clip[] {
  const clip = clipsOf(p, 'heldout');
  return Array.from({ length: count }, (_, i) => clip(i));
}

/** A preset's settings of `digits`, for what only that set has. @throws one line for another set */
export function digitsOf({ name, data }: Preset): DigitsSettings {
  if (data.set === 'emoji' || data.set === 'flare') throw new Error(`[data] preset ${name} holds no digits`);
  return data;
}

/** A preset's settings of `flare`. @throws one line for another set */
export function flareOf({ name, data }: Preset): FlareSettings {
  if (data.set !== 'flare') throw new Error(`[data] preset ${name} holds no clips of flare`);
  return data;
}

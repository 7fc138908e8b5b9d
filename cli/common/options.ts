/** Options that several commands share, and what they mean once parsed. */
import type { InferredOptionTypes, Options } from 'yargs';
import { PRECISIONS } from '../../model/pipeline/precision.ts';
import { loadPreset, presetNames, type Preset } from '../../train/presets/index.ts';
import { didYouMean, UsageError } from './errors.ts';
import { BUNDLE } from './files.ts';

/** A command's arguments, from its options. */
export type Args<O extends Record<string, Options>> = InferredOptionTypes<O>;

export const preset = {
  preset: { type: 'string', default: 'digits', describe: `a file of settings: ${presetNames().join(', ')}` },
  set: {
    type: 'string',
    array: true,
    nargs: 1,
    default: [] as string[],
    describe: 'overrides one setting, as priming.steps=200; may be given again',
  },
} as const satisfies Record<string, Options>;

export const seed = {
  seed: { type: 'number', describe: "decides all random numbers; the preset's unless given" },
} as const satisfies Record<string, Options>;

export const run = (fallback: string) =>
  ({
    run: { type: 'string', default: fallback, describe: 'folder of the run; an unfinished one is continued' },
  }) as const satisfies Record<string, Options>;

export const bundle = {
  bundle: { type: 'string', default: BUNDLE, describe: 'folder of the bundled weights' },
} as const satisfies Record<string, Options>;

export const precision = {
  precision: {
    choices: PRECISIONS,
    describe: "of a Wan2.1 DiT's matrix operands; sums are f32 [f16 where the adapter has matrix units, else f32]",
  },
} as const satisfies Record<string, Options>;

/** Which model of a folder. */
export const model = {
  model: { type: 'string', default: BUNDLE, describe: 'folder of vae, teacher and student: the bundle or a run' },
  teacher: { type: 'boolean', default: false, describe: 'the teacher' },
  student: { type: 'boolean', default: false, describe: 'the student' },
} as const satisfies Record<string, Options>;

/** Of a Wan2.1 folder. */
export const weights = {
  weights: {
    type: 'string',
    array: true,
    nargs: 1,
    default: [] as string[],
    describe:
      'where a part of a Wan2.1 folder has several checkpoints: the file to take, as seen from the folder (transformer/diffusion_pytorch_model.fp16.safetensors); may be given again',
  },
} as const satisfies Record<string, Options>;

export const json = {
  json: { type: 'boolean', default: false, describe: 'print the result as JSON on stdout' },
} as const satisfies Record<string, Options>;

/** The preset that --preset, --set and --seed name. @param others names that the command takes beside presets; @throws one line */
export function presetOf(
  args: { preset: string; set: readonly string[]; seed?: number | undefined },
  others: readonly string[] = [],
): Preset {
  const near = presetNames().includes(args.preset) ? '' : didYouMean(args.preset, [...presetNames(), ...others]);
  try {
    return loadPreset(args.preset, args.seed === undefined ? args.set : [...args.set, `seed=${args.seed}`]);
  } catch (error) {
    throw new Error((error as Error).message + near, { cause: error });
  }
}

/** A count given on the command line. @throws one line when it is not a whole number in [lo, hi] */
export function count(name: string, value: number, lo = 1, hi = 100_000): number {
  if (!Number.isInteger(value) || value < lo || value > hi)
    throw new UsageError(`--${name} must be a whole number from ${lo} to ${hi}, got ${value}`);
  return value;
}

/** Counting up from a seed stays exact. */
export const MOST_SEED = Number.MAX_SAFE_INTEGER - 10_000;

const MOST_MEMORY = 1e15;
const UNITS: Record<string, number> = { MB: 1e6, GB: 1e9, MiB: 2 ** 20, GiB: 2 ** 30 };

/** `24GB` → 24e9. @throws one line */
export function memoryBytes(text: string, option = 'memory'): number {
  const [, value, unit] = /^(\d+(?:\.\d+)?) ?([A-Za-z]+)$/.exec(text) ?? [];
  const size = Object.hasOwn(UNITS, unit ?? '') ? UNITS[unit!]! : NaN;
  const bytes = Number(value) * size;
  if (!(bytes > 0 && bytes <= MOST_MEMORY))
    throw new UsageError(`--${option} reads as 24GB or 24GiB, up to 1000000GB, got "${text.slice(0, 40)}"`);
  return bytes;
}

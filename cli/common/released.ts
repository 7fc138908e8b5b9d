/** A released model at a size, as `plan` and `bench` are told of it. */
import type { Options } from 'yargs';
import type { Fit } from '../../train/planning/fit.ts';
import { subjectOf, type Size, type Subject } from '../../train/planning/subject.ts';
import { RELEASED } from '../../model/families/index.ts';
import { UsageError } from './errors.ts';
import { count, precision, preset, presetOf, type Args } from './options.ts';

export const released = {
  ...preset,
  preset: {
    ...preset.preset,
    describe: `${preset.preset.describe}, or a released model: ${Object.keys(RELEASED).join(', ')}`,
  },
  size: { type: 'string', describe: "WIDTHxHEIGHT of a released model's clip; what it was trained for unless given" },
  frames: { type: 'number', describe: "frames of a released model's clip; what is usual for it unless given" },
  layers: { type: 'number', describe: 'blocks of a released model; all of them unless given' },
  precision: { ...precision.precision, describe: `of sampling: ${precision.precision.describe}` },
  mode: {
    choices: ['full', 'lora'] as const,
    describe: 'how the student is held: all its weights, or as LoRA of the frozen teacher',
  },
  memory: {
    type: 'string',
    describe: 'does it fit into so much, as 24GB? If not, the cheapest changes that make it fit',
  },
} as const satisfies Record<string, Options>;
type All = Args<typeof released>;
export type ReleasedArgs = Pick<All, 'preset' | 'set'> & Partial<All>;

function sizeOf({ size, frames, layers }: ReleasedArgs): Partial<Size> {
  const [, width, height] = /^(\d+)x(\d+)$/.exec(size ?? '') ?? [];
  if (size !== undefined && !width) throw new Error(`--size reads as 832x480, got "${size}"`);
  return {
    ...(width && { width: Number(width), height: Number(height) }),
    ...(frames !== undefined && { frames: count('frames', frames) }),
    ...(layers !== undefined && { layers: count('layers', layers) }),
  };
}

/** What the arguments name, with more overrides. @throws one line when the name is neither a preset nor a released model */
export function subjectsOf(args: ReleasedArgs): (sets: readonly string[]) => Subject {
  const size = sizeOf(args);
  if (!Object.hasOwn(RELEASED, args.preset)) presetOf({ preset: args.preset, set: [] }, Object.keys(RELEASED)); // tells a name that is none
  if (args.precision && !Object.hasOwn(RELEASED, args.preset))
    throw new UsageError(`--precision is for sampling with a released model, and ${args.preset} is none`);
  const mode = args.mode ? [`student.mode=${args.mode}`] : [];
  return (sets) => subjectOf(args.preset, [...mode, ...args.set, ...sets], size);
}

/** Arguments that make a job fit. */
export const overrides = (
  { set = [], offload = false }: { set?: readonly string[]; offload?: boolean },
  changes: Fit['changes'],
): string =>
  [
    ...[...set, ...changes.flatMap((c) => (c.offload ? [] : c.sets))].map((s) => `--set ${s}`),
    ...(offload || changes.some((c) => c.offload) ? ['--offload'] : []),
  ].join(' ');

export const gb = (bytes: number): string =>
  bytes < 1e7 ? `${(bytes / 1e6).toFixed(3)} MB` : `${(bytes / 1e9).toFixed(2)} GB`;

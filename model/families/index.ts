/** The families of released models that are sampled and distilled. A new one is a file beside these and a line here. */
import type { DiTConfig } from '../config.ts';
import { TRAIN_TIMESTEPS } from '../schedulers/index.ts';
import type { Layout } from '../schedulers/index.ts';
import type { Sampling } from '../pipeline/diffuse.ts';
import type { Size } from '../pipeline/size.ts';
import type { Family, Release } from './family.ts';
import { wan21 } from './wan21.ts';
import { wan22a14b, wan22ti2v } from './wan22.ts';

export type { Family, Release } from './family.ts';

export const FAMILIES: readonly Family[] = [wan22a14b, wan22ti2v, wan21];

/** The released checkpoints by name. */
export const RELEASED: Readonly<Record<string, Release & { family: Family }>> = Object.fromEntries(
  [...FAMILIES]
    .reverse()
    .flatMap((family) => Object.entries(family.released).map(([name, release]) => [name, { ...release, family }])),
);

/** @param two whether the checkpoint has two networks for two ranges of noise */
export const familyOf = (dit: DiTConfig, two: boolean): Family => FAMILIES.find((f) => f.owns(dit, two))!;

/** What a checkpoint is sampled by. */
export interface Sampled {
  family: Family;
  dit: DiTConfig;
  /** Of the low-noise expert, where the folder names one. */
  boundary?: number | undefined;
  /** Shift of the time schedule, where the folder names one. */
  flowShift?: number | undefined;
  layout?: Layout | undefined;
}

/** As the family's generate script samples a checkpoint, but for what its folder says otherwise. */
export function usualSampling({ family, dit, boundary, flowShift, layout }: Sampled, size: Size): Sampling {
  const { lowGuidance, ...usual } = family.sampling(dit, size);
  const below = TRAIN_TIMESTEPS * (boundary ?? family.experts?.boundary(dit) ?? 0);
  return {
    ...usual,
    shift: flowShift ?? usual.shift,
    layout,
    ...(family.experts && { low: { below, guidance: lowGuidance ?? usual.guidance } }),
  };
}

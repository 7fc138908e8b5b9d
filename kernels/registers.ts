/** How many sums a thread can hold beside what feeds them. */
import type { Caps } from './kernel.ts';

/** Subgroups up to this size are Intel's, whose threads have 128 registers; others have twice as many. */
const SMALL_SUBGROUP = 16;

export const mostSums = ({ subgroup }: Pick<Caps, 'subgroup'>): number =>
  subgroup && subgroup <= SMALL_SUBGROUP ? 32 : 96;

/** Of results of matrix units, a thread: their operands are large. */
export const MOST_SUMS = 64;

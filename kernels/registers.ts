/** How many sums a thread can hold beside what feeds them. */
import type { Caps } from './kernel.ts';

/** Subgroups up to this size are Intel's, whose threads have 128 registers. */
const SMALL = 16;
/** Of RDNA and NVIDIA: twice as many and more. A SIMD of GCN, with subgroups of 64, would hold one at a time with so many sums. */
const WIDE = 32;

export const mostSums = ({ subgroup }: Pick<Caps, 'subgroup'>): number =>
  subgroup === WIDE ? 96 : subgroup && subgroup <= SMALL ? 32 : 64;

/** Of results of matrix units, a thread: their operands are large. */
export const MOST_SUMS = 64;

/**
 * What one lane holds, for all lanes of a subgroup. On lavapipe a shuffle by an index it learns at run time is one instruction,
 * a broadcast by a constant three: so the index is a uniform's word that is never so large, shifted to zero, plus the lane.
 */

/** Declares the indices of `lanes` lanes from uniform word `p.word`, which is below 2³¹. None for one lane. */
export const laneIndices = (lanes: number, word: string): string =>
  lanes > 1 ? Array.from({ length: lanes }, (_, i) => `let from${i} = (p.${word} >> 31u) + ${i}u;`).join(' ') : '';

/** `value` as lane `i` has it. */
export const ofLane = (value: string, i: number): string => `subgroupShuffle(${value}, from${i})`;

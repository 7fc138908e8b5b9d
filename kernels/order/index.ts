/** The first k of each line by order, with where they stand. */
import type { Caps, Launch } from '../kernel.ts';
import { select, type SelectProblem } from './select.ts';
import { sort } from './sort.ts';

export type { SelectProblem } from './select.ts';

/** Walks up to which a walk for each is cheaper than sorting, however short the line. */
const FEW = 16;

/** Slots: x, the values [outer, k, inner] where they are asked for, the indices i32 [outer, k, inner]. */
export function order(caps: Caps, p: SelectProblem): Launch {
  const rounds = Math.ceil(Math.log2(Math.max(2, p.n)));
  return p.k <= Math.max(FEW, (rounds * (rounds + 1)) / 2) ? select(caps, p) : sort(caps, p);
}

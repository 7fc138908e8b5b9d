/** Row planner: how many threads share a row, and how they add up. Pure. */
import type { Access, Caps } from '../kernel.ts';

/** A contiguous f32 [rows, cols]; every operation works along cols. */
export interface RowsProblem {
  rows: number;
  cols: number;
  /** Added to the variance or mean square under the root. */
  eps?: number;
  /** One for each input slot. */
  access: readonly Access[];
}

export interface RowsPlan {
  vec: boolean;
  /** Threads that share a row. */
  share: number;
  /** How the shared sums meet: not at all (one thread), in one subgroup, in a tree in workgroup memory. */
  reduce: 'none' | 'subgroup' | 'tree';
  /** Threads of a workgroup: `share`, or with one thread a row any number of rows. */
  threads: number;
}

export function planRows(caps: Caps, p: RowsProblem): RowsPlan {
  const vec = p.cols % 4 === 0, steps = vec ? p.cols / 4 : p.cols;
  const alone: RowsPlan = { vec, share: 1, reduce: 'none', threads: caps.tier === 'tiled' ? 64 : caps.subgroup || 32 };
  if (caps.tier === 'tiled') {
    if (steps <= 8) return alone;
    const share = Math.min(256, caps.maxInvocations, Math.max(32, 2 ** Math.ceil(Math.log2(steps / 4))));
    return { vec, share, reduce: 'tree', threads: share };
  }
  // A row a lane needs no exchange, but leaves lanes idle when there are few rows.
  if (!caps.subgroup || p.rows >= 16 * caps.subgroup || steps < caps.subgroup) return alone;
  return { vec, share: caps.subgroup, reduce: 'subgroup', threads: caps.subgroup };
}

/** Row planner: how many threads share a row, and how they add up. Pure. */
import type { Access, Caps, Epilogue } from '../kernel.ts';
import { choose, near } from '../tuning.ts';

/** A contiguous f32 [rows, cols]; every operation works along cols. */
export interface RowsProblem {
  rows: number;
  cols: number;
  /** Added to the variance or mean square under the root. */
  eps?: number;
  /** One for each input slot. */
  access: readonly Access[];
  epilogue?: Epilogue | undefined;
}

export interface RowsConfig {
  /** Threads that share a row. */
  share: number;
  /** How the shared sums meet: not at all (one thread), in one subgroup, in a tree in workgroup memory. */
  reduce: 'none' | 'subgroup' | 'tree';
  /** Threads of a workgroup: `share`, or with one thread a row any number of rows. */
  threads: number;
}

export interface RowsPlan extends RowsConfig {
  vec: boolean;
}

export type RowsFamily = 'softmax' | 'layerNorm' | 'layerNormGrad' | 'rmsNorm' | 'rmsNormGrad';

export function planRows(caps: Caps, family: RowsFamily, p: RowsProblem): RowsPlan {
  const vec = p.cols % 4 === 0,
    steps = vec ? p.cols / 4 : p.cols;
  const alone: RowsConfig = { share: 1, reduce: 'none', threads: caps.tier === 'tiled' ? 64 : caps.subgroup || 32 };
  const tree = (share: number): RowsConfig => ({ share, reduce: 'tree', threads: share });
  const most = Math.min(256, caps.maxInvocations);
  const together: RowsConfig = { share: caps.subgroup, reduce: 'subgroup', threads: caps.subgroup };
  // On a CPU a row a lane needs no exchange, but leaves lanes idle when there are few rows.
  const rule =
    caps.tier === 'tiled'
      ? steps <= 8
        ? alone
        : tree(Math.min(most, Math.max(32, 2 ** Math.ceil(Math.log2(steps / 4)))))
      : !caps.subgroup || p.rows >= 16 * caps.subgroup || steps < caps.subgroup
        ? alone
        : together;
  const config = choose<RowsFamily>(caps, {
    family,
    problem: p,
    shape: `${near(p.rows)}x${near(p.cols)}${vec ? ' vec' : ''}`,
    rule,
    options: () => [
      alone,
      ...(caps.tier === 'tiled'
        ? [32, 64, 128, 256].filter((n) => n <= most).map(tree)
        : caps.subgroup
          ? [together]
          : []),
    ],
  });
  return { vec, ...config };
}

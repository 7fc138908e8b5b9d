/**
 * Where a planner asks what was measured on this device, before it follows its own rule.
 *
 * A planner lists the configurations that are valid for the problem and puts it in a class: problems of one class, sizes
 * alike to within a power of two, share a winner. What the table says counts only while it is among the valid ones, so a
 * table of an older version, or one that was written by hand, can slow a kernel down but never break it.
 */
import type { AttentionConfig, AttentionPath, AttentionProblem, MatrixTile } from './attention/plan.ts';
import type { Conv3dProblem, MatrixTile as ConvTile, ScalarTile, WorkgroupTile } from './conv3d/plan.ts';
import type { Caps } from './kernel.ts';
import type { MatmulConfig, MatmulProblem } from './matmul/plan.ts';
import type { RowsConfig, RowsProblem } from './rows/plan.ts';

type Tile = ScalarTile | WorkgroupTile | ConvTile;

/** Every family with something to choose: its problem, and what its planner decides. */
export interface Tunable {
  matmul: { problem: MatmulProblem; config: MatmulConfig };
  attention: { problem: AttentionProblem; config: AttentionConfig | MatrixTile };
  attentionGrad: { problem: AttentionProblem; config: AttentionConfig | MatrixTile };
  attentionPath: { problem: AttentionProblem; config: AttentionPath };
  attentionGradPath: { problem: AttentionProblem; config: AttentionPath };
  conv3d: { problem: Conv3dProblem; config: Tile };
  conv3dInput: { problem: Conv3dProblem; config: Tile };
  conv3dWeight: { problem: Conv3dProblem; config: Tile };
  softmax: { problem: RowsProblem; config: RowsConfig };
  layerNorm: { problem: RowsProblem; config: RowsConfig };
  layerNormGrad: { problem: RowsProblem; config: RowsConfig };
  rmsNorm: { problem: RowsProblem; config: RowsConfig };
  rmsNormGrad: { problem: RowsProblem; config: RowsConfig };
}
export type Family = keyof Tunable;

/** A planner's question. */
export interface Question<F extends Family> {
  family: F;
  /** Class of the problem, as `1x512x512x128 nt f32`. */
  shape: string;
  problem: Tunable[F]['problem'];
  /** The planner's own choice. */
  rule: Tunable[F]['config'];
  /** All that are valid, the rule's among them. */
  options: () => Tunable[F]['config'][];
}

export interface Tuning {
  /** The configuration to take; undefined leaves it to the rule. */
  find<F extends Family>(question: Question<F>): Tunable[F]['config'] | undefined;
}

/** Winners by family and class: plain data, as it stands in a file. */
export type TuningTable = { [F in Family]?: Record<string, Tunable[F]['config']> };

export const choose = <F extends Family>(caps: Caps, question: Question<F>): Tunable[F]['config'] =>
  caps.tuning?.find(question) ?? question.rule;

export const sameConfig = (a: object, b: object): boolean => {
  const keys = Object.keys(a) as (keyof typeof a)[];
  return keys.length === Object.keys(b).length && keys.every((k) => JSON.stringify(a[k]) === JSON.stringify(b[k]));
};

/** Answers from tables; the first that knows the class decides. */
export const tuningOf = (...tables: readonly TuningTable[]): Tuning => ({
  find({ family, shape, options }) {
    for (const table of tables) {
      const found = table[family]?.[shape];
      const valid = found && options().find((o) => sameConfig(o, found));
      if (valid) return valid;
    }
    return undefined;
  },
});

/** The power of two nearest to n by ratio: sizes that share a class. */
export const near = (n: number): number => 2 ** Math.round(Math.log2(Math.max(1, n)));

/** Every combination of one value from each list. */
export const combinations = <T extends object>(lists: { [K in keyof T]: readonly T[K][] }): T[] =>
  (Object.entries(lists) as [keyof T, readonly T[keyof T][]][]).reduce<T[]>(
    (all, [key, values]) => all.flatMap((one) => values.map((v) => ({ ...one, [key]: v }))),
    [{} as T],
  );

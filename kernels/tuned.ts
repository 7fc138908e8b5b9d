/** Tables that ship with the project, made by `vpae tune --json` on the machines they name. The user's own come first. */
import type { Caps } from './kernel.ts';
import type { TuningTable } from './tuning.ts';

export interface Bundled {
  /** Matches `vendor name` of an adapter. */
  adapter: RegExp;
  tier: Caps['tier'];
  subgroup: number;
  table: TuningTable;
}

export const BUNDLED: readonly Bundled[] = [];

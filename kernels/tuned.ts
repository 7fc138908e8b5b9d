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

/** Eight neighbours in W a lane instead of four: fewer loads a multiply-add, three times as long to compile. */
const long = { lanes: 8, broadcast: true, channels: 16, along: 8, columns: 2 } as const;

export const BUNDLED: readonly Bundled[] = [
  {
    // Mesa 25.0.7, two cores of an AMD EPYC (Zen 5): 1.1 to 1.3 times as fast as by the rule.
    adapter: /llvmpipe/,
    tier: 'scalar',
    subgroup: 8,
    table: { conv3d: { '16>32 k3 16x1024': long }, conv3dInput: { '32>16 k3 16x1024': long } },
  },
];

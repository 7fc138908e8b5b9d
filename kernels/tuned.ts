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

/** Eight columns a lane instead of four. */
const wide = { tier: 'scalar', rows: 16, cols: 2, lanes: 8, workgroup: [8, 1] } as const;

export const BUNDLED: readonly Bundled[] = [
  {
    // Mesa 25.0.7, two cores of an AMD EPYC (Zen 5): weight gradients 1.35 to 1.64 times as fast as by the rule; by turns with
    // it, the teacher's step of the preset `digits` takes 0.97 of the processor time.
    adapter: /llvmpipe/, tier: 'scalar', subgroup: 8,
    table: {
      matmul: {
        '1x128x128x1024 tn f32': wide, '1x128x128x2048 tn f32': wide, '1x128x128x4096 tn f32': wide,
        '1x128x512x2048 tn f32': wide, '1x512x128x1024 tn f32': wide, '1x512x128x2048 tn f32': wide,
      },
    },
  },
];

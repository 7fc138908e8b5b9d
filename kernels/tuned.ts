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

/** Two more columns a lane: a product over many rows reads each of them for longer. */
const wide = { tier: 'scalar', rows: 16, cols: 2, lanes: 8, workgroup: [8, 1] } as const;
/** Eight neighbours in W a lane instead of four: a weight that is handed round serves twice as many. */
const long = { lanes: 8, broadcast: true, channels: 8, along: 8, columns: 2 };

export const BUNDLED: readonly Bundled[] = [
  {
    // Mesa 25.0.7, two cores of an AMD EPYC (Zen 5): 1.25 to 1.64 times as fast as the rule alone; by turns with it in whole
    // steps of the preset `digits`, the VAE's takes 0.92 of the processor time and the teacher's 0.97.
    adapter: /llvmpipe/, tier: 'scalar', subgroup: 8,
    table: {
      matmul: {
        '1x128x128x1024 tn f32': wide, '1x128x128x2048 tn f32': wide, '1x128x128x4096 tn f32': wide,
        '1x128x512x2048 tn f32': wide, '1x512x128x1024 tn f32': wide, '1x512x128x2048 tn f32': wide,
      },
      conv3d: { '8>8 k3 32x1024': long },
      conv3dInput: { '8>8 k3 32x1024': long },
    },
  },
];

/** A rough model of a product's time, to choose which configurations are worth timing. Relative: only the order counts. */
import type { Caps } from '../kernel.ts';
import { planMatmul, type MatmulConfig, type MatmulProblem } from './plan.ts';

/** What a load costs beside a multiply-add, by where it comes from. */
export const LOAD = { scalar: 4, shared: 0.5, global: 8 };

/** Loads of one multiply-add, weighed. */
function loads(c: MatmulConfig): number {
  if (c.tier === 'scalar') {
    const sums = 4 * c.rows * c.cols; // vec4 multiply-adds of a step of four k
    return (LOAD.scalar * (Math.max(1, c.rows / c.lanes) + 4 * c.cols)) / sums;
  }
  const held = c.tier === 'tiled' ? 1 / c.TM + 1 / c.TN : c.rows / c.BM + c.cols / c.BN;
  return LOAD.shared * held + LOAD.global * (1 / c.BM + 1 / c.BN);
}

/** Work with what overhangs the edges, times the cost of feeding it, over how full the device is. */
export function matmulCost(caps: Caps, p: MatmulProblem, config: MatmulConfig): number {
  const plan = planMatmul({ ...caps, tuning: { find: () => config as never } }, p);
  const [rows, cols] =
    config.tier === 'scalar'
      ? [config.rows * config.workgroup[1], 4 * config.cols * config.workgroup[0]]
      : [config.BM, config.BN];
  const { batch, M, N } = plan.shape;
  const waste = (plan.tilesM * rows * plan.tilesN * cols) / (M * N);
  const groups = batch * plan.splits * plan.tilesM * plan.tilesN;
  const full = Math.min(1, groups / (config.tier === 'scalar' ? 4 : 128));
  return (waste * (1 + loads(config))) / full;
}

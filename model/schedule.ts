/** The Euler flow sampler of Wan2.1: its noise levels, timesteps and step. */
import type { Tensor } from '../engine/tensor.ts';

export const TRAIN_TIMESTEPS = 1000;

/** s σ / (1 + (s - 1) σ): with s > 1 more of the schedule lies near pure noise. */
export const shiftSigma = (sigma: number, shift: number): number => (shift * sigma) / (1 + (shift - 1) * sigma);

/** The steps + 1 noise levels from 1 to 0, and the steps timesteps 1000 σ that the network sees (not rounded). */
export function eulerSchedule(steps: number, shift: number): { sigmas: number[]; timesteps: number[] } {
  const sigmas = Array.from({ length: steps + 1 }, (_, i) => shiftSigma(1 - i / steps, shift));
  return { sigmas, timesteps: sigmas.slice(0, -1).map((s) => TRAIN_TIMESTEPS * s) };
}

/** x at `sigma` → x at `next`, along the velocity v = ε - x0. */
export const eulerStep = (x: Tensor, v: Tensor, sigma: number, next: number): Tensor => x.add(v.mul(next - sigma));

/** Noise levels and timesteps as Wan's own code and Diffusers lay them; they differ, and so do the videos that come of them. */

export const TRAIN_TIMESTEPS = 1000;

/** s σ / (1 + (s - 1) σ): with s > 1 more of the schedule lies near pure noise. */
export const shiftSigma = (sigma: number, shift: number): number => (shift * sigma) / (1 + (shift - 1) * sigma);

export interface Levels {
  /** steps + 1 noise levels, the last 0. */
  sigmas: number[];
  /** What the network is told at each step. */
  timesteps: number[];
}
type LevelLaw = (steps: number, shift: number) => Levels;

/** numpy's linspace, to the bit: truncated timesteps depend on it. */
const spaced = (first: number, last: number, count: number): number[] =>
  Array.from({ length: count }, (_, k) => (k ? first + k * ((last - first) / (count - 1)) : first));

const levels = (sigmas: readonly number[], timestep: (t: number) => number): Levels => ({
  sigmas: [...sigmas, 0],
  timesteps: sigmas.map((s) => timestep(TRAIN_TIMESTEPS * s)),
});

const exactly = (t: number): number => t;

/** From `first` evenly towards 0, then shifted. */
const wan =
  (first: number, timestep: (t: number) => number): LevelLaw =>
  (steps, shift) =>
    levels(
      spaced(first, 0, steps + 1)
        .slice(0, -1)
        .map((s) => shiftSigma(s, shift)),
      timestep,
    );

/** Lowest σ of training, and highest, which UniPC starts from: the reference keeps it in f32. */
const [LOWEST, HIGHEST] = [1 / TRAIN_TIMESTEPS, Math.fround(1 - 1 / TRAIN_TIMESTEPS)];
/** Diffusers' UniPC keeps so far from 1. */
const MARGIN = 1e-6;

export const WAN = { unipc: wan(HIGHEST, Math.floor), dpmpp: wan(1, Math.floor), euler: wan(1, exactly) };

/** Diffusers' pipelines of Wan use UniPC, or Euler, whose lower end is shifted twice. */
export const DIFFUSERS: typeof WAN = {
  unipc: (steps, shift) =>
    levels(
      spaced(1, LOWEST, steps + 1)
        .slice(0, -1)
        .map((s) => Math.min(shiftSigma(s, shift), 1 - MARGIN)),
      Math.floor,
    ),
  dpmpp: WAN.dpmpp,
  euler: (steps, shift) =>
    levels(
      spaced(1, shiftSigma(LOWEST, shift), steps).map((s) => shiftSigma(s, shift)),
      exactly,
    ),
};

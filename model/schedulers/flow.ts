/** What one step of any flow-matching sampler is made of. */
import { host, type HostTensor } from '../../engine/frontend/tree.ts';

/**
 * One step from level k to k + 1. With x̂0 = x - σ v: corrected = Σ correct · (x,
 * last, x̂0, m1, m2), next = Σ predict · (corrected, x̂0, m1).
 */
export interface StepWeights {
  readonly sigma: number;
  readonly correct: readonly [x: number, last: number, x0: number, m1: number, m2: number];
  readonly predict: readonly [corrected: number, x0: number, m1: number];
}

/** No corrector: the sample is taken as it was predicted. */
export const UNCORRECTED: StepWeights['correct'] = [1, 0, 0, 0, 0];

/** How many numbers a step's weights are. */
export const STEP_WEIGHTS = 9;
/** Weights as the input f32[9] of `solverStep`. */
export const packWeights = ({ sigma, correct, predict }: StepWeights): HostTensor =>
  host([sigma, ...correct, ...predict], [STEP_WEIGHTS]);

/** λ = log(α / σ) with α = 1 - σ; infinite at the ends. */
export const logSNR = (sigma: number): number => Math.log(1 - sigma) - Math.log(sigma);

/**
 * From level s to t with x̂0 held: x_t = ratio x_s + gain x̂0, where gain = α_t (1 -
 * e^-h), written so that σ_s = 1 and σ_t = 0 are no special cases.
 */
export const exactStep = (s: number, t: number): { ratio: number; gain: number } => ({
  ratio: t / s,
  gain: 1 - t - ((1 - s) * t) / s,
});

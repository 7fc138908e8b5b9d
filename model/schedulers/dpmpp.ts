/**
 * DPM-Solver++(2M) for flow matching (arXiv 2211.01095, algorithm 2), as Wan's generate uses it: midpoint, order 2, the
 * first and last step of order 1.
 */
import { exactStep, logSNR, UNCORRECTED, type StepWeights } from './flow.ts';

/** Multistep order of step k of `steps`: the first has no history, and the last, to σ = 0, must not extrapolate. */
export const orderOf = (k: number, steps: number): number => Math.min(2, k + 1, steps - k);

/**
 * Step k: x' = ratio x + gain (x̂0 + (h / 2 h_prev) (x̂0 - m1)), with m1 the x̂0 of the step before. The bracket is absent at order 1.
 * From σ = 1 h_prev is infinite: the second step then is of first order in effect.
 */
export function predictor(sigmas: readonly number[], k: number): StepWeights['predict'] {
  const [s, t] = [sigmas[k]!, sigmas[k + 1]!];
  const { ratio, gain } = exactStep(s, t);
  const slope =
    orderOf(k, sigmas.length - 1) === 1 ? 0 : (logSNR(t) - logSNR(s)) / (2 * (logSNR(s) - logSNR(sigmas[k - 1]!)));
  return [ratio, gain * (1 + slope), -gain * slope];
}

export const dpmpp = (sigmas: readonly number[]): StepWeights[] =>
  sigmas.slice(0, -1).map((sigma, k) => ({ sigma, correct: UNCORRECTED, predict: predictor(sigmas, k) }));

/** The Euler sampler of flow matching: x along v from one level to the next. */
import { sigmaLevels, timestepsOf, UNCORRECTED, type StepWeights } from './flow.ts';

/** x + (σ' - σ) v, said through x̂0 = x - σ v. */
const weights = (sigma: number, next: number): StepWeights =>
  ({ sigma, correct: UNCORRECTED, predict: [next / sigma, 1 - next / sigma, 0] });

/** Levels from 1; timesteps are not rounded. */
export function euler(steps: number, shift: number): { sigmas: number[]; timesteps: number[]; weights: StepWeights[] } {
  const sigmas = sigmaLevels(1, steps, shift);
  const timesteps = timestepsOf(sigmas);
  return { sigmas, timesteps, weights: timesteps.map((_, k) => weights(sigmas[k]!, sigmas[k + 1]!)) };
}

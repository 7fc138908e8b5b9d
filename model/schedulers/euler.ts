/** The Euler sampler of flow matching: x along v from one level to the next. */
import { UNCORRECTED, type StepWeights } from './flow.ts';

/** x + (σ' - σ) v, said through x̂0 = x - σ v. */
export const euler = (sigmas: readonly number[]): StepWeights[] =>
  sigmas.slice(0, -1).map((sigma, k) => {
    const ratio = sigmas[k + 1]! / sigma;
    return { sigma, correct: UNCORRECTED, predict: [ratio, 1 - ratio, 0] };
  });

/**
 * UniPC for flow matching (arXiv 2302.04867), as Wan's generate uses it by default: order 2, B(h) = e^h - 1 ("bh2"), x̂0
 * prediction. Its predictor is that of DPM-Solver++(2M); the corrector redoes a step once the network has seen its end.
 */
import { orderOf, predictor } from './dpmpp.ts';
import { exactStep, logSNR, UNCORRECTED, type StepWeights } from './flow.ts';

/**
 * The step k - 1 → k again, of its own order: last is the corrected sample at k - 1, m1 and m2 the x̂0 at k - 1 and k - 2, and
 * x̂0 what the network says at k. corrected = ratio last + gain (m1 + ρ_prev (m2 - m1) / r + ρ (x̂0 - m1)), r = -h_prev / h;
 * the ρ solve ρ_prev + ρ = b1, r ρ_prev + ρ = b2 (equation 12), and order 1 has ρ = 1/2 alone.
 */
function corrector(sigmas: readonly number[], k: number): StepWeights['correct'] {
  if (k === 0) return UNCORRECTED;
  const [s, t] = [sigmas[k - 1]!, sigmas[k]!];
  const { ratio, gain } = exactStep(s, t);
  if (orderOf(k - 1, sigmas.length - 1) === 1) return [0, ratio, gain / 2, gain / 2, 0];
  const h = logSNR(t) - logSNR(s);
  const r = (logSNR(sigmas[k - 2]!) - logSNR(s)) / h;
  const phi1 = Math.expm1(-h);
  const phi2 = phi1 / -h - 1;
  const [b1, b2] = [phi2 / phi1, (2 * (phi2 / -h - 1 / 2)) / phi1];
  const before = (b1 - b2) / (1 - r);
  const rho = b1 - before;
  return [0, ratio, gain * rho, gain * (1 - before / r - rho), (gain * before) / r];
}

export const unipc = (sigmas: readonly number[]): StepWeights[] =>
  sigmas.slice(0, -1).map((sigma, k) => ({ sigma, correct: corrector(sigmas, k), predict: predictor(sigmas, k) }));

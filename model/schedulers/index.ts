/**
 * The samplers of Wan2.1 behind one step: its weights are computed in doubles on the host and are inputs of the program, so one
 * compiled step serves every step of every sampler.
 */
import { fail } from '../../engine/host/errors.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { dpmpp } from './dpmpp.ts';
import { euler } from './euler.ts';
import { packWeights } from './flow.ts';
import { DIFFUSERS, WAN, type Levels } from './levels.ts';
import { unipc } from './unipc.ts';

export { STEP_WEIGHTS } from './flow.ts';
export { shiftSigma, TRAIN_TIMESTEPS } from './levels.ts';

const SOLVERS = { unipc, dpmpp, euler };
export type SolverKind = keyof typeof SOLVERS;
export const SOLVER_KINDS = Object.keys(SOLVERS) as SolverKind[];

/** Of a checkpoint folder: Wan's own, or Diffusers'. */
export type Layout = 'original' | 'diffusers';

export interface Schedule extends Levels {
  /** The input of `solverStep` at each step, f32[9]. */
  weights: HostTensor[];
}

/**
 * @param shift above 1 spends more steps near pure noise: 5 for Wan's text-to-video, 3 for its image-to-video at 480p
 * @param layout whose noise levels: those of the code that a checkpoint folder of this layout is made for
 */
export function schedule(kind: SolverKind, steps: number, shift: number, layout: Layout = 'original'): Schedule {
  if (!Number.isInteger(steps) || steps < 1)
    fail('schedule', `steps must be a whole number of 1 or more, got ${steps}`);
  if (!(shift > 0)) fail('schedule', `shift must be above 0, got ${shift}`);
  const levels = (layout === 'original' ? WAN : DIFFUSERS)[kind](steps, shift);
  return { ...levels, weights: SOLVERS[kind](levels.sigmas).map(packWeights) };
}

/** What goes from step to step; all shaped as the sample. */
export interface SolverState<T = Tensor> {
  /** The sample that the network sees next. */
  x: T;
  /** The sample of the step before, corrected. */
  last: T;
  /** x̂0 of the step before, and of the one before it. */
  m1: T;
  m2: T;
}

/** Before the first step: noise, and no history. */
export function startState(x: HostTensor): SolverState<HostTensor> {
  const none = () => host(new Float32Array(x.data.length), x.shape);
  return { x, last: none(), m1: none(), m2: none() };
}

/** One step with the velocity v at `x`. Call it while a function is traced. @param weights the step's entry of `Schedule.weights` */
export function solverStep({ x, last, m1, m2 }: SolverState, v: Tensor, weights: Tensor): SolverState {
  const w = (i: number): Tensor => weights.slice(0, i, i + 1);
  const combine = (first: number, terms: readonly Tensor[]): Tensor =>
    terms.map((t, i) => t.mul(w(first + i))).reduce((a, b) => a.add(b));
  const x0 = x.sub(v.mul(w(0)));
  const corrected = combine(1, [x, last, x0, m1, m2]);
  return { x: combine(6, [corrected, x0, m1]), last: corrected, m1: x0, m2: m1 };
}

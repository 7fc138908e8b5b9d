/** Jobs by name, and a quick guess of what a deep network needs. */
import { withSite } from '../../engine/errors.ts';
import type { Room } from '../../engine/plan.ts';
import { deviceBytes, totalOf, type JobCost } from './cost.ts';
import { samplingCost, type Sampler } from './sampling.ts';
import type { Subject } from './subject.ts';
import { equilibriumCost, primingCost, teacherCost, vaeCost } from './training.ts';

export type { Sampler } from './sampling.ts';
export const JOBS = ['vae', 'teacher', 'prime', 'equilibrium', 'sample'] as const;
export type JobName = (typeof JOBS)[number];
export type Target = Pick<Room, 'caps' | 'maxBufferBytes'>;
const COSTS: Record<JobName, (s: Subject, target: Target, sampler: Sampler) => JobCost> = {
  vae: vaeCost, teacher: teacherCost, prime: primingCost, equilibrium: equilibriumCost, sample: (s, target, sampler) => samplingCost(s, sampler, target),
};

export const costOf = (job: JobName, s: Subject, sampler: Sampler, target: Target): JobCost => COSTS[job](s, target, sampler);

/** Depths that a guess is made from. */
const SHALLOW = [3, 5] as const;

/** The same network with fewer blocks. */
function shallow(s: Subject, layers: number): Subject {
  const taps = s.phase2.taps.map((_, i, all) => layers - all.length + i);
  return { ...s, config: { ...s.config, num_layers: layers }, phase2: { ...s.phase2, taps } };
}

/** Device memory of each stage, drawn out as a straight line from two shallow networks: memory grows with the blocks evenly. In milliseconds, where the plan itself takes seconds. */
export function guessPeak(job: JobName, s: Subject, sampler: Sampler, target: Target): number {
  const { num_layers } = s.config;
  const at = (layers: number): number[] => withSite('', () => costOf(job, shallow(s, layers), sampler, target)).stages.map((stage) => totalOf(deviceBytes(stage)));
  if (num_layers <= SHALLOW[1]) return Math.max(...withSite('', () => costOf(job, s, sampler, target)).stages.map((stage) => totalOf(deviceBytes(stage))));
  const [few, more] = [at(SHALLOW[0]), at(SHALLOW[1])];
  return Math.max(...few.map((bytes, i) => bytes + ((more[i]! - bytes) * (num_layers - SHALLOW[0])) / (SHALLOW[1] - SHALLOW[0])));
}

/** Jobs by name, and a quick guess of what a deep network needs. */
import { withSite } from '../../engine/host/errors.ts';
import { GROUP } from '../../model/wan/dit.ts';
import { flopsOf, peakOf, streamedOf, totalOf, type JobCost, type Stage, type Target } from './cost.ts';
import { samplingCost, type Sampler } from './sampling.ts';
import type { Subject } from './subject.ts';
import { METHODS, STAGES, type StageName } from '../methods/index.ts';
import { stageCost, teacherCost, vaeCost } from './training.ts';

export type { Target } from './cost.ts';
export type { Sampler } from './sampling.ts';
export type JobName = 'vae' | 'teacher' | StageName | 'sample';
export const JOBS: readonly JobName[] = ['vae', 'teacher', ...STAGES.map((s) => s.name), 'sample'];
/** What becomes of a preset, unless another method is asked for. */
export const USUAL: readonly JobName[] = ['vae', 'teacher', ...METHODS.vpae.stages.map((s) => s.name), 'sample'];

/** The stage of a method that a job is, if it is one. */
export const stageOf = (job: JobName) => STAGES.find((s) => s.name === job);

export function costOf(job: JobName, s: Subject, sampler: Sampler, target: Target): JobCost {
  if (job === 'vae') return vaeCost(s, target);
  if (job === 'teacher') return teacherCost(s, target);
  if (job === 'sample') return samplingCost(s, sampler, target);
  return stageCost(stageOf(job)!, s, target);
}

/** Depths that a guess is made from: whole groups, where blocks are recomputed in groups; and enough that values wait, where they do. */
function depths({ config, run }: Subject): readonly [number, number] {
  if (config.checkpoint === 'nested') return [GROUP, 2 * GROUP];
  return run.offload ? [5, 7] : [3, 5];
}
/** Depth up to which a guess is the plan itself. */
const EXACT = 12;

/** The same network with fewer blocks. */
function shallow(s: Subject, layers: number): Subject {
  const taps = s.equilibrium.taps.map((_, i, all) => layers - all.length + i);
  return { ...s, config: { ...s.config, num_layers: layers }, equilibrium: { ...s.equilibrium, taps } };
}

const sum = (xs: readonly number[]): number => xs.reduce((a, b) => a + b, 0);

/** What stays for as long as a stage lasts; then the arenas of each of its programs, and what is alive in them at most. */
const parts = ({ held, runs }: Stage): { fixed: number; arenas: number[]; alive: number[] } => {
  const arenas = runs.map((r) => sum(r.plan.memory.arenas));
  return {
    fixed: totalOf(held) + sum(runs.map((r) => r.plan.bytes)) - sum(arenas),
    arenas,
    alive: runs.map((r) => r.plan.memory.lowerBound),
  };
};

/** Operations that a GPU does while a byte comes from host memory: 20 TFLOP/s beside 10 GB/s. */
const OPERATIONS_PER_BYTE = 2000;

/** Seconds that streamed weights take, for each that computing beside them takes: hardly another number in a deeper network. */
export function guessWait(job: JobName, s: Subject, sampler: Sampler, target: Target): number {
  const few = Math.min(s.config.num_layers, depths(s)[0]);
  const cost = withSite('', () => costOf(job, shallow(s, few), sampler, target));
  return (streamedOf(cost) * OPERATIONS_PER_BYTE) / flopsOf(cost);
}

/**
 * Device memory, drawn out as straight lines from two shallow networks: each part grows evenly with the blocks, arenas by what is alive in
 * them. In a second or two, where the plan itself takes many.
 */
export function guessPeak(job: JobName, s: Subject, sampler: Sampler, target: Target): number {
  const { num_layers } = s.config;
  // Sampling is planned in a second or two, and whether both texts go at once, which hangs on the depth, bends the line.
  if (num_layers <= EXACT || job === 'sample') return withSite('', () => peakOf(costOf(job, s, sampler, target)));
  const [few, more] = depths(s);
  const at = (layers: number) => withSite('', () => costOf(job, shallow(s, layers), sampler, target)).stages.map(parts);
  const [a, b] = [at(few), at(more)];
  const grown = (x: number, y: number): number => ((y - x) * (num_layers - more)) / (more - few);
  return Math.max(
    ...b.map(({ fixed, arenas, alive }, i) => {
      const before = a[i]!;
      return (
        fixed +
        grown(before.fixed, fixed) +
        Math.max(...arenas.map((bytes, k) => bytes + grown(before.alive[k]!, alive[k]!)))
      );
    }),
  );
}

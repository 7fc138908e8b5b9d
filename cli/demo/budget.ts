/** How the demo divides its time: the first steps are measured, and what fits is done. */
import type { Device } from '../../engine/device.ts';
import { freeTree, toDevice, type State } from '../../train/checkpoint.ts';
import type { OpenJob } from '../../train/jobs.ts';
import type { Preset } from '../../train/presets/index.ts';

/** Seconds, as measured on this machine. */
export interface Speeds {
  /** A whole update of phase I and of phase II. */
  priming: number;
  equilibrium: number;
  /** Clips that are sampled together, and for so many: one guided step (two evaluations); encoding, decoding, judging. */
  group: number;
  guidedStep: number;
  around: number;
}

/** What a demo will do. */
export interface Schedule { phase1: number; phase2: number; clips: number }

const PHASE1 = 0.6; // of the training time: without a primed student the second phase has nothing to polish
const SLACK = 0.9; // of what is left is spent, as speeds wander
const SCORES = 4; // times that the best average is looked for, over both phases

/** Seconds that sampling and judging so many conditions takes, with the teacher and two students. */
export const judging = (s: Speeds, clips: number, teacherSteps: number): number =>
  Math.ceil(clips / s.group) * ((teacherSteps + 1) * s.guidedStep + 3 * s.around);

/** The most conditions, in whole groups, that fit into `left` seconds: at least one group, at most `wanted`. */
export function clipsThatFit(s: Speeds, left: number, wanted: number, teacherSteps: number): number {
  const groups = Math.floor((SLACK * left) / judging(s, s.group, teacherSteps));
  return Math.min(wanted, s.group * Math.max(1, groups));
}

/** Steps of both phases and conditions for `left` seconds. Training gets what judging leaves, never more than the preset's own steps. */
export function schedule(s: Speeds, left: number, wanted: number, p: Preset): Schedule {
  const clips = clipsThatFit(s, left / 2, wanted, p.teacher.sampler.steps);
  const scoring = SCORES * (Math.ceil(p.best.clips / s.group) * (s.around + s.guidedStep / 2));
  const training = Math.max(0, SLACK * left - judging(s, clips, p.teacher.sampler.steps) - scoring);
  const steps = (seconds: number, each: number, most: number): number => Math.max(2, Math.min(most, Math.floor(seconds / each)));
  return {
    clips,
    phase1: steps(PHASE1 * training, s.priming, p.phase1.steps + p.phase1.fake.warmup),
    phase2: steps((1 - PHASE1) * training, s.equilibrium, p.phase2.steps + p.phase2.head.warmup),
  };
}

/** The preset with so many steps in all; the steps in which the fake model or the head learn alone are a sixth of them at most. */
export function shortened(p: Preset, { phase1, phase2 }: Schedule): Preset {
  const alone = (usual: number, all: number): number => Math.min(usual, Math.floor(all / 6));
  const [fake, head] = [alone(p.phase1.fake.warmup, phase1), alone(p.phase2.head.warmup, phase2)];
  return {
    ...p,
    phase1: { ...p.phase1, steps: phase1 - fake, warmup: Math.min(p.phase1.warmup, Math.ceil(phase1 / 6)), fake: { ...p.phase1.fake, warmup: fake } },
    phase2: { ...p.phase2, steps: phase2 - head, warmup: Math.min(p.phase2.warmup, Math.ceil(phase2 / 6)), head: { ...p.phase2.head, warmup: head } },
    best: { ...p.best, every: Math.max(1, Math.ceil(Math.max(phase1, phase2) / (SCORES / 2))) },
  };
}

/** Seconds of one whole update, step `n` of a job: once to compile, then once or twice on the clock. */
export async function secondsPerStep(device: Device, job: OpenJob, n: number): Promise<number> {
  let state = toDevice(device, await job.initial()) as State;
  const step = async (): Promise<number> => {
    const start = performance.now();
    ({ state } = await job.advance(state, n));
    return (performance.now() - start) / 1000;
  };
  try {
    await step();
    const first = await step();
    return first > 5 ? first : (first + await step()) / 2;
  } finally {
    freeTree(state);
    await job.close();
  }
}

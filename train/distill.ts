/** Distillation: a teacher through both phases of V-PAE, whatever it is taught on, judged by and shown as. */
import { openWeights } from '../model/files/open.ts';
import { inFile, type Origin } from '../model/files/origin.ts';
import { freeTree } from './loop/checkpoint.ts';
import { ditConfigOf } from './methods/conditions.ts';
import type { Shards } from './data/shards.ts';
import type { Score } from './judge/eval.ts';
import type { StudentJob } from './methods/jobs.ts';
import { bestFile, lastFile, saveAverage, type Job } from './loop/loop.ts';
import { equilibriumJob, primingJob } from './methods/phases.ts';
import type { Course } from './presets/index.ts';
import type { Weights } from './methods/sample.ts';
import { run, type Trained, type Work } from './work.ts';

/** What a student is taught: numbers, data, teacher, and what is seen of it on the way. */
export interface Lesson {
  course: Course;
  shards: Shards;
  teacher: Origin;
  /** What decides the numbers beside the course: hashes of data and teacher. */
  made: Record<string, unknown>;
  /** Scores a student, by which a phase's best average is kept; the last one is kept without it. */
  choose?: ((student: Weights) => Promise<Score>) | undefined;
  /** What the run's folder shows. */
  samples?: ((job: StudentJob) => Job['samples']) | undefined;
  /** The student's file, and how it is written. @param average the file of what phase II kept */
  path: string;
  save: (average: string, steps: number, phases: readonly Kept[]) => Promise<void>;
}

/** The average that a phase kept; without a judge it has no score. */
export interface Kept {
  name: string;
  step: number;
  score?: number;
}
export type Distilled = Trained & { phases: Kept[] };

/** The job with what chooses its best average. */
export const judged = (
  job: StudentJob,
  { best: { every } }: Course,
  choose: NonNullable<Lesson['choose']>,
): StudentJob => ({
  ...job,
  best: { every, from: job.alone, net: 'generator', score: (state) => choose(job.student(state)) },
});

/** Both phases, each from what the one before it kept; calling again resumes. */
export async function bothPhases(w: Omit<Work, 'preset' | 'draw'>, lesson: Lesson): Promise<Distilled> {
  const { course: p, shards, teacher, made, choose, path } = lesson;
  const phases: Kept[] = [];
  /** Runs a phase to its end or to the signal. @returns the file of what it kept, when it is done */
  const phase = async (
    job: StudentJob,
    settings: Record<string, unknown>,
  ): Promise<{ step: number; kept?: string }> => {
    const shown = { ...(choose ? judged(job, p, choose) : job), samples: lesson.samples?.(job) };
    const { state, step, done, folder } = await run({ ...w, preset: p }, shown, {
      ...made,
      dit: ditConfigOf(p),
      student: p.student,
      best: p.best,
      ...settings,
    });
    try {
      if (!done) return { step };
      if (!choose) await saveAverage(lastFile(folder), state['generator']!.ema!, { step });
    } finally {
      freeTree(state);
    }
    const kept = choose ? bestFile(folder) : lastFile(folder);
    const { metadata, close } = await openAverage(kept);
    await close();
    phases.push({
      name: job.name,
      step: Number(metadata['step']),
      ...(choose && { score: Number(metadata['score']) }),
    });
    return { step, kept };
  };
  const first = await phase(await primingJob(w.device, p, shards, teacher), { phase1: p.phase1 });
  if (!first.kept) return { done: false, step: first.step, path, phases };
  const primed = await openAverage(first.kept);
  const second = await equilibriumJob(w.device, p, shards, teacher, primed.origin)
    .then((job) => phase(job, { phase1: p.phase1, phase2: p.phase2 }))
    .finally(primed.close);
  if (!second.kept) return { done: false, step: second.step, path, phases };
  await lesson.save(second.kept, second.step, phases);
  return { done: true, step: second.step, path, phases };
}

/** A file of averaged weights; for the caller to close. */
async function openAverage(
  path: string,
): Promise<{ origin: Origin; metadata: Readonly<Record<string, string>>; close: () => Promise<void> }> {
  const weights = await openWeights(path);
  return { origin: inFile(weights), metadata: weights.metadata, close: () => weights.close() };
}

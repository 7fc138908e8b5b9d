/**
 * Distillation: the stages of a method one after the other, each from what the one
 * before it kept. Every command that trains a student comes here.
 */
import { existsSync } from 'node:fs';
import { openWeights } from '../model/files/open.ts';
import { inFile, type Origin } from '../model/files/origin.ts';
import { dropCheckpoints, freeTree } from './loop/checkpoint.ts';
import { ditConfigOf } from './methods/conditions.ts';
import type { Expert } from '../model/pipeline/diffuse.ts';
import type { Shards } from './data/shards.ts';
import type { Score } from './judge/eval.ts';
import type { StudentJob } from './methods/jobs.ts';
import { bestFile, lastFile, saveAverage, type Job } from './loop/loop.ts';
import type { Course } from './presets/index.ts';
import { folderOf } from './presets/renamed.ts';
import { checkShare } from './ranks/cut.ts';
import { agreed, isLeader } from './ranks/ranks.ts';
import { teachesTwo, type Sampled } from './methods/sample.ts';
import type { Method, Stage } from './methods/stage.ts';
import { run, type Work } from './work.ts';

/** What a student is taught with, and what is seen of it on the way. */
export interface Lesson {
  shards: Shards;
  teacher: Origin;
  /** Of two experts the one for low noise. */
  low?: Origin | undefined;
  /** Scores a student, by which a stage's best average is kept; the last one is kept without it. */
  choose?: ((student: Sampled) => Promise<Score>) | undefined;
  /** What the stages' folders show. */
  samples?: ((job: StudentJob) => Job['samples']) | undefined;
  /** A stage that is done keeps its last average beside the best, and no checkpoints: it is never opened again. */
  archive?: boolean;
}

/** A stage in its folder of a run. */
export interface Turn {
  stage: Stage;
  course: Course;
  folder: string;
  /** All that decides its numbers. */
  settings: Record<string, unknown>;
  /** Where each of two experts gets a student: whose it is. */
  expert?: Expert | undefined;
  /** Ends its job sooner than the course says. */
  limit?: (job: StudentJob) => StudentJob;
}

/** The average that a stage kept; without a judge it has no score. */
export interface Kept {
  name: string;
  step: number;
  score?: number;
}
/**
 * `done` is false when the signal stopped it, after `step` of the stage it was in. `files` are the last that were kept: of the one student
 * or of that for high noise, and of that for low noise.
 */
export interface Ran {
  done: boolean;
  step: number;
  phases: Kept[];
  files: Partial<Record<Expert, string>>;
}

/** What decides a stage's numbers beside its own settings. @param made hashes of data and teacher */
export const commonSettings = (p: Course, made: Record<string, unknown>): Record<string, unknown> => ({
  ...made,
  dit: ditConfigOf(p),
  student: p.student,
  best: p.best,
});

/** A course with the settings that make a method what it is. */
export const courseFor = <P extends Course>({ change }: Method, p: P): P => change?.(p) ?? p;

/**
 * The stages of a method, each in a folder of its name; what decided those before a stage decides it too. Where each of two experts gets a
 * student, all of them for high noise and then, in folders named so, for low noise.
 */
export const turnsOf = ({ stages }: Method, course: Course, made: Record<string, unknown>): Turn[] =>
  (teachesTwo(course) ? (['high', 'low'] as const) : [undefined]).flatMap((expert) =>
    stages.map((stage, i) => ({
      stage,
      course,
      folder: expert === 'low' ? `${stage.name}-low` : stage.name,
      settings: Object.assign(
        commonSettings(course, made),
        ...stages.slice(0, i + 1).map((s) => s.settings(course)),
        expert && { expert },
      ),
      expert,
    })),
  );

/** Runs stages to their end or to the signal; calling again resumes. */
export async function runStages(
  w: Omit<Work, 'preset' | 'draw'>,
  turns: readonly Turn[],
  lesson: Lesson,
): Promise<Ran> {
  const deaf = lesson.low && turns.find(({ stage }) => !stage.hearsExperts);
  if (deaf)
    throw new Error(
      `[distill] ${deaf.stage.name} learns from one teacher, and this one is two experts: take --method vpae, vsd or dmd2`,
    );
  const ran: Ran = { done: true, step: 0, phases: [], files: {} };
  for (const turn of turns) {
    const at = folderOf(w.out, turn.folder);
    checkShare(turn.stage.name, turn.stage.batching(turn.course), w.ranks);
    if (!lesson.archive || !(await agreed(w.ranks, () => existsSync(lastFile(at))))) {
      const { done, step } = await runStage(w, turn, lesson, ran.files);
      ran.step = step;
      await w.ranks?.meet(); // what rank 0 kept is there
      if (!done) return { ...ran, done };
    }
    const file = lesson.choose ? bestFile(at) : lastFile(at);
    const { metadata, close } = await openAverage(file);
    await close();
    ran.files[turn.expert ?? 'high'] = file;
    ran.phases.push({
      name: turn.expert === 'low' ? turn.folder : turn.stage.name,
      step: Number(metadata['step']),
      ...(lesson.choose && { score: Number(metadata['score']) }),
    });
  }
  return ran;
}

/** @param from files of what the stages before kept */
async function runStage(
  w: Omit<Work, 'preset' | 'draw'>,
  { stage, course: p, folder, settings, expert, limit = (job) => job }: Turn,
  { shards, teacher, low, choose, samples, archive }: Lesson,
  from: Ran['files'],
): Promise<{ done: boolean; step: number }> {
  const open = async (file: string | undefined) => (file === undefined ? undefined : openAverage(file));
  const before = await open(from[expert ?? 'high']);
  const high = expert === 'low' ? await open(from.high) : undefined;
  try {
    const job = await stage.open({
      device: w.device,
      course: p,
      shards,
      teacher,
      low,
      before: before?.origin,
      range: expert && { expert, high: high?.origin },
      ranks: w.ranks,
    });
    const shown = { ...(choose ? judged(job, p, choose) : job), name: folder, samples: samples?.(job) };
    const { state, step, done, folder: at } = await run({ ...w, preset: p }, limit(shown), settings);
    try {
      if (done && (archive || !choose) && isLeader(w.ranks))
        await saveAverage(lastFile(at), state['generator']!.ema!, { step });
    } finally {
      freeTree(state);
    }
    if (done && archive && isLeader(w.ranks)) await dropCheckpoints(at);
    return { done, step };
  } finally {
    await before?.close();
    await high?.close();
  }
}

/** The job with what chooses its best average. */
const judged = (job: StudentJob, { best: { every } }: Course, choose: NonNullable<Lesson['choose']>): StudentJob => ({
  ...job,
  best: { every, from: job.alone, net: 'generator', score: (state) => choose(job.student(state)) },
});

/** A file of averaged weights; for the caller to close. */
async function openAverage(
  path: string,
): Promise<{ origin: Origin; metadata: Readonly<Record<string, string>>; close: () => Promise<void> }> {
  const weights = await openWeights(path);
  return { origin: inFile(weights), metadata: weights.metadata, close: () => weights.close() };
}

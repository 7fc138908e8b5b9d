/** The one loop that drives every training job: step, log, watch, draw, save, resume, roll back, stop. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Device } from '../../engine/runtime/device.ts';
import type { NDArray } from '../../engine/runtime/ndarray.ts';
import type { HostParams } from '../../model/params.ts';
import { openWeights } from '../../model/files/open.ts';
import { saveTensors } from '../../model/files/safetensors.ts';
import { turnedAway, Watch, type Alarm } from './alarms.ts';
import {
  dropCheckpoint,
  freeTree,
  latestCheckpoint,
  openSaved,
  placeState,
  saveCheckpoint,
  type State,
} from './checkpoint.ts';
import { writeError, writeWhole } from './files.ts';
import type { Metrics, Pending } from './pending.ts';
import { agreed, isLeader, type Ranks } from '../ranks/ranks.ts';
import { nameNow } from '../presets/renamed.ts';
import { numbersOf, RunFolder, type Json } from './run.ts';

/** A training job as pure functions: all randomness comes from (seed, step, role), so a state and a step decide what follows. */
export interface Job {
  name: string;
  steps: number;
  /** The state before step 0. */
  initial(): Promise<State>;
  /**
   * Queues one step; the next may be queued before its metrics come. Those whose name ends in `skipped` count updates that a non-finite
   * gradient turned away.
   * @param rate what the learning rates are multiplied by: below 1 after a roll back
   */
  advance(state: State, step: number, rate?: number): Promise<{ state: State; metrics: Pending }>;
  /** What the run folder shows of the state every so many steps (0: never), always from the same noise: a WebP picture. */
  samples?: { every: number; draw(state: State): Promise<Uint8Array> } | undefined;
  /** Which state to keep as `best.safetensors`: the EMA of `net` with the highest score, judged every so many steps past step `from`. */
  best?: { every: number; from: number; net: string; score(state: State): Promise<{ score: number } & Metrics> };
}

export interface Progress {
  job: string;
  /** Steps done. */
  step: number;
  steps: number;
  /** Steps a second, lately. */
  speed: number;
  /** Seconds left. */
  eta: number;
  metrics: Metrics;
}

export interface LoopOptions {
  device: Device;
  folder: string;
  /** Everything that decides the numbers of the run. */
  config: Json;
  environment: Record<string, Json>;
  saveEvery: number;
  /** Steps in a row whose update was turned away before the run rolls back. */
  maxSkipped: number;
  /** Aborted: finish the step, save, return. */
  signal?: AbortSignal | undefined;
  /** The processes that drive it together; the signal is not for them. */
  ranks?: Ranks | undefined;
  onProgress?: ((p: Progress) => void) | undefined;
  onAlarm?: ((a: Alarm) => void) | undefined;
}

/** Rolling back with smaller and smaller learning rates did not help. */
export class Diverged extends Error {}

const ROLL_BACKS = 3; // each halves the learning rates

export interface LoopResult {
  state: State;
  step: number;
  done: boolean;
}

/** Runs a job to its end or to the signal, from the folder's last checkpoint if there is one. The caller frees the state. */
export async function drive(job: Job, o: LoopOptions): Promise<LoopResult> {
  const environment = { ...o.environment, steps: job.steps, ...(o.ranks && { ranks: o.ranks.size }) };
  const folder = isLeader(o.ranks) ? await RunFolder.open(o.folder, o.config, environment) : undefined;
  try {
    return await new Loop(job, o, folder).run();
  } finally {
    folder?.close();
  }
}

class Loop {
  private readonly job: Job;
  private readonly o: LoopOptions;
  /** Of the rank that keeps what comes of it. */
  private readonly folder: RunFolder | undefined;
  private state!: State;
  /** Steps that are queued or done. */
  private step = 0;
  /** The last of them, if its numbers were not looked at yet. */
  private unread: { step: number; metrics: Pending } | undefined;
  /** When numbers were looked at last, and seconds between, lately. */
  private looked = 0;
  private seconds = 0;
  /** Steps before this one compile. */
  private warm = 0;
  /** Of the learning rates: halved by each roll back, kept in the checkpoints. */
  private rate = 1;
  private onDisk = 0;
  private best = -Infinity;
  /** Steps in a row that were turned away. */
  private skipped = 0;
  /** Whether any step of the run had finite gradients. */
  private wasFinite = false;
  private watch!: Watch;
  /** Step of the last roll back's checkpoint: one that fails twice is given up. */
  private rolledTo = -1;

  constructor(job: Job, o: LoopOptions, folder: RunFolder | undefined) {
    this.job = job;
    this.o = o;
    this.folder = folder;
  }

  async run(): Promise<LoopResult> {
    const { job, o } = this;
    await this.restore();
    if (this.folder) this.best = await bestScore(o.folder);
    this.warm = this.step + 2;
    if (this.step === 0 && job.samples?.every) await this.draw();
    this.looked = performance.now();
    while (this.step < job.steps && !o.signal?.aborted) {
      const { state, metrics } = await job.advance(this.state, this.step, this.rate);
      this.state = state;
      this.step++;
      // The device is at this step now: time for the numbers of the one before. Only where
      // something is done with the state are its own waited for.
      if (!(await this.look())) continue;
      this.unread = { step: this.step - 1, metrics };
      if ((this.isDue() || o.signal?.aborted) && (await this.look())) await this.keep();
    }
    const done = this.step >= job.steps;
    if (done || this.skipped === 0) await this.save();
    return { state: this.state, step: this.step, done };
  }

  /** Looks at the numbers of the step that is unread. @returns whether the run goes on from the state it has: else it was rolled back */
  private async look(): Promise<boolean> {
    if (!this.unread) return true;
    const {
      job,
      o,
      unread: { step, metrics: pending },
    } = this;
    const metrics = await pending;
    this.unread = undefined;
    const took = (performance.now() - this.looked) / 1000;
    this.looked = performance.now();
    this.seconds = step < this.warm ? took : 0.9 * this.seconds + 0.1 * took;
    this.note(step, { ...metrics, seconds: Number(took.toFixed(4)) });
    this.skipped = turnedAway(metrics) > 0 ? this.skipped + 1 : 0;
    this.wasFinite ||= this.skipped === 0;
    const good = this.skipped < o.maxSkipped;
    if (!good) await this.rollBack(step + 1);
    const done = good ? step + 1 : this.step;
    o.onProgress?.({
      job: job.name,
      step: done,
      steps: job.steps,
      speed: 1 / this.seconds,
      eta: (job.steps - done) * this.seconds,
      metrics,
    });
    return good;
  }

  /** Whether it is time to do something every so many steps. */
  private every(count: number): boolean {
    return count > 0 && (this.step % count === 0 || this.step === this.job.steps);
  }

  private isDue(): boolean {
    const { job, o } = this;
    return [job.best?.every, job.samples?.every, o.saveEvery].some((count) => this.every(count ?? 0));
  }

  /** Logs a step's numbers and the alarms they raise. */
  private note(step: number, metrics: Metrics): void {
    this.folder?.log({ step, ...metrics });
    for (const alarm of this.watch.observe(step, metrics)) this.alarm(this.placed(alarm));
  }

  /** With the op and line where f16's range was left first. */
  private placed(alarm: Alarm): Alarm {
    const { outOfRange } = this.o.device;
    const where = alarm.kind === "out of f16's range" && outOfRange;
    return where ? { ...alarm, cause: `${alarm.cause}; first, ${where}` } : alarm;
  }

  private alarm(alarm: Alarm): void {
    const { kind, step, ...rest } = alarm;
    this.folder?.log({ step, alarm: kind, ...rest });
    if (this.folder) this.o.onAlarm?.(alarm);
  }

  /** Judges, draws and saves after a step, where it is time. */
  private async keep(): Promise<void> {
    const { job, o, step, folder } = this;
    if (folder && job.best && step > job.best.from && this.every(job.best.every)) {
      const { score, ...rest } = await job.best.score(this.state);
      this.note(step - 1, { score, ...rest });
      if (score > this.best) {
        this.best = score;
        folder.check();
        await saveAverage(bestFile(o.folder), this.state[job.best.net]!.ema!, { step, score });
      }
    }
    if (job.samples && this.every(job.samples.every)) await this.draw();
    if (step % o.saveEvery === 0 && this.skipped === 0) await this.save(); // a checkpoint is good: its last step was
    this.looked = performance.now(); // not a step's time
  }

  private async draw(): Promise<void> {
    if (!this.job.samples || !this.folder) return;
    const picture = await this.job.samples.draw(this.state);
    this.folder.check();
    writeWhole(samplesFile(this.o.folder, this.step), picture);
  }

  private async save(): Promise<void> {
    const { folder, step, rate } = this;
    if (this.onDisk === step) return;
    folder?.check();
    if (folder) await saveCheckpoint(folder.path, this.state, { job: this.job.name, step, config: folder.hash, rate });
    this.onDisk = step;
  }

  /** Takes the newest checkpoint, or the start, and what the alarms knew then. */
  private async restore(): Promise<void> {
    const { job, o, folder } = this;
    const last = (await agreed(o.ranks, async () => await latestCheckpoint(o.folder))) ?? undefined;
    const saved = last ? await openSaved(last) : undefined;
    try {
      if (saved && folder && (saved.meta.config !== folder.hash || nameNow(saved.meta.job) !== job.name)) {
        throw new Error(
          `[resume] ${last} belongs to another run (${saved.meta.job}, configuration ${saved.meta.config}, expected ${job.name}, ${folder.hash})`,
        );
      }
      this.state = await (saved ? placeState(o.device, saved.state) : job.initial());
    } finally {
      await saved?.close();
    }
    this.step = this.onDisk = saved?.meta.step ?? 0;
    this.rate = saved?.meta.rate ?? 1;
    this.skipped = 0;
    this.watch = new Watch();
    for (const { step, ...metrics } of numbersOf(folder?.rewind(this.step) ?? [])) this.watch.observe(step, metrics);
  }

  /**
   * Back to the last good checkpoint at half the learning rate; back beyond one that has failed before.
   * @throws one line after the last try
   */
  private async rollBack(failed: number): Promise<void> {
    const { job, o, rate } = this;
    if (!this.wasFinite && this.onDisk <= 0)
      throw new Diverged(
        `[${job.name}] not one of the first ${failed} steps had a gradient that is finite, which no learning rate does: weights that it starts from, the teacher's or its checkpoint's, are not finite, or the data are not`,
      );
    if (rate <= 0.5 ** ROLL_BACKS) {
      throw new Diverged(
        `[${job.name}] ${this.skipped} steps in a row had a gradient that is not finite, up to step ${failed}, also at ${rate} of the learning rate; the weights are as before them. Lower the learning rate, or look at the data`,
      );
    }
    this.folder?.check();
    freeTree(this.state);
    if (this.folder && this.rolledTo === this.onDisk) await dropCheckpoint(o.folder, this.onDisk);
    await this.restore();
    this.rolledTo = this.step;
    this.rate = rate / 2;
    this.onDisk = -1;
    await this.save(); // with the new rate
    this.alarm({
      kind: 'rolled back',
      step: Math.max(0, this.step - 1),
      value: this.rate,
      of: 'rate',
      cause: `${o.maxSkipped} steps in a row up to step ${failed} had a gradient that is not finite`,
      remedy: `the run goes on from step ${this.step} at ${this.rate} of the learning rate, ${ROLL_BACKS} times at most; lower it in the preset`,
    });
  }
}

/** Where the picture of a run after so many steps lies. */
const samplesFile = (folder: string, step: number): string =>
  join(folder, 'samples', `${String(step).padStart(8, '0')}.webp`);

/** The average with the best score, of a job with a judge. */
export const bestFile = (folder: string): string => join(folder, 'best.safetensors');
/** The last average of a job that is done. */
export const lastFile = (folder: string): string => join(folder, 'last.safetensors');

/** Averaged weights of a run, after how many steps they were taken, and their score, if they have one. @throws when there are none */
export async function readAverage(path: string): Promise<{ params: HostParams; step: number; score: number }> {
  const weights = await openWeights(path);
  try {
    const params: HostParams = {};
    for (const name of weights.entries.keys()) params[name] = await weights.finiteTensor(name);
    return { params, step: Number(weights.metadata['step']), score: Number(weights.metadata['score']) };
  } finally {
    await weights.close();
  }
}

/** The best of a run. */
export const readBest = (folder: string): ReturnType<typeof readAverage> => readAverage(bestFile(folder));

async function bestScore(folder: string): Promise<number> {
  return existsSync(bestFile(folder)) ? (await readBest(folder)).score : -Infinity;
}

/** Averaged weights on a device as a file, with what `readAverage` tells of them. @throws one line */
export async function saveAverage(
  path: string,
  weights: Record<string, NDArray>,
  about: { step: number; score?: number },
): Promise<void> {
  try {
    await saveTensors(path, weights, {
      metadata: Object.fromEntries(Object.entries(about).map(([name, x]) => [name, String(x)])),
    });
  } catch (error) {
    throw writeError('checkpoint', path, error, '; what was there is intact');
  }
}

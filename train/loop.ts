/** The one loop that drives every training job: step, log, save, resume, stop. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Device } from '../engine/device.ts';
import type { NDArray } from '../engine/ndarray.ts';
import type { HostTensor } from '../engine/tree.ts';
import type { HostParams } from '../model/params.ts';
import { openWeights } from '../model/files/open.ts';
import { saveTensors } from '../model/files/safetensors.ts';
import { latestCheckpoint, loadCheckpoint, saveCheckpoint, toDevice, toHost, type State } from './checkpoint.ts';
import { writeError } from './files.ts';
import { RunFolder, type Json } from './run.ts';

export type Metrics = Record<string, number>;

/** A training job as pure functions: all randomness comes from (seed, step, role), so a state and a step decide what follows. */
export interface Job {
  name: string;
  steps: number;
  /** The state before step 0. */
  initial(): Promise<State<HostTensor>>;
  /** One step. Metrics whose name ends in `skipped` count updates that a non-finite gradient turned away. */
  advance(state: State, step: number): Promise<{ state: State; metrics: Metrics }>;
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
  environment: Json;
  saveEvery: number;
  /** Steps in a row whose update was turned away before the run gives up. */
  maxSkipped: number;
  /** Aborted: finish the step, save, return. */
  signal?: AbortSignal | undefined;
  onProgress?: ((p: Progress) => void) | undefined;
}

export interface LoopResult { state: State; step: number; done: boolean }

/** Runs a job to its end or to the signal, from the folder's last checkpoint if there is one. The caller frees the state. */
export async function drive(job: Job, o: LoopOptions): Promise<LoopResult> {
  const folder = await RunFolder.open(o.folder, o.config, o.environment);
  try {
    const last = await latestCheckpoint(o.folder);
    const saved = last ? await loadCheckpoint(last) : undefined;
    if (saved && (saved.meta.config !== folder.hash || saved.meta.job !== job.name)) {
      throw new Error(`[resume] ${last} belongs to another run (${saved.meta.job}, configuration ${saved.meta.config}, expected ${job.name}, ${folder.hash})`);
    }
    let state = toDevice(o.device, saved?.state ?? await job.initial());
    let step = saved?.meta.step ?? 0;
    let onDisk = step;
    await folder.rewind(step);
    let best = await bestScore(o.folder);
    let skipped = 0;
    const first = step;
    let seconds = 0;

    const save = async () => {
      if (onDisk === step) return;
      await saveCheckpoint(o.folder, await toHost(state), { job: job.name, step, config: folder.hash });
      onDisk = step;
    };

    while (step < job.steps && !o.signal?.aborted) {
      const start = performance.now();
      const result = await job.advance(state, step);
      state = result.state;
      const took = (performance.now() - start) / 1000;
      seconds = step < first + 2 ? took : 0.9 * seconds + 0.1 * took; // the first step compiles
      folder.log({ step, ...result.metrics, seconds: Number(took.toFixed(4)) });
      step++;

      const bad = Object.entries(result.metrics).some(([name, x]) => name.toLowerCase().endsWith('skipped') && x > 0);
      skipped = bad ? skipped + 1 : 0;
      if (skipped >= o.maxSkipped) {
        throw new Error(`[${job.name}] ${skipped} steps in a row had a gradient that is not finite, up to step ${step}; the weights are as before them. Lower the learning rate`);
      }
      if (job.best && step > job.best.from && (step % job.best.every === 0 || step === job.steps)) {
        const { score, ...rest } = await job.best.score(state);
        folder.log({ step: step - 1, score, ...rest });
        if (score > best) {
          best = score;
          await saveBest(o.folder, state[job.best.net]!.ema!, step, score);
        }
      }
      if (step % o.saveEvery === 0) await save();
      o.onProgress?.({ job: job.name, step, steps: job.steps, speed: 1 / seconds, eta: (job.steps - step) * seconds, metrics: result.metrics });
    }
    await save();
    return { state, step, done: step >= job.steps };
  } finally {
    await folder.close();
  }
}

const bestFile = (folder: string): string => join(folder, 'best.safetensors');

/** The best EMA of a run, after how many steps it was taken, and its score. @throws when there is none */
export async function readBest(folder: string): Promise<{ params: HostParams; step: number; score: number }> {
  const weights = await openWeights(bestFile(folder));
  try {
    const params: HostParams = {};
    for (const name of weights.entries.keys()) params[name] = await weights.tensor(name);
    return { params, step: Number(weights.metadata['step']), score: Number(weights.metadata['score']) };
  } finally {
    await weights.close();
  }
}

async function bestScore(folder: string): Promise<number> {
  return existsSync(bestFile(folder)) ? (await readBest(folder)).score : -Infinity;
}

async function saveBest(folder: string, weights: Record<string, NDArray>, step: number, score: number): Promise<void> {
  try {
    await saveTensors(bestFile(folder), await toHost(weights) as HostParams, { metadata: { step: String(step), score: String(score) } });
  } catch (error) {
    throw writeError('checkpoint', bestFile(folder), error, '; what was there is intact');
  }
}

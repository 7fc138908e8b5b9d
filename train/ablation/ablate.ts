/**
 * Trains and judges ablation rows, in `out`:
 *
 *   stages/JOB-HASH/           a job's run; the hash names all that decides its numbers, so that rows share what they begin with
 *   results/ROW-SEED.json      what a row's student is worth on the held-out conditions
 *
 * Everything that is there already is not done again, so a run may be killed at any point.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { NDArray } from '../../engine/runtime/ndarray.ts';
import type { DiTConfig } from '../../model/config.ts';
import type { HostParams } from '../../model/params.ts';
import { STAGES, type Row } from './rows.ts';
import { dropCheckpoints, freeTree, toDevice } from '../loop/checkpoint.ts';
import { ditConfigOf } from '../methods/conditions.ts';
import type { Shards } from '../data/shards.ts';
import { judged } from '../distill.ts';
import { Judge } from '../judge/eval.ts';
import { writeWhole } from '../loop/files.ts';
import { Diverged, lastFile, readAverage, readBest, saveAverage, type Progress } from '../loop/loop.ts';
import { loadClassifier } from '../metrics/classifier.ts';
import type { Evaluation } from '../metrics/evaluate.ts';
import { checkFit, checkPair, loadDiT, loadVAE, type Model } from '../loop/models.ts';
import { wholeOf } from '../methods/networks.ts';
import { precompute } from '../pipeline.ts';
import { checkPreset, type Preset } from '../presets/index.ts';
import { hashOf } from '../loop/run.ts';
import { Codec, endsOf, Sampler, studentSampler } from '../methods/sample.ts';
import { run, type Work } from '../work.ts';

export interface Ablate extends Work {
  vae: string;
  teacher: string;
  classifier: string;
  /** Folder of the precomputed latents' run. */
  data: string;
  rows: readonly Row[];
  /** How many; each row is trained with the preset's seed and those after it. */
  seeds: number;
  /** Generator updates of every row. */
  updates: number;
  /** Told of every step: steps done and in all, over every stage of every row. */
  onStep?: (at: { done: number; total: number; row: Row; seed: number } & Pick<Progress, 'job' | 'metrics'>) => void;
  /** Told when a row has been judged. */
  onResult?: (results: readonly Result[]) => Promise<void>;
}

export interface Judged {
  step: number;
  score: number;
  evaluation: Evaluation;
}

/** One row with one seed: the average with the best validation score, and the last one, on held-out conditions. */
export interface Result {
  row: string;
  seed: number;
  kept?: Judged;
  last?: Judged;
  /** Why there is none. */ failed?: string;
}

/** A stage of a row: its preset, its folder, and what of it is shared. */
interface Planned {
  name: keyof typeof STAGES;
  preset: Preset;
  settings: Record<string, unknown>;
  folder: string;
  steps: number;
}

/** The stages of a row, each named by everything before it. */
function planned(w: Ablate, row: Row, seed: number, shards: Shards, teacher: Model<DiTConfig>): Planned[] {
  const base = { ...w.preset, seed };
  const changed = checkPreset(row.change?.(base) ?? base);
  const { phase1, phase2 } = w.preset;
  const first =
    row.stages.length === 1
      ? w.updates
      : Math.max(1, Math.round((w.updates * phase1.steps) / (phase1.steps + phase2.steps)));
  let before: string | null = null;
  return row.stages.map((name, i) => {
    const stage = STAGES[name];
    const preset = stage.budget(changed, i === 0 ? first : Math.max(1, w.updates - first));
    const { student, best } = preset;
    const settings = {
      data: shards.made,
      dit: ditConfigOf(preset),
      teacher: teacher.hash,
      student,
      best,
      before,
      ...stage.settings(preset),
    };
    const hash = hashOf({ name, seed, ...settings });
    before = hash;
    return { name, preset, settings, folder: `${name}-${hash}`, steps: stage.steps(preset) };
  });
}

/** Trains and judges every row. @returns the results there are; `done` is false when the signal stopped it */
export async function ablate(w: Ablate): Promise<{ results: Result[]; done: boolean }> {
  const { preset: p, device } = w;
  if (!p.best.every)
    throw new Error(
      '[ablate] best.every=0 keeps no best average, and that is what is compared: give it a number of steps',
    );
  const vae = await loadVAE(w.vae);
  const teacher = await loadDiT(w.teacher);
  checkPair(vae, teacher);
  checkFit(teacher, ditConfigOf(p));
  const shards = await precompute({ ...w, out: w.data });
  const codec = new Codec(device, vae.config, vae.params);
  const sampler = new Sampler(device, p, endsOf(p, codec));
  try {
    const classifier = await loadClassifier(w.classifier);
    const [validation, heldOut] = [Judge.validation(p, classifier), Judge.heldOut(p, classifier)];
    const seeds = Array.from({ length: w.seeds }, (_, i) => p.seed + i);
    const plan = seeds.flatMap((seed) =>
      w.rows.map((row) => ({ row, seed, stages: planned(w, row, seed, shards, teacher) })),
    );
    const stages = join(w.out, 'stages');
    const all = new Map(plan.flatMap((x) => x.stages.map((s) => [s.folder, s.steps])));
    const total = [...all.values()].reduce((a, b) => a + b, 0);
    const finished = () =>
      [...all].reduce((sum, [folder, steps]) => sum + (existsSync(lastFile(join(stages, folder))) ? steps : 0), 0);

    /** Trains a stage that is not finished. @returns false when the signal stopped it */
    const train = async (stage: Planned, row: Row, seed: number, primed: HostParams | undefined): Promise<boolean> => {
      const { preset, settings, folder } = stage;
      const before = finished();
      const job = await STAGES[stage.name].open(device, preset, shards, teacher.params, primed);
      const work = {
        ...w,
        preset,
        out: stages,
        onProgress: ({ step, metrics }: Progress) =>
          w.onStep?.({ done: before + step, total, row, seed, job: job.name, metrics }),
      };
      const { state, step, done } = await run(
        work,
        {
          ...judged(job, preset, (net) => validation.choose(sampler, net, studentSampler(preset.student.steps))),
          name: folder,
        },
        settings,
      );
      try {
        if (done) await saveAverage(lastFile(join(stages, folder)), state['generator']!.ema!, { step });
      } finally {
        freeTree(state);
      }
      if (done) await dropCheckpoints(join(stages, folder));
      return done;
    };
    const judge = async (
      { params, step }: { params: HostParams; step: number },
      preset: Preset,
      row: Row,
    ): Promise<Judged> => {
      const net = toDevice(device, wholeOf(preset.student, teacher.params, params)) as Record<string, NDArray>;
      const { evaluation } = await heldOut
        .judge(sampler, net, studentSampler(row.evaluations ?? preset.student.steps), { signal: w.signal })
        .finally(() => freeTree(net));
      return { step, score: heldOut.score(evaluation), evaluation };
    };

    const results: Result[] = [];
    for (const { row, seed, stages: chain } of plan) {
      const { preset, folder } = chain.at(-1)!;
      const file = join(w.out, 'results', `${row.id}-${seed}.json`);
      const key = hashOf({ folder, evaluations: row.evaluations ?? null, heldOut: p.data.heldOutClips });
      const known = existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as Result & { key: string }) : undefined;
      if (known?.key === key) {
        results.push(known);
        continue;
      }
      const result: Result = { row: row.id, seed };
      try {
        let primed: HostParams | undefined;
        for (const stage of chain) {
          const at = join(stages, stage.folder);
          if (!existsSync(lastFile(at)) && !(await train(stage, row, seed, primed))) return { results, done: false };
          primed = (await readBest(at)).params;
        }
        result.kept = await judge(await readBest(join(stages, folder)), preset, row);
        result.last = await judge(await readAverage(lastFile(join(stages, folder))), preset, row);
      } catch (error) {
        if (!(error instanceof Diverged)) throw error;
        result.failed = error.message;
      }
      writeWhole(file, JSON.stringify({ ...result, key }, null, 1));
      results.push(result);
      await w.onResult?.(results);
    }
    return { results, done: true };
  } finally {
    await sampler.close();
    await codec.close();
  }
}

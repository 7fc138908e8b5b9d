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
import type { HostParams } from '../../model/params.ts';
import type { Row } from './rows.ts';
import type { Metrics } from '../loop/pending.ts';
import { freeTree, toDevice } from '../loop/checkpoint.ts';
import { ditConfigOf } from '../methods/conditions.ts';
import { commonSettings, runStages, type Turn } from '../distill.ts';
import { judgesOf } from '../judge/judges.ts';
import { writeWhole } from '../loop/files.ts';
import { Diverged, lastFile, readAverage, readBest, type Progress } from '../loop/loop.ts';
import { checkFit, checkPair, loadDiT, loadVAE } from '../loop/models.ts';
import { wholeOf } from '../methods/networks.ts';
import { precompute } from '../pipeline.ts';
import { checkPreset, type Preset } from '../presets/index.ts';
import { underNamesBefore } from '../presets/renamed.ts';
import { hashOf } from '../loop/run.ts';
import { cutAsBegun } from '../ranks/cut.ts';
import { agreed, isLeader } from '../ranks/ranks.ts';
import { Codec, endsOf, Sampler, studentSampler } from '../methods/sample.ts';
import type { Work } from '../work.ts';

export interface Ablate extends Work {
  vae: string;
  teacher: string;
  /** Path of the judge's weights. */
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
  onResult?: (results: readonly Result[], scored: string) => Promise<void>;
}

export interface Judged {
  step: number;
  score: number;
  /** By the headings of the preset's judge. */
  measures: Metrics;
}

/** One row with one seed: the average with the best validation score, and the last one, on held-out conditions. */
export interface Result {
  row: string;
  seed: number;
  kept?: Judged;
  last?: Judged;
  /** Why there is none. */ failed?: string;
}

/** The stages of a row, each in a folder named by everything before it. */
function turnsOf(w: Ablate, row: Row, seed: number, made: Record<string, unknown>): (Turn & { course: Preset })[] {
  const base = { ...w.preset, seed };
  const changed = checkPreset(row.change?.(base) ?? base);
  const { priming, equilibrium } = w.preset;
  const first =
    row.stages.length === 1
      ? w.updates
      : Math.max(1, Math.round((w.updates * priming.steps) / (priming.steps + equilibrium.steps)));
  let before: string | null = null;
  return row.stages.map((stage, i) => {
    const course = stage.budget(changed, i === 0 ? first : Math.max(1, w.updates - first));
    const settings = { ...commonSettings(course, made), before, ...stage.settings(course) };
    const hash = hashOf({ name: stage.name, seed, ...underNamesBefore(settings) }); // found again in folders of before
    before = hash;
    return { stage, course, settings, folder: `${stage.name}-${hash}` };
  });
}

/** Trains and judges every row. @returns the results there are; `done` is false when the signal stopped it */
export async function ablate(w: Ablate): Promise<{ results: Result[]; done: boolean; scored: string }> {
  const { device, ranks } = w;
  const folder = { folder: w.out, job: 'ablations', begun: () => existsSync(join(w.out, 'stages')) };
  const p = await cutAsBegun(w.preset, folder, ranks);
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
    const { validation, heldOut } = await judgesOf(p, w.classifier);
    const seeds = Array.from({ length: w.seeds }, (_, i) => p.seed + i);
    const made = { data: shards.made, teacher: teacher.hash };
    const plan = seeds.flatMap((seed) =>
      w.rows.map((row) => ({ row, seed, turns: turnsOf({ ...w, preset: p }, row, seed, made) })),
    );
    const stages = join(w.out, 'stages');
    const all = new Map(plan.flatMap((x) => x.turns.map((t) => [t.folder, t.stage.steps(t.course)])));
    const total = [...all.values()].reduce((a, b) => a + b, 0);
    const finished = () =>
      [...all].reduce((sum, [folder, steps]) => sum + (existsSync(lastFile(join(stages, folder))) ? steps : 0), 0);

    /** Trains the stages of a row that are not finished. @returns false when the signal stopped it */
    const train = async ({ row, seed, turns }: (typeof plan)[number]): Promise<boolean> => {
      const at = { job: '', before: 0 };
      const onProgress = ({ job, step, metrics }: Progress) => {
        if (job !== at.job) Object.assign(at, { job, before: finished() });
        const { name } = turns.find((t) => t.folder === job)!.stage;
        w.onStep?.({ done: at.before + step, total, row, seed, job: name, metrics });
      };
      const { done } = await runStages({ ...w, out: stages, onProgress }, turns, {
        shards,
        teacher: teacher.params,
        choose: (net) => validation.choose(sampler, net, studentSampler(turns[0]!.course.student.steps)),
        archive: true,
      });
      return done;
    };
    const judge = async (
      { params, step }: { params: HostParams; step: number },
      preset: Preset,
      row: Row,
    ): Promise<Judged> => {
      const net = toDevice(device, wholeOf(preset.student, teacher.params, params)) as Record<string, NDArray>;
      const judged = await heldOut
        .measure(sampler, net, studentSampler(row.evaluations ?? preset.student.steps), { signal: w.signal })
        .finally(() => freeTree(net));
      return { step, ...judged };
    };

    const results: Result[] = [];
    for (const trial of plan) {
      const { row, seed, turns } = trial;
      const { course, folder } = turns.at(-1)!;
      const file = join(w.out, 'results', `${row.id}-${seed}.json`);
      const key = hashOf({
        folder,
        evaluations: row.evaluations ?? null,
        heldOut: p.data.heldOutClips,
        scored: heldOut.scored,
      });
      const known = await agreed(ranks, () =>
        existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as Result & { key: string }) : undefined,
      );
      if (known?.key === key) {
        results.push(known);
        continue;
      }
      const result: Result = { row: row.id, seed };
      try {
        if (!(await train(trial))) return { results, done: false, scored: heldOut.scored };
        if (!isLeader(ranks)) continue;
        result.kept = await judge(await readBest(join(stages, folder)), course, row);
        result.last = await judge(await readAverage(lastFile(join(stages, folder))), course, row);
      } catch (error) {
        if (!(error instanceof Diverged)) throw error;
        result.failed = error.message;
      }
      if (!isLeader(ranks)) continue;
      writeWhole(file, JSON.stringify({ ...result, key }, null, 1));
      results.push(result);
      await w.onResult?.(results, heldOut.scored);
    }
    return { results, done: true, scored: heldOut.scored };
  } finally {
    await sampler.close();
    await codec.close();
  }
}

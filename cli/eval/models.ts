/** `vpae eval` of a folder of models: they sample the held-out conditions, and are judged beside the real clips. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { heldOutClips, type Clip } from '../../train/data/sets.ts';
import type { ClipJudge } from '../../train/judge/clipjudge.ts';
import { Judge } from '../../train/judge/eval.ts';
import { FlareJudge, type FlareReport } from '../../train/judge/flarejudge.ts';
import { evaluate, sampleClips, type Infer } from '../../train/judge/infer.ts';
import { loadClassifier } from '../../train/metrics/classifier.ts';
import { frameOf } from '../../train/data/frames.ts';
import type { Evaluation } from '../../train/metrics/evaluate.ts';
import type { Preset } from '../../train/presets/index.ts';
import { videoShape } from '../../train/methods/conditions.ts';
import { clipTakes, type Conditions } from '../../train/vbench/clips.ts';
import { measure, type Measured } from '../../train/vbench/measure.ts';
import { digitProxies, PROXIES } from '../../train/vbench/proxies.ts';
import { BUNDLE, CLASSIFIER, classifierOf, loadNet, modelFile, ownOr } from '../common/files.ts';
import { meter } from '../common/progress.ts';
import { session } from '../common/session.ts';
import {
  byFrame,
  cells,
  COLUMNS,
  draw,
  FLARE_COLUMNS,
  FLARE_NOTE,
  flareCells,
  NOTE,
  type Row,
} from '../common/table.ts';
import { writeLayout } from './layout.ts';
import { vbenchTable } from './vbench.ts';

export interface ModelsArgs {
  model: string;
  teacher: boolean;
  student: boolean;
  count: number;
  json: boolean;
  steps?: number | undefined;
  vbench: boolean;
  save?: string | undefined;
}

/** The kinds to judge: those asked for, else those that are there. */
function kinds({ model: dir, teacher, student }: ModelsArgs): ('teacher' | 'student')[] {
  const both = ['teacher', 'student'] as const;
  if (teacher || student) return both.filter((k) => (k === 'teacher' ? teacher : student));
  const there = both.filter((k) => existsSync(modelFile(dir, k)));
  if (!there.length) throw new Error(`[eval] ${dir} holds neither teacher.safetensors nor student.safetensors`);
  return there;
}

/** How the models of a data set are judged by labels, and how that is told. */
interface Labelled<E> {
  judge: (p: Preset) => Promise<ClipJudge<Clip, E>>;
  text: (rows: readonly Row<E>[]) => string;
}

const digits = (count: number): Labelled<Evaluation> => ({
  judge: async (p) => Judge.heldOut(p, await loadClassifier(CLASSIFIER), count),
  text: (rows) => `${draw(COLUMNS, cells(rows))}\n${byFrame(rows)}\n${NOTE}`,
});

const flare = (count: number, dir: string): Labelled<FlareReport> => ({
  judge: (p) => FlareJudge.heldOut(p, classifierOf(p, dir), count),
  text: (rows) => `${draw(FLARE_COLUMNS, flareCells(rows))}\n${FLARE_NOTE}`,
});

export async function evaluateModels(args: ModelsArgs): Promise<void> {
  const asked = kinds(args);
  const presets: Preset[] = [];
  for (const kind of asked) presets.push((await loadNet(args.model, kind)).about.preset);
  const sets = new Set(presets.map((p) => p.data.set ?? 'digits'));
  if (sets.size > 1)
    throw new Error(`[eval] the models in ${args.model} are of other data: ${[...sets].join(' and ')}`);
  const [set] = sets;
  const instruments = set === 'digits' ? digitProxies(await loadClassifier(CLASSIFIER)) : PROXIES;
  await session('stopped; what is written stays', async ({ device, signal }) => {
    const vbench: { name: string; measured: Measured }[] = [];
    /** Measures and keeps a set of clips, as far as that was asked for. */
    const keep = async (name: string, conditions: Conditions, videos: readonly Float32Array[]) => {
      if (args.vbench || set === 'emoji')
        vbench.push({ name, measured: await measure(clipTakes(conditions, videos), instruments) });
      if (args.save !== undefined) {
        const dir = join(args.save, name.replace(' ', '-'));
        console.error(`${dir}: ${videos.length} clips as ${await writeLayout(dir, conditions, videos)}`);
      }
    };
    /** Does the work on each kind of model. */
    const each = async (work: (w: Infer, kind: string, k: number) => Promise<void>): Promise<void> => {
      for (const [k, kind] of asked.entries()) {
        const shown = meter(kind, { unit: 'clips', total: args.count, memory: () => device.allocated });
        const infer: Infer = {
          device,
          vae: ownOr(args.model, BUNDLE, 'vae'),
          model: modelFile(args.model, kind),
          steps: args.steps,
          signal,
          onProgress: (done) => shown.at(Math.floor(Math.min(done, args.count))),
        };
        await work(infer, kind, k).finally(shown.end);
      }
    };
    const byLabels = async <E>({ judge, text }: Labelled<E>): Promise<{ rows: readonly unknown[]; text: string }> => {
      const rows: Row<E>[] = [];
      await each(async (w, kind, k) => {
        const report = await evaluate({ ...w, judge });
        const { samples, evaluation } = report;
        const real = report.judge.clips.map((c) => c.video);
        if (k === 0) rows.push({ name: 'real clips', evaluation: report.real });
        const secondsPerClip = samples.seconds / samples.videos.length;
        rows.push({ name: kind, evaluations: samples.evaluations, secondsPerClip, evaluation });
        if (k === 0) await keep('real clips', report.judge, real);
        await keep(kind, report.judge, samples.videos);
      });
      return { rows, text: text(rows) };
    };
    const unlabelled = (): Promise<void> =>
      each(async (w, kind, k) => {
        const preset = presets[k]!;
        const conditions = { preset, clips: heldOutClips(preset, args.count) };
        const real = conditions.clips.map((c) => c.video);
        const requests = conditions.clips.map(({ caption, video }, seed) => ({
          caption,
          frame: frameOf(video, videoShape(preset), 0),
          seed,
        }));
        const { videos } = await sampleClips({ ...w, requests });
        if (k === 0) await keep('real clips', conditions, real);
        await keep(kind, conditions, videos);
      });
    const told =
      set === 'emoji'
        ? await unlabelled()
        : set === 'flare'
          ? await byLabels(flare(args.count, args.model))
          : await byLabels(digits(args.count));
    if (args.json) {
      console.log(
        JSON.stringify({
          conditions: args.count,
          adapter: device.info.name,
          ...(told && { rows: told.rows }),
          ...(vbench.length && { vbench }),
        }),
      );
      return;
    }
    if (told) console.log(`${told.text}\n${args.count} held-out conditions, ${device.info.name}.`);
    if (vbench.length) console.log(`${told ? '\n' : ''}${vbenchTable(vbench)}`);
  });
}

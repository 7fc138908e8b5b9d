/** `vpae eval` of a folder of models: they sample the held-out conditions, and are judged beside the real clips. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { heldOutClips } from '../../train/data/sets.ts';
import { evaluate, sampleClips, type Infer, type Report } from '../../train/judge/infer.ts';
import { loadClassifier } from '../../train/metrics/classifier.ts';
import { frameOf } from '../../train/data/frames.ts';
import type { Preset } from '../../train/presets/index.ts';
import { videoShape } from '../../train/methods/conditions.ts';
import { clipTakes, type Conditions } from '../../train/vbench/clips.ts';
import { measure, type Instruments, type Measured } from '../../train/vbench/measure.ts';
import { digitProxies, PROXIES } from '../../train/vbench/proxies.ts';
import { BUNDLE, CLASSIFIER, loadNet, modelFile, ownOr } from '../common/files.ts';
import { meter } from '../common/progress.ts';
import { session } from '../common/session.ts';
import { byFrame, cells, COLUMNS, draw, NOTE, type Row } from '../common/table.ts';
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

const row = (name: string, { evaluation, samples }: Report): Row => ({
  name,
  evaluations: samples.evaluations,
  secondsPerClip: samples.seconds / samples.videos.length,
  evaluation,
});

export async function evaluateModels(args: ModelsArgs): Promise<void> {
  const asked = kinds(args);
  const presets: Preset[] = [];
  for (const kind of asked) presets.push((await loadNet(args.model, kind)).about.preset);
  const isDigits = presets.every((p) => p.data.set !== 'emoji');
  const instruments: Instruments = isDigits ? digitProxies(await loadClassifier(CLASSIFIER)) : PROXIES;
  await session('stopped; what is written stays', async ({ device, signal }) => {
    const rows: Row[] = [];
    const vbench: { name: string; measured: Measured }[] = [];
    /** Measures and keeps a set of clips, as far as that was asked for. */
    const keep = async (name: string, conditions: Conditions, videos: readonly Float32Array[]) => {
      if (args.vbench || !isDigits)
        vbench.push({ name, measured: await measure(clipTakes(conditions, videos), instruments) });
      if (args.save !== undefined) {
        const dir = join(args.save, name.replace(' ', '-'));
        console.error(`${dir}: ${videos.length} clips as ${await writeLayout(dir, conditions, videos)}`);
      }
    };
    for (const [k, kind] of asked.entries()) {
      const shown = meter(kind, { unit: 'clips', total: args.count, memory: () => device.allocated });
      const work: Infer = {
        device,
        vae: ownOr(args.model, BUNDLE, 'vae'),
        model: modelFile(args.model, kind),
        steps: args.steps,
        signal,
        onProgress: (done) => shown.at(Math.floor(Math.min(done, args.count))),
      };
      if (isDigits) {
        const report = await evaluate({ ...work, classifier: CLASSIFIER, count: args.count }).finally(shown.end);
        if (!rows.length) rows.push({ name: 'real clips', evaluation: report.real });
        rows.push(row(kind, report));
        if (k === 0)
          await keep(
            'real clips',
            report.judge,
            report.judge.clips.map((c) => c.video),
          );
        await keep(kind, report.judge, report.samples.videos);
      } else {
        const preset = presets[k]!;
        const conditions = { preset, clips: heldOutClips(preset, args.count) };
        const requests = conditions.clips.map(({ caption, video }, seed) => ({
          caption,
          frame: frameOf(video, videoShape(preset), 0),
          seed,
        }));
        const { videos } = await sampleClips({ ...work, requests }).finally(shown.end);
        if (k === 0)
          await keep(
            'real clips',
            conditions,
            conditions.clips.map((c) => c.video),
          );
        await keep(kind, conditions, videos);
      }
    }
    if (args.json) {
      console.log(
        JSON.stringify({
          conditions: args.count,
          adapter: device.info.name,
          ...(rows.length && { rows }),
          ...(vbench.length && { vbench }),
        }),
      );
      return;
    }
    if (rows.length)
      console.log(
        `${draw(COLUMNS, cells(rows))}\n${byFrame(rows)}\n${args.count} held-out conditions, ${device.info.name}. ${NOTE}`,
      );
    if (vbench.length) console.log(`${rows.length ? '\n' : ''}${vbenchTable(vbench)}`);
  });
}

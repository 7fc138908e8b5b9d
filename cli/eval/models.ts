/** `vpae eval` of a folder of models: they sample the held-out conditions, and are judged beside the real clips. */
import { existsSync } from 'node:fs';
import { loadClassifier } from '../../train/metrics/classifier.ts';
import { evaluate, type Report } from '../../train/infer.ts';
import { CLASSIFIER, loadNet, modelFile } from '../files.ts';
import { meter } from '../progress.ts';
import { session } from '../session.ts';
import { byFrame, cells, COLUMNS, draw, NOTE, type Row } from '../table.ts';
import { digitProxies } from '../../train/vbench/proxies.ts';
import { measure, type Measured } from '../../train/vbench/measure.ts';
import { clipTakes } from '../../train/vbench/clips.ts';
import { vbenchTable } from './vbench.ts';

export interface ModelsArgs { model: string; teacher: boolean; student: boolean; count: number; json: boolean; vbench: boolean }

/** The kinds to judge: those asked for, else those that are there. */
function kinds({ model: dir, teacher, student }: ModelsArgs): ('teacher' | 'student')[] {
  const both = ['teacher', 'student'] as const;
  if (teacher || student) return both.filter((k) => (k === 'teacher' ? teacher : student));
  const there = both.filter((k) => existsSync(modelFile(dir, k)));
  if (!there.length) throw new Error(`[eval] ${dir} holds neither teacher.safetensors nor student.safetensors`);
  return there;
}

const row = (name: string, { evaluation, samples }: Report): Row =>
  ({ name, evaluations: samples.evaluations, secondsPerClip: samples.seconds / samples.videos.length, evaluation });

export async function evaluateModels(args: ModelsArgs): Promise<void> {
  const asked = kinds(args);
  for (const kind of asked) await loadNet(args.model, kind);
  const instruments = digitProxies(await loadClassifier(CLASSIFIER));
  await session('stopped; nothing was written', async ({ device, signal }) => {
    const rows: Row[] = [];
    const vbench: { name: string; measured: Measured }[] = [];
    const measureClips = async (name: string, { judge }: Report, videos: readonly Float32Array[]) => {
      if (args.vbench) vbench.push({ name, measured: await measure(clipTakes(judge, videos), instruments) });
    };
    for (const kind of asked) {
      const shown = meter(kind, { unit: 'clips', total: args.count, memory: () => device.allocated });
      const report = await evaluate({
        device, vae: modelFile(args.model, 'vae'), model: modelFile(args.model, kind), classifier: CLASSIFIER, count: args.count,
        signal, onProgress: (done) => shown.at(Math.floor(Math.min(done, args.count))),
      }).finally(shown.end);
      if (!rows.length) {
        rows.push({ name: 'real clips', evaluation: report.real });
        await measureClips('real clips', report, report.judge.clips.map((c) => c.video));
      }
      rows.push(row(kind, report));
      await measureClips(kind, report, report.samples.videos);
    }
    if (args.json) {
      console.log(JSON.stringify({ conditions: args.count, adapter: device.info.name, rows, ...(args.vbench && { vbench }) }));
      return;
    }
    console.log(`${draw(COLUMNS, cells(rows))}\n${byFrame(rows)}\n${args.count} held-out conditions, ${device.info.name}. ${NOTE}`);
    if (args.vbench) console.log(`\n${vbenchTable(vbench)}`);
  });
}

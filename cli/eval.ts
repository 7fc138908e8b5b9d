/** `vpae eval`: what the models of a folder are worth on held-out conditions, beside the real clips. */
import { existsSync } from 'node:fs';
import type { CommandModule } from 'yargs';
import { evaluate, type Report } from '../train/infer.ts';
import { CLASSIFIER, loadNet, modelFile } from './files.ts';
import { count, json, model, type Args } from './options.ts';
import { meter } from './progress.ts';
import { session } from './session.ts';
import { cells, COLUMNS, draw, NOTE, type Row } from './table.ts';

const options = {
  ...model, ...json,
  count: { type: 'number', default: 256, describe: 'held-out conditions; a report needs 256' },
} as const;

/** The kinds to judge: those asked for, else those that are there. */
function kinds({ model: dir, teacher, student }: Args<typeof options>): ('teacher' | 'student')[] {
  const both = ['teacher', 'student'] as const;
  if (teacher || student) return both.filter((k) => (k === 'teacher' ? teacher : student));
  const there = both.filter((k) => existsSync(modelFile(dir, k)));
  if (!there.length) throw new Error(`[eval] ${dir} holds neither teacher.safetensors nor student.safetensors`);
  return there;
}

const row = (name: string, { evaluation, samples }: Report): Row =>
  ({ name, evaluations: samples.evaluations, secondsPerClip: samples.seconds / samples.videos.length, evaluation });

async function evaluateModels(args: Args<typeof options>): Promise<void> {
  const asked = kinds(args);
  count('count', args.count, 2, 10_000);
  for (const kind of asked) await loadNet(args.model, kind);
  await session('stopped; nothing was written', async ({ device, signal }) => {
    const rows: Row[] = [];
    for (const kind of asked) {
      const shown = meter(kind, { unit: 'clips', total: args.count, memory: () => device.allocated });
      const report = await evaluate({
        device, vae: modelFile(args.model, 'vae'), model: modelFile(args.model, kind), classifier: CLASSIFIER, count: args.count,
        signal, onProgress: (done) => shown.at(Math.floor(Math.min(done, args.count))),
      }).finally(shown.end);
      if (!rows.length) rows.push({ name: 'real clips', evaluation: report.real });
      rows.push(row(kind, report));
    }
    if (args.json) console.log(JSON.stringify({ conditions: args.count, adapter: device.info.name, rows }));
    else console.log(`${draw(COLUMNS, cells(rows))}\n${args.count} held-out conditions, ${device.info.name}. ${NOTE}`);
  });
}

const command: CommandModule<object, Args<typeof options>> = {
  command: 'eval',
  describe: 'measure a teacher and a student on held-out conditions, beside the real clips',
  builder: (y) => y
    .options(options)
    .example('$0 eval', 'the bundled models')
    .example('$0 eval --model runs/mine --student --count 64', 'one model of a run, quickly'),
  handler: evaluateModels,
};
export default command;

/**
 * The training of the smallest preset, part by part, on as many ranks as it is started with: `rankschild.ts OUT PARTS SET…`. PARTS with
 * commas between them: vae, teacher, or a method of distillation.
 */
import { join } from 'node:path';
import process from 'node:process';
import { open } from '../../engine/runtime/device.ts';
import { materialise } from '../../model/params.ts';
import { saveTensors } from '../../model/files/safetensors.ts';
import { CLASSIFIER_SHAPES } from '../../train/metrics/classifier.ts';
import { METHOD_NAMES } from '../../train/methods/index.ts';
import { distill, trainTeacher, trainVae } from '../../train/pipeline.ts';
import { loadPreset } from '../../train/presets/index.ts';
import { leading, Ranks } from '../../train/ranks/ranks.ts';

const [out, parts, ...sets] = process.argv.slice(2) as [string, string, ...string[]];
const ranks = await Ranks.join();
const device = await open();
const work = { device, preset: loadPreset('digits-test', ['run.sampleEvery=0', ...sets]), out, ranks };
const classifier = join(out, 'classifier.safetensors');
const shapes = Object.entries(CLASSIFIER_SHAPES).map(
  ([name, shape]) => [name, { shape, init: { law: 'normal', value: 0.1 } }] as const,
);
await leading(ranks, async () => {
  if (!ranks || ranks.rank === 0) await saveTensors(classifier, materialise(Object.fromEntries(shapes), 1));
});
for (const part of parts.split(',')) {
  if (part === 'vae') await trainVae(work);
  else if (part === 'teacher') await trainTeacher(work);
  else await distill({ ...work, classifier, method: METHOD_NAMES.find((name) => name === part) });
  if (!ranks || ranks.rank === 0) console.error(`${part} done`);
}
await ranks?.queue((mpi) => mpi.leave());
device.close();
process.exit(0);

/** All that a run trains, in a process of its own, for the test that compares two: `cutschild.ts OUT [LIMIT]`. Prints its dispatches. */
import { join } from 'node:path';
import { open } from '../../engine/runtime/device.ts';
import { saveTensors } from '../../model/files/safetensors.ts';
import { materialise } from '../../model/params.ts';
import { CLASSIFIER_SHAPES } from '../../train/metrics/classifier.ts';
import { distill, precompute, trainTeacher, trainVae } from '../../train/pipeline.ts';
import { loadPreset } from '../../train/presets/index.ts';
import { TINY } from './tinypreset.ts';

const SETS = [...TINY.filter((set) => !/^data.(size|frames)=/.test(set)), 'dit.num_layers=1', 'equilibrium.taps=[0]'];

const [out, limit] = process.argv.slice(2) as [string, string?];
const device = await open();
if (limit) device.pace.limit = Number(limit); // any kernel is taken to need five times as long as a submit may
const classifier = join(out, 'judge.safetensors');
const random = Object.entries(CLASSIFIER_SHAPES).map(
  ([name, shape]) => [name, { shape, init: { law: 'normal', value: 0.1 } }] as const,
);
await saveTensors(classifier, materialise(Object.fromEntries(random), 1));
const work = { device, out, classifier, preset: loadPreset('digits-test', SETS) };
await trainVae(work);
await precompute(work);
await trainTeacher(work);
await distill(work);
console.log(`${device.counters.dispatches} dispatches`);
process.exit(0);

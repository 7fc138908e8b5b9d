/** Training with a frozen network's blocks in host memory: the same weights, bit by bit, also where a run goes on the other way. */
import { cpSync, mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { open } from '../../engine/runtime/device.ts';
import { materialise } from '../../model/params.ts';
import { saveTensors } from '../../model/files/safetensors.ts';
import { CLASSIFIER_SHAPES } from '../../train/metrics/classifier.ts';
import { distill, precompute, trainTeacher, trainVae } from '../../train/pipeline.ts';
import { loadPreset } from '../../train/presets/index.ts';

const test = suite('offload');
const device = await open();
const out = mkdtempSync(join(tmpdir(), 'vpae-'));
const classifier = join(out, 'classifier.safetensors');
/** Three blocks, recomputed; few steps. */
const SETS = [
  'dit.num_layers=3',
  'dit.checkpoint=lean',
  'stored=bf16',
  'trainVae.steps=2',
  'teacher.steps=2',
  'priming.steps=2',
  'priming.fake.warmup=1',
  'priming.fake.updates=1',
  'equilibrium.steps=2',
  'equilibrium.head.warmup=1',
  'best.every=2',
  'best.clips=2',
];
const work = (out: string, sets: readonly string[]) => ({
  device,
  preset: loadPreset('digits-test', [...SETS, ...sets]),
  out,
});

test.before(async () => {
  const law = { law: 'normal', value: 0.1 } as const;
  const specs = Object.entries(CLASSIFIER_SHAPES).map(([name, shape]) => [name, { shape, init: law }] as const);
  await saveTensors(classifier, materialise(Object.fromEntries(specs), 1));
  await trainVae(work(out, []));
  await precompute(work(out, []));
  await trainTeacher(work(out, []));
});

/** A student's tensors as they stand in its file, behind what is told of it. */
function student(folder: string): Buffer {
  const file = readFileSync(join(folder, 'student.safetensors'));
  return file.subarray(8 + Number(file.readBigUInt64LE()));
}

for (const [mode, method] of [
  ['lora', 'vpae'],
  ['full', 'consistency'],
] as const) {
  test(`student.mode=${mode}, ${method}: resident, streamed, or begun one way and ended the other`, async () => {
    const run = async (sets: readonly string[], again?: readonly string[]): Promise<Buffer> => {
      const folder = mkdtempSync(join(tmpdir(), 'vpae-'));
      for (const part of ['vae.safetensors', 'teacher.safetensors', 'data'])
        cpSync(join(out, part), join(folder, part), { recursive: true });
      const stop = new AbortController();
      const lesson = { classifier, method };
      const own = (more: readonly string[]) => work(folder, [`student.mode=${mode}`, 'student.rank=4', ...more]);
      if (again) {
        const onProgress = ({ job, step }: { job: string; step: number }) => {
          if (job === 'equilibrium' && step === 1) stop.abort();
        };
        assert.not.ok((await distill({ ...own(sets), ...lesson, signal: stop.signal, onProgress })).done);
      }
      assert.ok((await distill({ ...own(again ?? sets), ...lesson })).done);
      return student(folder);
    };
    const resident = await run([]);
    assert.ok(resident.equals(await run(['run.offload=true'])), 'streamed');
    if (mode === 'lora') assert.ok(resident.equals(await run(['run.offload=true'], [])), 'streamed, then resident');
  });
}

test.run();

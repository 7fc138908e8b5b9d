/** Real failures on a device: it is lost in the middle of a run, and gradients that are not finite until the learning rate is halved. */
import { mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { open, type Device } from '../../engine/runtime/device.ts';
import { freeTree } from '../../train/loop/checkpoint.ts';
import { latentShape, videoShape } from '../../train/methods/conditions.ts';
import { clipsOf } from '../../train/data/sets.ts';
import { precompute } from '../../train/data/shards.ts';
import { teacherJob } from '../../train/methods/jobs.ts';
import { drive, type Job } from '../../train/loop/loop.ts';
import { loadPreset } from '../../train/presets/index.ts';
import { recovering } from '../../train/loop/recover.ts';
import { Stream } from '../../train/loop/rng.ts';
import { parseLines } from '../../train/loop/run.ts';

const preset = loadPreset('digits-test', [
  'teacher.steps=8',
  'data.trainClips=8',
  'data.shardClips=8',
  'dit.num_layers=1',
  'equilibrium.taps=[0]',
]);
const latent = latentShape(preset);
const random = new Stream(1, 0, 'latents');
const folder = () => mkdtempSync(join(tmpdir(), 'vpae-'));
const shards = await precompute({
  dir: folder(),
  count: 8,
  shardSize: 8,
  batchSize: 8,
  clip: clipsOf(preset, 'train'),
  video: videoShape(preset),
  latent,
  settings: { test: true },
  encode: async () => Float32Array.from({ length: 8 * latent.reduce((a, b) => a * b, 1) }, () => random.normal()),
});
const log = (dir: string) => parseLines(readFileSync(join(dir, 'metrics.jsonl'), 'utf8'));
const losses = (dir: string) => log(dir).map(({ step, loss }) => ({ step, loss }));

async function train(
  device: Device,
  dir: string,
  change: (job: Job) => Job = (job) => job,
  onProgress?: (step: number) => void,
): Promise<void> {
  const job = teacherJob(device, preset, shards);
  try {
    const { state } = await drive(change(job), {
      device,
      folder: dir,
      config: {},
      environment: {},
      saveEvery: 2,
      maxSkipped: 2,
      onProgress: ({ step }) => onProgress?.(step),
    });
    freeTree(state);
  } finally {
    await job.close();
  }
}

test('a device lost in the middle of a run: another is opened, and the losses are those of an untouched run', async () => {
  const [whole, broken] = [folder(), folder()];
  const told: string[] = [];
  await recovering(
    () => open(),
    (device) => train(device, whole),
    (r) => told.push(r),
  );
  assert.equal(told, []);
  await recovering(
    () => open(),
    (device) =>
      train(device, broken, undefined, (step) => {
        if (step === 5 && !told.length) device.gpu.destroy();
      }),
    (r) => told.push(r),
  );
  assert.is(told.length, 1);
  assert.match(told[0]!, /lost/);
  assert.equal(losses(broken), losses(whole));
});

test('a device that is lost again and again ends the run', async () => {
  let opened = 0;
  const always = recovering(
    () => (opened++, open()),
    async (device) => {
      device.gpu.destroy();
      await device.tensor(Float32Array.of(1), [1]).read();
    },
    () => {},
  );
  assert.match(
    await always.then(
      () => 'done',
      (e: Error) => e.message,
    ),
    /^\[device\] lost: .* 3\. time in a row/,
  );
  assert.is(opened, 3);
});

test('gradients of NaN: skipped, then rolled back to half the learning rate, told once each', async () => {
  const dir = folder();
  const device = await open();
  /** Weights that are NaN at step 5 and after it, as long as the full rate is used: a real network then gives real NaNs. */
  const poisoned = (job: Job): Job => ({
    ...job,
    async advance(state, step, rate = 1) {
      if (step === 5 && rate === 1) {
        const { params } = state['teacher']!;
        const name = Object.keys(params)[0]!;
        const { shape } = params[name]!;
        params[name]!.free();
        params[name] = device.tensor(new Float32Array(params[name]!.size).fill(NaN), shape);
      }
      return job.advance(state, step, rate);
    },
  });
  const alarms: string[] = [];
  const job = teacherJob(device, preset, shards);
  const { state, done } = await drive(poisoned(job), {
    device,
    folder: dir,
    config: {},
    environment: {},
    saveEvery: 2,
    maxSkipped: 2,
    onAlarm: (a) => alarms.push(`${a.kind} ${a.step}`),
  });
  const params = await Promise.all(Object.values(state['teacher']!.params).map((t) => t.read()));
  assert.ok(done && params.every((p) => p.every(Number.isFinite)), 'the weights are finite at the end');
  assert.equal(alarms, ['steps not finite 5', 'rolled back 3']);
  const lines = log(dir);
  assert.equal(
    lines.filter((l) => !('alarm' in l)).map((l) => [l.step, l['skipped']]),
    [0, 1, 2, 3, 4, 5, 6, 7].map((s) => [s, 0]),
  );
  assert.equal(
    lines.filter((l) => 'alarm' in l).map((l) => [l.step, l['alarm'], l['value']]),
    [[3, 'rolled back', 0.5]],
  );
  freeTree(state);
  await job.close();
  device.close();
});

test('a run whose first steps are never finite blames its weights or data, not the rate', async () => {
  const device = await open();
  const job = teacherJob(device, preset, shards);
  const never: Job = {
    ...job,
    advance: (state) => Promise.resolve({ state, metrics: Promise.resolve({ skipped: 1 }) }),
  };
  const options = { device, folder: folder(), config: {}, environment: {}, saveEvery: 2, maxSkipped: 2 };
  const error = await drive(never, options).catch((e: Error) => e);
  assert.match(
    (error as Error).message,
    /not one of the first 2 steps had a gradient that is finite, .* weights that it/,
  );
  await job.close();
  device.close();
});

test.run();

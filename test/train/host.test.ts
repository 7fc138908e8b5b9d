/** A released teacher goes from its files to the device within the host memory that `plan` states. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import process from 'node:process';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { open } from '../../engine/runtime/device.ts';
import { numel } from '../../kernels/kernel.ts';
import { WAN_VAE } from '../../model/config.ts';
import type { Checkpoint } from '../../model/files/checkpoint.ts';
import { openWeights } from '../../model/files/open.ts';
import { inFile, place } from '../../model/files/origin.ts';
import { saveTensors, writeTensors, type Output } from '../../model/files/safetensors.ts';
import { fromBF16, toBF16 } from '../../model/halves.ts';
import { wan21 } from '../../model/families/wan21.ts';
import { ditShapes } from '../../model/wan/dit.ts';
import { freeTree } from '../../train/loop/checkpoint.ts';
import type { Shards } from '../../train/data/shards.ts';
import { priming } from '../../train/methods/vpae.ts';
import { hostPeakOf } from '../../train/planning/cost.ts';
import { subjectOf } from '../../train/planning/subject.ts';
import { stageCost } from '../../train/planning/training.ts';
import { courseOf } from '../../train/videos/distill.ts';

const device = await open();
const folder = mkdtempSync(join(tmpdir(), 'vpae-host-'));
const SETS = ['student.mode=lora', 'student.rank=4', 'priming.fake.rank=4'];
const subject = subjectOf('wan2.1-t2v-1.3b', SETS, { width: 64, height: 64, frames: 5 });
/** 100 MB in its file, twice that in f32. */
const dit = { ...subject.config, dim: 1024, num_heads: 8, ffn_dim: 4096, num_layers: 3, text_dim: 64 };
const shapes = ditShapes(dit);

const values = toBF16(Float32Array.from({ length: 2 ** 20 }, (_, i) => Math.sin(i)));
const parts = function* (n: number): Generator<Uint16Array> {
  for (let at = 0; at < n; at += values.length) yield values.subarray(0, Math.min(values.length, n - at));
};
const output = (shape: readonly number[]): Output => ({ dtype: 'BF16', shape, values: () => parts(numel(shape)) });
await writeTensors(
  join(folder, 'dit.safetensors'),
  Object.fromEntries(Object.entries(shapes).map(([name, shape]) => [name, output(shape)])),
);

/** Bytes of the host's arrays at most while `work` sends them to the device. */
async function peak<T>(work: () => Promise<T>): Promise<{ result: T; bytes: number }> {
  const before = process.memoryUsage().arrayBuffers;
  let bytes = 0;
  const write = device.write.bind(device);
  device.write = (...args) => {
    bytes = Math.max(bytes, process.memoryUsage().arrayBuffers - before);
    write(...args);
  };
  try {
    return { result: await work(), bytes };
  } finally {
    device.write = write;
  }
}

test('a job starts, and its state is written, in the host memory that is planned', async () => {
  const planned = hostPeakOf(stageCost(priming, { ...subject, config: dit }, device));
  assert.ok(planned < 120e6, `${planned}`);
  const checkpoint = { dit: { config: dit }, vae: { config: WAN_VAE }, family: wan21, path: folder } as Checkpoint;
  const file = await openWeights(join(folder, 'dit.safetensors'));
  const { result, bytes } = await peak(async () => {
    const job = await priming.open({
      device,
      course: courseOf(checkpoint, subject.latent, SETS),
      shards: {} as Shards,
      teacher: inFile(file),
    });
    return { job, state: await job.initial() };
  });
  assert.ok(bytes < planned, `${bytes}, planned ${planned}`);
  freeTree(result.state);
  await result.job.close();

  const whole = await peak(() => place(device, inFile(file)));
  assert.ok(whole.bytes < planned, `in f32: ${whole.bytes}, planned ${planned}`);
  const name = 'blocks.2.ffn.0.weight';
  const expected = fromBF16(values);
  assert.ok((await whole.result[name]!.read()).every((x, i) => x === expected[i % values.length]));
  const again = join(folder, 'again.safetensors');
  await saveTensors(again, whole.result, { dtype: 'BF16' });
  freeTree(whole.result);
  const copy = await openWeights(again);
  assert.equal(await copy.read(name), await file.read(name));
  await copy.close();
  await file.close();
});

test.after(() => {
  rmSync(folder, { recursive: true });
  device.close();
});
test.run();

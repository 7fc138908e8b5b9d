/** A small teacher training in a process of its own, for the test that kills it: `child.ts OUT`. The latents are made up. */
import { join } from 'node:path';
import { open } from '../../engine/runtime/device.ts';
import { latentShape, videoShape } from '../../train/methods/conditions.ts';
import { digits } from '../../train/data/digits.ts';
import { digitsOf } from '../../train/data/sets.ts';
import { precompute } from '../../train/data/shards.ts';
import { teacherJob } from '../../train/methods/jobs.ts';
import { drive } from '../../train/loop/loop.ts';
import { loadPreset } from '../../train/presets/index.ts';
import { Stream } from '../../train/loop/rng.ts';

const out = process.argv[2]!;
const preset = loadPreset('digits-test', [
  'teacher.steps=9',
  'data.trainClips=8',
  'data.shardClips=8',
  'dit.num_layers=1',
  'equilibrium.taps=[0]',
]);
const latent = latentShape(preset);
const random = new Stream(1, 0, 'latents');
const shards = await precompute({
  dir: join(out, 'data'),
  count: 8,
  shardSize: 8,
  batchSize: 8,
  clip: digits('train', 1, digitsOf(preset)).clip,
  video: videoShape(preset),
  latent,
  settings: { test: true },
  encode: async () => Float32Array.from({ length: 8 * latent.reduce((a, b) => a * b, 1) }, () => random.normal()),
});
const device = await open();
await drive(teacherJob(device, preset, shards), {
  device,
  folder: join(out, 'teacher'),
  config: { preset } as never,
  environment: {},
  saveEvery: 2,
  maxSkipped: 3,
});
process.exit(0);

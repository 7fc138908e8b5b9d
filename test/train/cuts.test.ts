/** All that a run trains, with every kernel in parts: the same weights to the bit. */
import { mkdtempSync, readdirSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { open } from '../../engine/runtime/device.ts';
import { saveTensors } from '../../model/files/safetensors.ts';
import { materialise } from '../../model/params.ts';
import { CLASSIFIER_SHAPES } from '../../train/metrics/classifier.ts';
import { distill, precompute, trainTeacher, trainVae } from '../../train/pipeline.ts';
import { loadPreset } from '../../train/presets/index.ts';
import { TINY } from './tinypreset.ts';

const SETS = [...TINY.filter((set) => !/^data.(size|frames)=/.test(set)), 'dit.num_layers=1', 'equilibrium.taps=[0]'];

/** @param limit seconds of a submit: any kernel is taken to need five times as long as the one below */
async function trained(limit: number | undefined): Promise<{ files: Record<string, Buffer>; dispatches: number }> {
  const out = mkdtempSync(join(tmpdir(), 'vpae-'));
  const device = await open();
  if (limit) device.pace.limit = limit;
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
  const { dispatches } = device.counters;
  device.close();
  const names = readdirSync(out).filter((f) => f.endsWith('.safetensors'));
  return { files: Object.fromEntries(names.map((f) => [f, readFileSync(join(out, f))])), dispatches };
}

test('a VAE, a teacher and both phases of distillation', async () => {
  const whole = await trained(undefined);
  const parts = await trained(1e-6);
  assert.ok(Object.keys(whole.files).length >= 3, Object.keys(whole.files).join());
  assert.ok(parts.dispatches > 2 * whole.dispatches, `${whole.dispatches} dispatches, ${parts.dispatches} in parts`);
  assert.equal(Object.keys(parts.files), Object.keys(whole.files));
  for (const [name, bytes] of Object.entries(whole.files)) assert.ok(parts.files[name]!.equals(bytes), name);
});

test.run();

/** Names of before: what people typed, model files and run folders that say phase1 and phase2 go on as they were. */
import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { open, type Device } from '../../engine/runtime/device.ts';
import { host } from '../../engine/frontend/tree.ts';
import { freeTree, saveCheckpoint } from '../../train/loop/checkpoint.ts';
import { hashOf, parseLines } from '../../train/loop/run.ts';

import { start, type OpenJob } from '../../train/methods/jobs.ts';
import { checkPreset, loadPreset } from '../../train/presets/index.ts';
import { folderOf, underNamesBefore, underNamesNow } from '../../train/presets/renamed.ts';
import { run } from '../../train/work.ts';

const digits = loadPreset('digits');
const out = () => mkdtempSync(join(tmpdir(), 'vpae-'));

test('--set and presets of model files say either name; a preset has the new one', () => {
  assert.equal(
    loadPreset('digits', ['phase1.steps=7', 'phase2.head.warmup=3']),
    loadPreset('digits', ['priming.steps=7', 'equilibrium.head.warmup=3']),
  );
  const old = underNamesBefore(digits);
  assert.ok('phase1' in old && 'phase2' in old && !('priming' in old));
  assert.equal(checkPreset(old), digits);
  assert.throws(() => loadPreset('digits', ['phase3.steps=7']), /"phase3" is not among .*priming, equilibrium/);
});

const FIRST = { generator: { params: { w: host([1, 2], [2]) }, v: { w: host([0, 0], [2]) } } };
const SETTINGS = { data: 'x', priming: { steps: 3 } };

/** Three steps that change nothing. */
const job = (device: Device): OpenJob => ({
  name: 'priming',
  steps: 3,
  initial: async () => ({ generator: await start(device, FIRST.generator.params, {}) }),
  advance: (state) => Promise.resolve({ state, metrics: Promise.resolve({ loss: 1 }) }),
  close: () => Promise.resolve(),
});

test('a run that began under the old names is resumed in its folder; with other settings it is refused under the new ones', async () => {
  const device = await open();
  const dir = out();
  const config = { job: 'phase1', seed: digits.seed, data: 'x', phase1: { steps: 3 } };
  mkdirSync(join(dir, 'phase1'));
  writeFileSync(join(dir, 'phase1', 'config.json'), JSON.stringify(config));
  await saveCheckpoint(join(dir, 'phase1'), FIRST, { job: 'phase1', step: 2, config: hashOf(config) });
  assert.is(folderOf(dir, 'priming'), join(dir, 'phase1'));

  const work = { device, out: dir, preset: digits };
  const { state, step, done, folder } = await run(work, job(device), SETTINGS);
  assert.equal([step, done, folder], [3, true, join(dir, 'phase1')]);
  assert.equal([...(await state['generator']!.params['w']!.read())], [1, 2]);
  freeTree(state);
  const steps = parseLines(readFileSync(join(folder, 'metrics.jsonl'), 'utf8')).map((r) => r.step);
  assert.equal(steps, [2], 'only what was missing');
  const again = await run(work, job(device), SETTINGS); // its own checkpoint is as good
  assert.ok(again.done);
  freeTree(again.state);

  const refused = await run(work, job(device), { ...SETTINGS, priming: { steps: 2 } }).then(
    () => 'accepted',
    (error: Error) => error.message,
  );
  assert.match(
    refused,
    /^\[resume\] .*phase1 holds a run with other settings: priming\.steps was 3, now 2\. Use those, or another folder$/,
  );
  device.close();
});

test('a run that has both folders goes on in the new one, and a new run makes it', () => {
  const dir = out();
  assert.is(folderOf(dir, 'equilibrium'), join(dir, 'equilibrium'));
  mkdirSync(join(dir, 'phase2'));
  assert.is(folderOf(dir, 'equilibrium'), join(dir, 'phase2'));
  mkdirSync(join(dir, 'equilibrium'));
  assert.is(folderOf(dir, 'equilibrium'), join(dir, 'equilibrium'));
});

test('names go there and back', () => {
  const config = { job: 'equilibrium', seed: 1, equilibrium: { steps: 1 }, best: { every: 2 } };
  assert.equal(underNamesNow(underNamesBefore(config)), config);
  assert.equal(underNamesNow(null), null);
});

test.run();

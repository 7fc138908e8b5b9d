/** The demo on untrained networks of a few thousand weights, end to end, and how it divides its time. */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { clipsThatFit, judging, schedule, shortened, type Speeds } from '../../cli/demo/budget.ts';
import { loadPreset } from '../../train/presets/index.ts';
import { writeBundle } from './bundle.ts';
import { vpae } from './run.ts';

const dir = mkdtempSync(join(tmpdir(), 'vpae-demo-'));
const preset = loadPreset('digits');
const speeds: Speeds = { priming: 2, equilibrium: 3, group: 16, guidedStep: 0.4, around: 1 };

test('what is planned fits into the time, and a faster machine does more', () => {
  for (const left of [120, 300, 600]) {
    const { phase1, phase2, clips } = schedule(speeds, left, 64, preset);
    const seconds = phase1 * speeds.priming + phase2 * speeds.equilibrium + judging(speeds, clips, 50);
    assert.ok(seconds <= left, `${seconds} of ${left}`);
    assert.ok(clips % 16 === 0 && clips >= 16 && phase1 >= phase2);
    const fast = schedule({ ...speeds, priming: 0.2, equilibrium: 0.3, guidedStep: 0.04 }, left, 64, preset);
    assert.ok(fast.phase1 > phase1 && fast.phase2 > phase2 && fast.clips >= clips);
  }
});

test('no time at all still gives a step of each kind and one group', () => {
  const plan = schedule(speeds, -5, 64, preset);
  assert.equal(plan, { phase1: 2, phase2: 2, clips: 16 });
  const { phase1, phase2 } = shortened(preset, plan);
  assert.ok(phase1.steps >= 1 && phase2.steps >= 1);
});

test('steps never exceed the preset\'s, and those alone are a sixth at most', () => {
  const plan = schedule({ ...speeds, priming: 1e-3, equilibrium: 1e-3 }, 600, 64, preset);
  const { phase1, phase2 } = shortened(preset, plan);
  assert.equal([phase1.steps, phase1.fake.warmup], [preset.phase1.steps, preset.phase1.fake.warmup]);
  assert.equal([phase2.steps, phase2.head.warmup], [preset.phase2.steps, preset.phase2.head.warmup]);
  const few = shortened(preset, { phase1: 12, phase2: 6, clips: 16 });
  assert.equal([few.phase1.fake.warmup, few.phase1.steps, few.phase2.head.warmup, few.phase2.steps], [2, 10, 1, 5]);
  assert.is(clipsThatFit(speeds, 1e6, 64, 50), 64);
});

test('the demo trains, compares and leaves something to look at', async () => {
  await writeBundle(join(dir, 'bundle'));
  const out = join(dir, 'out');
  const { code, stdout, stderr } = await vpae(['demo', '--bundle', join(dir, 'bundle'), '--out', out, '--budget', '10']);
  assert.is(code, 0, stderr);
  for (const row of ['real clips', 'teacher', 'student trained here', 'bundled student']) assert.match(stdout, new RegExp(`│ ${row} `));
  assert.match(stdout, /Trained here\. .*Stability priming took 2 steps/);
  assert.match(stdout, /Came bundled\. /);
  for (const file of ['teacher.webp', 'student-here.webp', 'student-bundled.webp', 'side-by-side.webp', 'contact-sheet.png']) {
    const { width, pages } = await sharp(join(out, file)).metadata();
    assert.ok(width! > 100 && (pages ?? 1) === (file.endsWith('png') ? 1 : 9), file);
  }
  assert.match(readFileSync(join(out, 'report.html'), 'utf8'), /<h3>Trained here<\/h3>/);
  assert.ok(existsSync(join(out, 'run/student.safetensors')));
});

test.after(() => rmSync(dir, { recursive: true, force: true }));
test.run();

/** The demo on untrained networks of a few thousand weights, end to end, and how it divides its time. */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { clipsThatFit, judging, trainingTime, type Speeds } from '../../cli/demo/budget.ts';
import { stepsThatFit } from '../../train/loop/within.ts';
import { writeBundle } from './bundle.ts';
import { vpae } from './run.ts';

const dir = mkdtempSync(join(tmpdir(), 'vpae-demo-'));
const speeds: Speeds = { group: 16, guidedStep: 0.4, around: 1 };

test('training and judging fit into the time, and a faster machine judges more and has more time to train', () => {
  for (const left of [120, 300, 600]) {
    const { priming, equilibrium } = trainingTime(speeds, left, 64, 50);
    const after = left - priming - equilibrium;
    const clips = clipsThatFit(speeds, after, 64, 50);
    assert.ok(equilibrium > priming && priming > 0);
    assert.ok(clips % 16 === 0 && clips >= 16 && judging(speeds, clips, 50) <= after, `${clips} in ${after} s`);
    const fast = trainingTime({ ...speeds, guidedStep: 0.04 }, left, 64, 50);
    assert.ok(fast.priming + fast.equilibrium > priming + equilibrium);
  }
  assert.is(clipsThatFit(speeds, 1e6, 64, 50), 64);
});

test('no time at all still gives one group and one more step', () => {
  assert.equal(trainingTime(speeds, -5, 64, 50), { priming: 0, equilibrium: 0 });
  assert.is(clipsThatFit(speeds, -5, 64, 50), 16);
  assert.is(stepsThatFit(8, 2, -1, 300), 9);
  assert.is(stepsThatFit(8, 2, 100, 300), 58);
  assert.is(stepsThatFit(8, 2, 1e6, 300), 300);
});

test('the demo trains, compares and leaves something to look at', async () => {
  await writeBundle(join(dir, 'bundle'));
  const out = join(dir, 'out');
  const { code, stdout, stderr } = await vpae([
    'demo',
    '--bundle',
    join(dir, 'bundle'),
    '--out',
    out,
    '--budget',
    '10',
  ]);
  assert.is(code, 0, stderr);
  for (const row of ['real clips', 'teacher', 'student trained here', 'bundled student'])
    assert.match(stdout, new RegExp(`│ ${row} `));
  assert.match(stdout, /Trained here\. .*Stability priming took \d+ steps/);
  assert.match(stdout, /Came bundled\. /);
  for (const file of [
    'teacher.webp',
    'student-here.webp',
    'student-bundled.webp',
    'side-by-side.webp',
    'contact-sheet.png',
  ]) {
    const { width, pages } = await sharp(join(out, file)).metadata();
    assert.ok(width! > 100 && (pages ?? 1) === (file.endsWith('png') ? 1 : 9), file);
  }
  assert.match(readFileSync(join(out, 'report.html'), 'utf8'), /<h3>Trained here<\/h3>/);
  assert.ok(existsSync(join(out, 'run/student.safetensors')));
});

test.after(() => rmSync(dir, { recursive: true, force: true }));
test.run();

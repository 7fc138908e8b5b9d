/** Each kind of failure raises its alarm once an episode; a healthy run, and a metric that wavers at its limit, stay quiet. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { RULES, tell, Watch } from '../../train/loop/alarms.ts';
import type { Metrics } from '../../train/loop/pending.ts';
import { Stream } from '../../train/loop/rng.ts';

const random = new Stream(1, 0, 'alarms');
/** As the steps of both phases log them in a run that goes well. */
const healthy = (): Metrics => ({
  fakeLoss: 0.35 + 0.03 * random.normal(),
  lag: 0.4,
  floor: 0.02,
  active: 0.7,
  margin: 1 + 0.1 * random.normal(),
  deviation: 1.05 + 0.02 * random.normal(),
  motion: 0.95 + 0.05 * random.normal(),
  first: 0.016 + 0.002 * random.normal(),
  skipped: 0,
  headSkipped: 0,
  fakeSkipped: 0,
});
const STEPS = 160;

/** `STEPS` healthy steps, as many sick ones, and both again: the kinds of the alarms, and at which steps. */
function episode(sick: (i: number) => Metrics): { kinds: string[]; steps: number[] } {
  const watch = new Watch();
  const told = Array.from({ length: 4 * STEPS }, (_, n) =>
    watch.observe(n, { ...healthy(), ...(Math.floor(n / STEPS) % 2 ? sick(n % STEPS) : {}) }),
  ).flat();
  for (const alarm of told) assert.match(tell(alarm), /^alarm at step \d+: .+ \(.+\): .+\n {2}remedy: .+$/);
  return { kinds: [...new Set(told.map((a) => a.kind))], steps: told.map((a) => a.step) };
}

const INDUCED: [kind: string, sick: (i: number) => Metrics][] = [
  ['normaliser at its floor', () => ({ floor: 0.9 })],
  ['discriminator wins', () => ({ active: 0.01 })],
  ['discriminator is blind', () => ({ margin: 0.01 })],
  ['saturation', () => ({ deviation: 1.3 })],
  ['static video', () => ({ motion: 0.4 })],
  ['condition collapse', (i) => ({ first: 0.016 * 1.02 ** i })],
  ['fake model lags', (i) => ({ fakeLoss: 0.35 + 0.01 * i })],
  ['fake model lags', () => ({ lag: 1.2 })],
  ["out of f16's range", (i) => ({ headOverflowed: i === 30 ? 3 : 0 })],
  ["out of f16's range", () => ({ vanished: 2 })],
  ['steps not finite', (i) => ({ fakeSkipped: i === 30 ? 1 : 0, fakeLoss: i === 30 ? NaN : 0.35 })],
];

for (const [kind, sick] of INDUCED) {
  test(`${kind} (${Object.keys(sick(0)).join()}): once an episode`, () => {
    const { kinds, steps } = episode(sick);
    assert.equal(kinds, [kind]);
    assert.is(steps.length, 2);
    assert.equal(
      steps.map((s) => Math.floor(s / STEPS)),
      [1, 3],
    );
  });
}

test('every kind of rule is induced above', () => {
  assert.equal([...new Set(RULES.map((r) => r.kind))].sort(), [...new Set(INDUCED.map(([kind]) => kind))].sort());
});

test('a healthy run is quiet, and a metric that wavers at its limit tells once', () => {
  assert.equal(episode(() => ({})).kinds, []);
  assert.is(episode((i) => ({ deviation: 1.15 + (i % 10 < 5 ? 0.02 : -0.01) })).steps.length, 2);
});

test('judged clips tell at once', () => {
  const watch = new Watch();
  const told = [
    [1, 29],
    [0.9, 29.5],
    [0.6, 27],
  ].flatMap(([motionRatio, firstFramePsnr], n) =>
    watch.observe(n, { motionRatio: motionRatio!, firstFramePsnr: firstFramePsnr!, score: 1 }),
  );
  assert.equal(
    told.map((a) => [a.kind, a.step]),
    [
      ['static video', 2],
      ['condition collapse', 2],
    ],
  );
});

test.run();

/** Presets and their overrides: what fits is taken, what doesn't is one clear line. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { ditConfigOf, headConfigOf, latentShape, vaeConfigOf } from '../../train/methods/conditions.ts';
import { checkPreset, loadPreset, presetNames } from '../../train/presets/index.ts';
import { ditConfig, vaeConfig } from '../../model/config.ts';
import { headShapes } from '../../model/heads.ts';
import { subjectOf } from '../../train/planning/subject.ts';

test('every preset is complete, and the models take its numbers', () => {
  for (const name of presetNames()) {
    const p = loadPreset(name);
    assert.is(p.name, name);
    assert.equal(ditConfig(ditConfigOf(p)), ditConfigOf(p));
    assert.equal(vaeConfig(vaeConfigOf(p)), vaeConfigOf(p));
    assert.ok(Object.keys(headShapes(headConfigOf(p))).length > 0);
    assert.ok(latentShape(p).every(Number.isInteger));
  }
});

test('overrides change the copy, not the preset', () => {
  const p = loadPreset('digits', [
    'priming.steps=200',
    'teacher.times.shift=3',
    'equilibrium.head.kind=cross',
    'equilibrium.taps=[1,5]',
  ]);
  assert.equal(
    [
      p.priming.steps,
      p.teacher.times.law === 'logit-normal' && p.teacher.times.shift,
      p.equilibrium.head.kind,
      p.equilibrium.taps,
    ],
    [200, 3, 'cross', [1, 5]],
  );
  assert.is.not(loadPreset('digits').priming.steps, 200);
});

test('a preset kept in a model file before a setting existed means what it did', () => {
  const old = structuredClone(loadPreset('digits')) as Record<string, unknown>;
  const part = (name: string) => old[name] as Record<string, Record<string, unknown>>;
  for (const name of ['student', 'baselines']) delete old[name];
  for (const name of ['backbone', 'loss', 'sees']) delete part('equilibrium')[name];
  delete part('equilibrium')['str1']!['drawn'];
  for (const name of ['mode', 'ida']) delete part('priming')['fake']![name];
  delete part('dit')['model_type'];
  assert.equal(checkPreset(old), loadPreset('digits'));
});

test('what is wrong is one line that names it', () => {
  const said = (work: () => unknown): string => {
    try {
      work();
    } catch (error) {
      return (error as Error).message;
    }
    return 'accepted';
  };
  const cases: [string[], RegExp][] = [
    [['priming.stepz=200'], /^\[preset\] there is no setting "priming\.stepz": "stepz" is not among steps, /],
    [['priming.steps.x=200'], /"x" is not there/],
    [['priming.steps=many'], /^\[preset\] priming\.steps: /],
    [['priming.steps=-1'], /^\[preset\] priming\.steps: /],
    [['priming'], /^\[preset\] an override reads path=value, got "priming"$/],
    [['equilibrium.head.kind=dense'], /^\[preset\] equilibrium\.head\.kind: /],
    [['equilibrium.head.head_dim=24'], /^\[preset\] equilibrium\.head: dim 128 is not a multiple of head_dim 24$/],
    [['dit.num_heads=3'], /^\[preset\] dit\.dim 128 is not a multiple of dit\.num_heads 3$/],
    [['equilibrium.taps=[6]'], /^\[preset\] equilibrium\.taps names block 6 /],
    [['data.frames=10'], /^\[preset\] data\.frames must be 1 \+ a multiple of 4, got 10$/],
  ];
  for (const [sets, expected] of cases)
    assert.match(
      said(() => loadPreset('digits', sets)),
      expected,
    );
  assert.match(
    said(() => loadPreset('digit')),
    /^\[preset\] there is no preset "digit"; there are: digits, digits-test, digits-5b, digits-a14b, emoji, emoji-t2v, flare$/,
  );
  assert.match(
    said(() => checkPreset({ name: 'x' })),
    /^\[preset\] /,
  );
});

test('a batch that no machine holds is refused, whichever method takes it', () => {
  const { baselines } = loadPreset('digits');
  const own = Object.entries(baselines).flatMap(([name, s]) => ('batch' in s ? [`baselines.${name}`] : []));
  assert.ok(own.length > 1);
  for (const part of ['teacher', 'priming', 'equilibrium', ...own])
    assert.throws(
      () => loadPreset('digits', ['data.size=128', `${part}.batch=16384`]),
      /^\[preset\] 16384 clips of /,
      part,
    );
});

test('a released model is trained at the rates of its size and mode, unless others are set', () => {
  const rates = (...sets: string[]) => {
    const { priming, equilibrium } = subjectOf('wan2.1-t2v-1.3b', sets);
    return [priming.generator.adam.lr, priming.fake.adam.lr, equilibrium.generator.adam.lr];
  };
  assert.equal(rates(), [1e-6, 2e-5, 2e-6]);
  assert.equal(rates('student.mode=lora'), [1e-4, 2e-5, 1e-4]);
  assert.equal(rates('student.mode=lora', 'priming.generator.adam.lr=3e-5'), [3e-5, 2e-5, 1e-4]);
});

test.run();

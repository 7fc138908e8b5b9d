/** Ablation rows: what they change, how results become a table, and a run on a device that is stopped and goes on. */
import { mkdtempSync, readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { open } from '../../engine/runtime/device.ts';
import { materialise } from '../../model/params.ts';
import { saveTensors } from '../../model/files/safetensors.ts';
import { initDiT } from '../../model/wan/dit.ts';
import { initVAE } from '../../model/wan/vae.ts';
import { ablate, type Ablate, type Judged, type Result } from '../../train/ablation/ablate.ts';
import { PAPER, ROWS, type Row } from '../../train/ablation/rows.ts';
import { compare, summarise, tableOf } from '../../train/ablation/table.ts';
import { ditConfigOf, vaeConfigOf } from '../../train/methods/conditions.ts';
import { CLASSIFIER_SHAPES } from '../../train/metrics/classifier.ts';
import { priming } from '../../train/methods/vpae.ts';
import { loadVAE, saveModel } from '../../train/loop/models.ts';
import { checkPreset, loadPreset } from '../../train/presets/index.ts';

test('every row is a preset of its own, and the paper orders rows that there are', () => {
  const base = loadPreset('digits', ['equilibrium.lambda=2']); // a weight that no row has
  const presets = ROWS.map((row) =>
    JSON.stringify([checkPreset(row.change?.(base) ?? base), row.stages.map((s) => s.name), row.evaluations]),
  );
  assert.is(new Set(presets).size, ROWS.length);
  const ids = ROWS.map((r) => r.id);
  assert.is(new Set(ids).size, ids.length);
  for (const id of PAPER.flatMap((o) => o.rows)) assert.ok(ids.includes(id), id);
});

const judged = (score: number): Judged => ({ step: 1, score, measures: { motion: 1 } });
const result = (row: string, seed: number, score: number): Result => ({
  row,
  seed,
  kept: judged(score),
  last: judged(score - 1),
});

test("mean and spread over seeds; order against the paper's, undecided within the standard error", () => {
  assert.equal(summarise([1, 2, 6]), { mean: 3, spread: Math.sqrt(7), values: [1, 2, 6] });
  assert.equal(summarise([4]), { mean: 4, values: [4] });
  const rows: Row[] = ['a', 'b', 'c', 'd', 'e'].map((id) => ({ id, title: id, stages: [priming] }));
  const results = [
    ['a', 0.1],
    ['a', 0.3],
    ['b', 0.9],
    ['b', 1.1],
    ['c', 0.95],
    ['c', 1.1],
    ['d', 0.5],
    ['d', 0.5],
  ].map(([id, score], i) => result(id as string, i, score as number));
  const table = tableOf(rows, [...results, { row: 'e', seed: 1, failed: 'no end' }]);
  assert.equal(
    table.map((r) => [r.id, r.seeds, r.failed]),
    [
      ['a', 2, undefined],
      ['b', 2, undefined],
      ['c', 2, undefined],
      ['d', 2, undefined],
      ['e', 0, 'no end'],
    ],
  );
  assert.ok(Math.abs(table[0]!.columns['score at the end']!.mean + 0.8) < 1e-12);
  const verdicts = compare(
    [
      { about: 'x', rows: ['a', 'b', 'c', 'missing', 'd'] },
      { about: 'y', rows: ['e', 'a'] },
    ],
    table,
  );
  assert.equal(
    verdicts.map((v) => [v.worse, v.better, v.verdict]),
    [
      ['a', 'b', 'agrees'],
      ['b', 'c', 'undecided'],
      ['c', 'd', 'disagrees'],
    ],
  );
});

test('rows share what they begin with; stopped in the middle, a run does only what is missing', async () => {
  const out = mkdtempSync(join(tmpdir(), 'vpae-'));
  const at = (name: string) => join(out, name);
  const preset = loadPreset('digits-test', ['data.trainClips=16', 'data.heldOutClips=4', 'best.clips=2']);
  const [vae, dit] = [vaeConfigOf(preset), ditConfigOf(preset)];
  const about = { preset, steps: 0 };
  await saveModel(at('vae.safetensors'), { kind: 'vae', config: vae, params: initVAE(vae, 1), about });
  const { hash } = await loadVAE(at('vae.safetensors'));
  await saveModel(at('teacher.safetensors'), {
    kind: 'teacher',
    config: dit,
    params: initDiT(dit, 1),
    about: { ...about, vae: hash },
  });
  await saveTensors(
    at('classifier.safetensors'),
    materialise(
      Object.fromEntries(
        Object.entries(CLASSIFIER_SHAPES).map(([name, shape]) => [
          name,
          { shape, init: { law: 'normal', value: 0.1 } },
        ]),
      ),
      1,
    ),
  );
  const device = await open();
  const rows = ROWS.filter((r) => ['method', 'lambda-0', 'four-zero-shot'].includes(r.id));
  const work: Ablate = {
    device,
    preset,
    rows,
    seeds: 1,
    updates: 4,
    out: at('ablations'),
    data: out,
    vae: at('vae.safetensors'),
    teacher: at('teacher.safetensors'),
    classifier: at('classifier.safetensors'),
  };
  const stop = new AbortController();
  const first = await ablate({
    ...work,
    signal: stop.signal,
    onStep: ({ row, job }) => {
      if (row.id === 'lambda-0' && job === 'equilibrium') stop.abort();
    },
  });
  assert.equal([first.done, first.results.map((r) => r.row)], [false, ['method']]);
  const steps: string[] = [];
  const second = await ablate({
    ...work,
    onStep: ({ row, job, done, total }) => steps.push(`${row.id} ${job} ${done}/${total}`),
  });
  assert.equal(
    steps,
    ['lambda-0 equilibrium 11/12', 'lambda-0 equilibrium 12/12'],
    'the step that was under way is done',
  );
  assert.equal(
    second.results.map((r) => r.row),
    rows.map((r) => r.id),
  );
  assert.is(readdirSync(at('ablations/stages')).length, 3);
  assert.ok(device.allocated < 2 ** 20, `${device.allocated} bytes`);
  device.close();
});

test.run();

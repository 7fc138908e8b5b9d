/** Wan2.2's layouts in small run every part of the training: text and first frame by one network, two experts by their ranges of noise. */
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { open } from '../../engine/runtime/device.ts';
import { NDArray } from '../../engine/runtime/ndarray.ts';
import { normal } from '../../engine/frontend/functional.ts';
import { host } from '../../engine/frontend/tree.ts';
import { evaluationsOf, spans } from '../../model/pipeline/diffuse.ts';
import { sampleClips } from '../../train/judge/infer.ts';
import { distill, trainTeacher, trainVae, type Distilled } from '../../train/pipeline.ts';
import { loadDiT } from '../../train/loop/models.ts';
import { freeTree, toDevice } from '../../train/loop/checkpoint.ts';
import { key } from '../../train/loop/rng.ts';
import { conditioner, ditConfigOf, latentShape } from '../../train/methods/conditions.ts';
import { noise as noised } from '../../train/methods/flow.ts';
import { draws } from '../../train/methods/jobs.ts';
import { predictX0 } from '../../train/methods/networks.ts';
import { Rollout } from '../../train/methods/rollout.ts';
import { teacherSampler } from '../../train/methods/sample.ts';
import { loadPreset, type Preset } from '../../train/presets/index.ts';
import { initDiT } from '../../model/wan/dit.ts';
import { openTrained } from '../../train/videos/model.ts';
import { oracle } from '../golden/executor.ts';
import { largest, noise } from '../model/tiny.ts';
import { held } from '../held.ts';
import { close, onHost, weights } from './onhost.ts';

const classifier = fileURLToPath(new URL('../../bundle/classifier.safetensors', import.meta.url));
const device = await open();
const TINY = [
  'data.trainClips=8',
  'data.shardClips=8',
  'best.clips=2',
  'best.every=6',
  'trainVae.statClips=2',
  'trainVae.steps=1',
  'teacher.steps=2',
  'priming.steps=1',
  'equilibrium.steps=1',
];

/** Trains a preset from nothing, distils it and looks at what was made; what it held is given back after. */
async function distilled(
  preset: Preset,
  look: (found: { made: Distilled; out: string; preset: Preset }) => Promise<void>,
): Promise<void> {
  const out = mkdtempSync(join(tmpdir(), 'vpae-'));
  const work = { device, preset, out };
  const before = await held(device);
  try {
    assert.ok((await trainVae(work)).done && (await trainTeacher(work)).done);
    await look({ made: await distill({ ...work, classifier }), out, preset });
    assert.is(device.allocated, before);
  } finally {
    rmSync(out, { recursive: true });
  }
}

for (const name of ['digits-5b', 'digits-a14b']) {
  test(`${name}: VAE, teacher, both phases`, () =>
    distilled(loadPreset(name, TINY), async ({ made, out, preset }) => {
      assert.equal(
        made.phases.map((p) => p.name),
        ['priming', 'equilibrium'],
      );
      const { params } = await loadDiT(made.path);
      assert.ok(Object.values(params).every((t) => (t.data as Float32Array).every(Number.isFinite)));
      const { model } = await openTrained(join(out, 'vae.safetensors'), join(out, 'teacher.safetensors'));
      const heads: string[] = [];
      for (const expert of ['high', 'low'] as const) {
        const net = await model.loadDiT(device, () => {}, expert);
        const weight = net.weights['head.head.weight']!;
        heads.push(weight instanceof NDArray ? String(await weight.read()) : '');
        await net.free();
      }
      assert.is(heads[0] === heads[1], preset.experts === undefined, 'each expert has weights of its own');
    }));
}

test('a few steps of two experts: a student for each, trained by the scores of its own', () =>
  distilled(
    loadPreset('digits-a14b', [...TINY, 'student.steps=2', 'student.mode=lora']),
    async ({ made, out, preset }) => {
      assert.equal(
        made.phases.map((p) => p.name),
        ['priming', 'equilibrium', 'priming-low', 'equilibrium-low'],
      );
      assert.is(made.low, join(out, 'student.low.safetensors'));
      for (const [student, teacher] of [
        ['student.safetensors', 'teacher.safetensors'],
        ['student.low.safetensors', 'teacher.low.safetensors'],
      ]) {
        const [own, base] = [await loadDiT(join(out, student!)), await loadDiT(join(out, teacher!))];
        assert.is(own.about['teacher'], base.hash);
        assert.equal(
          own.params['patch_embedding.weight'],
          base.params['patch_embedding.weight'],
          'adapters of its own expert',
        );
        const name = 'blocks.0.self_attn.q.weight';
        assert.not.equal(own.params[name], base.params[name]);
      }
      const { model, sampling } = await openTrained(join(out, 'vae.safetensors'), join(out, 'student.safetensors'));
      assert.equal(
        spans(sampling).map(({ expert, guidance }) => [expert, guidance]),
        [
          ['high', 1],
          ['low', 1],
        ],
      );
      await (await model.loadDiT(device, () => {}, 'low')).free();
      const frame = new Float32Array(preset.data.size ** 2);
      const clip = async (): Promise<string> => {
        const files = { vae: join(out, 'vae.safetensors'), model: join(out, 'student.safetensors') };
        const { videos } = await sampleClips({
          device,
          ...files,
          requests: [{ caption: 'a 3 moving up', frame, seed: 1 }],
        });
        return String(videos[0]);
      };
      const both = await clip();
      copyFileSync(join(out, 'teacher.safetensors'), join(out, 'student.low.safetensors'));
      assert.is.not(await clip(), both, 'a clip is judged by what both networks make of it');
    },
  ));

test('the low-noise student begins at what the high-noise one has sampled, the high-noise one at noise', async () => {
  const p = loadPreset('digits-a14b', ['student.steps=2', 'student.mode=full']);
  const dit = ditConfigOf(p);
  const [high, low] = [weights(1, dit), weights(2, dit)];
  const played = (net: typeof high) => {
    const frozen = toDevice(device, net) as never;
    return { teacher: frozen, generator: frozen };
  };
  const [first, second] = [played(high), played(low)];
  const shape = [2, ...latentShape(p)];
  const c = conditioner(p).condition(['a 3 moving up', 'a 7 moving down'], undefined, noise('latent', shape));
  const pure = onHost([key(p.seed, 0, 'test.start')], (k) => normal(k, shape));
  for (const range of ['high', 'low'] as const) {
    const rollout = new Rollout(device, p, 2, range);
    const given = range === 'high' ? { networks: first } : { networks: second, before: first };
    const { input, t } = await rollout.to(given, c, 0, 'test');
    assert.is(t.sigma.data[0]! < p.experts!.boundary, range === 'low');
    const expected =
      range === 'high'
        ? pure
        : onHost(
            [high, pure, draws(p).at(1, 2), c, t.sigma, key(p.seed, 0, 'test.level 1')],
            (w, x, end, told, next, k) => noised(predictX0(w, dit, x, end, told), normal(k, shape), next),
          );
    assert.ok(close(host(await input.read(), shape), expected) < 1e-4, range);
    await rollout.close();
  }
  freeTree([first.teacher, second.teacher]);
  assert.throws(
    () => new Rollout(device, loadPreset('digits-a14b', ['student.steps=2', 'experts.boundary=0.5']), 2, 'low'),
    /student\.steps=2 none is the low-noise expert's/,
  );
});

test('times are drawn within an expert’s range, each range as often as the law says', () => {
  const p = loadPreset('digits-a14b');
  const { boundary } = p.experts!;
  const law = { law: 'uniform', shift: 1, lo: 0.02, hi: 0.98 } as const;
  for (const expert of ['high', 'low'] as const) {
    const { sigma } = draws(p).times(law, 64, 1, 'score', expert);
    assert.ok(sigma.data.every((s) => s < boundary === (expert === 'low')));
  }
  const { low } = teacherSampler(p);
  assert.is(low!.below, 1000 * boundary);
  assert.is(evaluationsOf(teacherSampler(p)), 2 * p.teacher.sampler.steps);
});

test('a first frame that is held is in every prediction, and half of the clips have one', async () => {
  const p = loadPreset('digits-5b');
  const dit = ditConfigOf(p);
  const { condition, batch } = conditioner(p);
  const latent = noise('latent', [2, p.vae.z_dim, 3, 2, 2]);
  const c = condition(['a 3 moving up', 'a 7 moving down'], undefined, latent);
  assert.equal(c.first!.shape, [2, p.vae.z_dim, 1, 2, 2]);
  const { x0, first } = await oracle.run(
    ({ params, x, t, c }) => ({
      x0: predictX0(params, dit, x, t, { ...c, held: undefined as never }).slice(2, 0, 1),
      first: c.first!,
    }),
    { params: initDiT(dit, 1), x: noise('x', latent.shape), t: draws(p).at(0.7, 2), c },
  );
  assert.ok(largest(x0!, first!) < 1e-6);
  const records = { latent, captions: ['a 3 moving up', 'a 7 moving down'], meta: [] };
  const shards = { count: 2, made: '', records: () => records, batch: () => records };
  const told = Array.from({ length: 64 }, (_, n) => batch(shards as never, 1, n, 2, 'priming').c.held!.data[0]!);
  const share = told.reduce((a, b) => a + b, 0) / told.length;
  assert.ok(share > 0.3 && share < 0.7, `${share}`);
});

test.after(() => device.close());
test.run();

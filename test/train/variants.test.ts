/** On a device: a student as adapters, of several steps, from text alone, with IDA; its rollout is its own sampling. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { open } from '../../engine/runtime/device.ts';
import { normal } from '../../engine/frontend/functional.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { freeTree, toDevice, toHost, type State } from '../../train/loop/checkpoint.ts';
import { conditioner, ditConfigOf, latentShape } from '../../train/methods/conditions.ts';
import type { Shards } from '../../train/data/shards.ts';
import { noise } from '../../train/methods/flow.ts';
import type { StudentJob } from '../../train/methods/jobs.ts';
import { predictX0, timeAt } from '../../train/methods/networks.ts';
import type { Stage } from '../../train/methods/stage.ts';
import { equilibrium, priming } from '../../train/methods/vpae.ts';
import { loadPreset } from '../../train/presets/index.ts';
import { key } from '../../train/loop/rng.ts';
import { Rollout } from '../../train/methods/rollout.ts';
import { close, draw, onHost, weights } from './onhost.ts';

const device = await open();
const preset = loadPreset('digits-test', [
  'dit.model_type=t2v',
  'dit.num_layers=1',
  'equilibrium.taps=[0]',
  'student.mode=lora',
  'student.steps=2',
  'priming.fake.ida=0.5',
  'priming.fake.warmup=1',
  'priming.fake.updates=1',
  'equilibrium.head.warmup=0',
]);
const dit = ditConfigOf(preset);
const teacher = weights(3, dit);

const records: Shards['records'] = (numbers) => {
  const made = (role: string, shape: readonly number[]) => draw([numbers.length, ...shape], role);
  return {
    latent: made('latent', latentShape(preset)),
    imageLatent: made('image', latentShape(preset)),
    firstFrame: made('frame', [1, preset.data.size, preset.data.size]),
    captions: Array.from(numbers, (i) => `a ${i % 10} moving up`),
    meta: [],
  };
};
const shards: Shards = {
  count: 8,
  made: 'noise',
  records,
  batch: (_seed, step, size) => records(Array.from({ length: size }, (_, i) => step + i)),
};

async function steps(job: StudentJob, count: number): Promise<State> {
  let state = await job.initial();
  for (let n = 0; n < count; n++) {
    const { state: next, metrics } = await job.advance(state, n);
    state = next;
    for (const [name, x] of Object.entries(await metrics))
      assert.ok(Number.isFinite(x) && !(name.endsWith('kipped') && x), `${name} ${x}`);
    assert.not.ok('first' in (await metrics), 'text alone gives no first frame');
  }
  return state;
}

test('both phases train adapters alone, and IDA draws the fake model towards the generator', async () => {
  const job = await priming.open({ device, course: preset, shards, teacher });
  const state = await steps(job, 2);
  const { generator, fake } = await toHost(state);
  const names = Object.keys(generator!.params);
  for (const net of [generator!.params, generator!.ema!, generator!.v, fake!.params])
    assert.equal(Object.keys(net), names);
  assert.ok(names.every((name) => /\.lora_[AB]\.weight$/.test(name)));
  const B = 'blocks.0.ffn.2.lora_B.weight';
  assert.ok([generator!, fake!].every((net) => net.params[B]!.data.some((x) => x !== 0)));
  const net = job.student(state);
  assert.equal(
    Object.keys(net).sort(),
    [...Object.keys(teacher), ...names].sort(),
    'adapters beside what they are added to',
  );
  freeTree(state);
  await job.close();

  const second = await equilibrium.open({ device, course: preset, shards, teacher, before: generator!.ema! });
  const after = await steps(second, 1);
  assert.equal(Object.keys((await toHost(after))['generator']!.params), names);
  freeTree(after);
  await second.close();
});

test("f16 operands in the forward passes: both phases' numbers are near those of f32, and so is the update", async () => {
  if (!device.caps.f16) return;
  for (const stage of [priming, equilibrium] as readonly Stage[]) {
    const runs = [];
    for (const precision of ['f32', 'f16']) {
      const p = loadPreset('digits-test', ['dit.num_layers=1', 'equilibrium.taps=[0]', `run.precision=${precision}`]);
      const job = await stage.open({ device, course: p, shards, teacher: weights(3, ditConfigOf(p)) });
      const { state, metrics } = await job.advance(await job.initial(), job.alone);
      runs.push({ metrics: await metrics, moved: (await toHost(state))['generator']!.params });
      freeTree(state);
      await job.close();
    }
    const [full, half] = runs as [(typeof runs)[0], (typeof runs)[0]];
    assert.ok(
      Object.keys(full.metrics).some((name) => half.metrics[name] !== full.metrics[name]),
      'it is rounded',
    );
    for (const [name, x] of Object.entries(full.metrics))
      assert.ok(
        Math.abs(half.metrics[name]! - x) <= 0.02 * Math.abs(x) + 2e-3,
        `${name} ${half.metrics[name]} instead of ${x}`,
      );
    for (const [name, t] of Object.entries(full.moved))
      assert.ok(close(half.moved[name] as HostTensor, t as HostTensor) < 2e-3, name);
  }
});

test('a discriminator that is told the end sees the same noise at another time', async () => {
  const margin = async (told: string, from: number) => {
    const law = `equilibrium.discriminatorTimes={"law":"uniform","shift":1,"lo":${from},"hi":1}`;
    const p = loadPreset('digits-test', ['dit.num_layers=1', 'equilibrium.taps=[0]', `equilibrium.told=${told}`, law]);
    const job = await equilibrium.open({ device, course: p, shards, teacher: weights(3, ditConfigOf(p)) });
    const { state, metrics } = await job.advance(await job.initial(), 0);
    freeTree(state);
    await job.close();
    const { real, fake, margin } = await metrics;
    assert.ok(Math.abs(margin! - (real! - fake!)) < 1e-6);
    return margin!;
  };
  assert.is(await margin('end', 1), await margin('own', 1));
  assert.is.not(await margin('end', 0.1), await margin('own', 0.1));
});

test('a rollout is what the student samples down to the level: pure noise, or x0 noised again', async () => {
  const full = { ...preset, student: { ...preset.student, mode: 'full' as const } };
  const rollout = new Rollout(device, full, 2);
  const net = toDevice(device, teacher) as never;
  const { c } = conditioner(preset).batch(shards, 1, 0, 2, 'rollout');
  const seen = new Set<number>();
  for (let step = 0; seen.size < 2; step++) {
    const { input, t } = await rollout.to({ networks: { teacher: net, generator: net } }, c, step, 'test');
    const level = t.sigma.data[0]!;
    if (seen.has(level)) continue;
    seen.add(level);
    const shape = [2, ...latentShape(preset)];
    const [start, again] = [key(full.seed, step, 'test.start'), key(full.seed, step, 'test.level 1')];
    const pure = onHost([start], (k) => normal(k, shape));
    const one = timeAt(dit, host([1, 1], [2]));
    const expected =
      level === 1
        ? pure
        : onHost([teacher, pure, one, c, t.sigma, again], (w, x, end, condition, next, k) =>
            noise(predictX0(w, dit, x, end, condition), normal(k, shape), next),
          );
    const got = host(await input.read(), shape);
    assert.ok(close(got, expected) < 1e-4, `${close(got, expected)} at ${level}`);
  }
  freeTree(net);
  await rollout.close();
  assert.ok(device.allocated < 2 ** 20, `${device.allocated} bytes`);
});

test.run();

/** What is planned is what is allocated, on the smallest preset; and released models are planned without a device. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { open } from '../../engine/runtime/device.ts';
import { host } from '../../engine/frontend/tree.ts';
import { initDiT } from '../../model/wan/dit.ts';
import { freeTree } from '../../train/loop/checkpoint.ts';
import { ditConfigOf, latentShape } from '../../train/methods/conditions.ts';
import type { Shards } from '../../train/data/shards.ts';
import type { StudentJob } from '../../train/methods/jobs.ts';
import { deviceBytes, flopsOf, hostPeakOf, onUnits, peakOf, totalOf } from '../../train/planning/cost.ts';
import { findFit } from '../../train/planning/fit.ts';
import { costOf, guessPeak, stageOf, type JobName, type Target } from '../../train/planning/jobs.ts';
import { subjectOf } from '../../train/planning/subject.ts';
import { loadPreset, type Preset } from '../../train/presets/index.ts';
import { held } from '../held.ts';

const device = await open();
const GPU: Target = {
  caps: {
    tier: 'tiled',
    f16: true,
    subgroup: 32,
    maxInvocations: 256,
    maxWorkgroupBytes: 32768,
    maxStorageBuffers: 10,
    maxBindingBytes: 2 ** 32 - 4,
  },
  maxBufferBytes: 2 ** 32 - 4,
};
const SAMPLER = { steps: 50, guided: true, offload: false };

function blank(p: Preset): Shards {
  const fill = (shape: readonly number[], n: number) =>
    host(new Float32Array(n * shape.reduce((a, b) => a * b, 1)).fill(0.1), [n, ...shape]);
  const frame = [p.vae.channels, p.data.size, p.data.size];
  const records = (of: ArrayLike<number>) => ({
    latent: fill(latentShape(p), of.length),
    imageLatent: fill(latentShape(p), of.length),
    firstFrame: fill(frame, of.length),
    captions: Array.from(of, () => 'a 7 moving left'),
    meta: [],
  });
  return {
    count: p.data.trainClips,
    made: 'nothing',
    records,
    batch: (_seed, _step, n) => records(Array.from({ length: n }, () => 0)),
  };
}

/** Bytes that one step of a job holds at most. */
async function allocated(p: Preset, make: (shards: Shards) => Promise<StudentJob>): Promise<number> {
  const before = await held(device);
  device.peak = before;
  const job = await make(blank(p));
  let state = await job.initial();
  ({ state } = await job.advance(state, 4));
  freeTree(state);
  await job.close();
  assert.is(device.allocated, before);
  return device.peak - before;
}

for (const [job, ...sets] of [
  ['priming', 'student.mode=lora', 'stored=bf16', 'dit.checkpoint=lean', 'dit.ffn_parts=2'],
  ['priming', 'priming.accumulate=2'],
  ['priming', 'run.precision=f16', 'stored=bf16'],
  ['equilibrium'],
  ['consistency', 'student.mode=lora'],
  ['consistency', 'student.mode=lora', 'run.offload=true', 'stored=bf16'],
  ['dmd2', 'run.offload=true', 'dit.checkpoint=lean'],
  ['dmd2'],
  ['meanflow', 'baselines.meanflow.accumulate=2'],
  ['dmd2', 'priming.accumulate=2', 'dit.checkpoint=true'],
  ['equilibrium', 'run.precision=f16'],
  [
    'equilibrium',
    'student.mode=lora',
    'stored=bf16',
    'dit.checkpoint=nested',
    'equilibrium.apart=true',
    'equilibrium.accumulate=2',
  ],
  ['equilibrium', 'student.mode=lora', 'stored=bf16', 'dit.checkpoint=lean', 'run.offload=true'],
] as [JobName, ...string[]][]) {
  if (device.caps.f16 || !sets.includes('run.precision=f16'))
    test(`digits-test, ${[job, ...sets].join(', ')}: the planned peak is the allocated one`, async () => {
      const p = loadPreset('digits-test', sets);
      const cost = costOf(job, subjectOf('digits-test', sets), SAMPLER, device);
      const teacher = initDiT(ditConfigOf(p), 1);
      const peak = await allocated(p, (shards) => stageOf(job)!.open({ device, course: p, shards, teacher }));
      assert.is(peak, peakOf(cost));
    });
}

test('Wan2.1 1.3B samples in 12 GB, in 283 TFLOP a forward', () => {
  const s = subjectOf('wan2.1-t2v-1.3b', []);
  const cost = costOf('sample', s, { steps: 1, guided: false, offload: false }, GPU);
  assert.ok(peakOf(cost) < 12e9);
  const flops = cost.stages.find((stage) => stage.name === 'diffusion')!.runs[0]!.plan.flops;
  assert.ok(Math.abs(flops / 283e12 - 1) < 0.01, `${flops}`); // 32 760 tokens
  assert.ok(flopsOf(cost) > flops && hostPeakOf(cost) > 3e8);
  assert.is(
    totalOf(deviceBytes(cost.stages[1]!).filter((h) => h.cause === 'weights')),
    2 * 1_418_996_800 + 2 * vectors(s),
  );
});

/** Numbers that stay in f32. */
function vectors(s: ReturnType<typeof subjectOf>): number {
  const { dim, ffn_dim, num_layers } = s.config;
  const block = 6 * dim + 2 * (4 * dim + 2 * dim) + 2 * dim + ffn_dim + dim; // modulation; biases and gains of two attentions; norm3; biases of the feed-forward
  return num_layers * block + dim + 2 * dim + 2 * dim + 6 * dim + 2 * dim + 64; // embeddings' biases, the head's modulation and bias
}

test('the cheapest changes are found, a guess is near the plan, and what cannot fit is told', () => {
  const make = (sets: readonly string[]) => subjectOf('digits-test', sets);
  const whole = peakOf(costOf('priming', make([]), SAMPLER, GPU));
  assert.equal(findFit('priming', make, SAMPLER, GPU, whole)!.changes, []);
  const less = findFit('priming', make, SAMPLER, GPU, 0.8 * whole)!;
  assert.ok(less.changes.length > 0 && peakOf(less.cost) <= 0.8 * whole);
  assert.not.ok(
    less.changes.some((c) => c.sets[0]!.startsWith('student')),
    'training itself is changed last',
  );
  assert.is(findFit('priming', make, SAMPLER, GPU, 1000), undefined);
  const tight = findFit('teacher', make, SAMPLER, GPU, 1.535e6);
  assert.ok(
    tight?.changes.some((c) => c.sets[0] === 'dit.checkpoint=true'),
    'recomputing in groups holds more in a small network',
  );
  for (const [job, ...sets] of [
    ['teacher', 'teacher.batch=1'],
    ['consistency', 'student.mode=lora', 'run.offload=true', 'dit.checkpoint=lean'],
  ] as [JobName, ...string[]][]) {
    const deep = subjectOf('wan2.1-t2v-1.3b', sets, { width: 208, height: 112 });
    const [guess, peak] = [guessPeak(job, deep, SAMPLER, GPU), peakOf(costOf(job, deep, SAMPLER, GPU))];
    assert.ok(Math.abs(guess / peak - 1) < 0.03, `${job} ${guess} ${peak}`);
  }
});

test("matrix units do at least 95 % of the arithmetic of a DiT's training step in f16", () => {
  const units: Target = {
    ...GPU,
    caps: { ...GPU.caps, units: [{ operands: 'f16', M: 16, N: 16, K: 16, lanes: 32, multiple: 32, emulated: false }] },
  };
  const share = (sets: readonly string[]) =>
    onUnits(
      costOf('teacher', subjectOf('wan2.1-t2v-1.3b', sets, { width: 832, height: 480, layers: 2 }), SAMPLER, units),
    );
  const half = share(['run.precision=f16']);
  assert.ok(half > 0.95 && half <= 1, `${half}`);
  assert.is(share([]), 0);
});

test.run();

/**
 * Every job on a device with the smallest preset: VAE, latents, teacher, both phases, sampling, judging; stopped and resumed on the way.
 */
import { existsSync, mkdtempSync, readdirSync, readFileSync, cpSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { open } from '../../engine/runtime/device.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { materialise, type HostParams } from '../../model/params.ts';
import { generate } from '../../model/pipeline/generate.ts';
import { saveTensors } from '../../model/files/safetensors.ts';
import { freeTree, toHost } from '../../train/loop/checkpoint.ts';
import { conditioner } from '../../train/methods/conditions.ts';
import { openShards } from '../../train/data/shards.ts';
import { evaluate, sampleClips } from '../../train/judge/infer.ts';
import { METHOD_NAMES, METHODS } from '../../train/methods/index.ts';
import { teacherJob } from '../../train/methods/jobs.ts';
import { Judge } from '../../train/judge/eval.ts';
import { CLASSIFIER_SHAPES, loadClassifier } from '../../train/metrics/classifier.ts';
import { loadDiT } from '../../train/loop/models.ts';
import { distill, precompute, trainTeacher, trainVae } from '../../train/pipeline.ts';
import { loadPreset } from '../../train/presets/index.ts';
import { openTrained } from '../../train/videos/model.ts';
import type { Work } from '../../train/work.ts';

const device = await open();
const preset = loadPreset('digits-test');
const out = mkdtempSync(join(tmpdir(), 'vpae-'));
const work: Work = { device, preset, out };
const classifier = join(out, 'classifier.safetensors');
await saveTensors(
  classifier,
  materialise(
    Object.fromEntries(
      Object.entries(CLASSIFIER_SHAPES).map(([name, shape]) => [name, { shape, init: { law: 'normal', value: 0.1 } }]),
    ),
    1,
  ),
);

async function rejects(run: () => Promise<unknown>, message: RegExp): Promise<void> {
  const said = await run().then(
    () => 'nothing',
    (error: Error) => error.message,
  );
  assert.match(said, message);
}

const log = (folder: string) =>
  readFileSync(join(folder, 'metrics.jsonl'), 'utf8')
    .trim()
    .split('\n')
    .map((line) => ({ ...(JSON.parse(line) as object), seconds: 0 }));

test('VAE, latents and teacher; a finished part is not run again', async () => {
  assert.ok((await trainVae(work)).done);
  const shards = await precompute(work);
  assert.is(shards.count, preset.data.trainClips);
  const { latent } = shards.records([0, 1, 2, 3]);
  assert.ok(latent.data.every(Number.isFinite));
  assert.ok((await trainTeacher(work)).done);
  const { dispatches } = device.counters;
  assert.ok((await trainTeacher(work)).done);
  assert.is(device.counters.dispatches, dispatches);
});

test('a teacher goes on from a trained one, on draws that one has not seen', async () => {
  const more = mkdtempSync(join(tmpdir(), 'vpae-'));
  for (const part of ['vae.safetensors', 'data']) cpSync(join(out, part), join(more, part), { recursive: true });
  assert.ok((await trainTeacher({ ...work, out: more, from: join(out, 'teacher.safetensors') })).done);
  const [first, second] = [
    await loadDiT(join(out, 'teacher.safetensors')),
    await loadDiT(join(more, 'teacher.safetensors')),
  ];
  assert.is(second.about.steps, 2 * first.about.steps);
  assert.is(second.about['from'], first.hash);
  const shards = openShards(join(out, 'data'));
  const loss = async (from: { params: HostParams; steps: number }, step: number) => {
    const job = teacherJob(device, preset, shards, { from });
    const { state, metrics } = await job.advance(await job.initial(), step);
    freeTree(state);
    await job.close();
    return (await metrics)['loss'];
  };
  const { params } = first;
  assert.is(await loss({ params, steps: 6 }, 1), await loss({ params, steps: 0 }, 7));
});

test('a finished run is trained on when it is given more steps, and by nothing else', async () => {
  const longer = mkdtempSync(join(tmpdir(), 'vpae-'));
  for (const part of ['vae.safetensors', 'data', 'teacher'])
    cpSync(join(out, part), join(longer, part), { recursive: true });
  const { steps } = preset.teacher;
  const given = (...sets: string[]) => ({ ...work, out: longer, preset: loadPreset('digits-test', sets) });
  const on = `teacher.steps=${steps + 2}`;
  await rejects(() => trainTeacher(given(on, 'teacher.ema=0.5')), /other settings: teacher\.ema was/);
  for (const again of [1, 2]) assert.is((await trainTeacher(given(on))).step, steps + 2, `run ${again}`);
  assert.is((await loadDiT(join(longer, 'teacher.safetensors'))).about.steps, steps + 2);
  assert.equal(
    log(join(longer, 'teacher')).slice(0, steps),
    log(join(out, 'teacher')),
    'the steps that were done are not done again',
  );
  await rejects(() => trainTeacher(given()), /other settings: teacher\.steps was/);
});

test('a NaN in the data leaves every tensor as it was', async () => {
  const shards = openShards(join(out, 'data'));
  const broken = {
    ...shards,
    batch: (...args: Parameters<typeof shards.batch>) => {
      const b = shards.batch(...args);
      return { ...b, latent: host(Float32Array.from(b.latent.data).fill(NaN, 0, 1), b.latent.shape) };
    },
  };
  const job = teacherJob(device, preset, broken);
  const first = await job.initial();
  const initial = await toHost(first);
  const { state, metrics } = await job.advance(first, 0);
  assert.is((await metrics)['skipped'], 1);
  const after = await toHost(state);
  for (const part of ['params', 'm', 'v', 'ema'] as const) {
    for (const [name, t] of Object.entries(after['teacher']![part]!))
      assert.equal(t.data, initial['teacher']![part]![name]!.data, name);
  }
  freeTree(state);
  await job.close();
  assert.is(conditioner(preset).batch(shards, 1, 0, 2, 'x').x0.shape[0], 2);
});

test('both phases; stopped in each and resumed, the losses are the same', async () => {
  const other = mkdtempSync(join(tmpdir(), 'vpae-'));
  for (const part of ['vae.safetensors', 'teacher.safetensors', 'data'])
    cpSync(join(out, part), join(other, part), { recursive: true });
  const whole = await distill({ ...work, classifier, draw: async (rows) => Uint8Array.of(rows.length) });
  assert.ok(whole.done && whole.phases.length === 2 && existsSync(whole.path));

  let stop = new AbortController();
  const stops = new Set(['priming 1', 'priming 4', 'equilibrium 3']);
  const again = () =>
    distill({
      ...work,
      out: other,
      classifier,
      signal: stop.signal,
      onProgress: ({ job, step }) => {
        if (stops.delete(`${job} ${step}`)) stop.abort();
      },
    });
  for (let left = stops.size; left > 0; left--) {
    assert.is((await again()).done, false);
    stop = new AbortController();
  }
  assert.equal((await again()).phases, whole.phases);
  for (const phase of ['priming', 'equilibrium']) assert.equal(log(join(other, phase)), log(join(out, phase)));
  const told = (phase: string, names: string[]) =>
    assert.ok(
      log(join(out, phase)).some((line) => names.every((n) => n in line)),
      `what the alarms of ${phase} watch`,
    );
  told('priming', ['floor', 'fakeLoss', 'deviation', 'motion', 'first', 'skipped', 'fakeSkipped']);
  told('equilibrium', ['active', 'deviation', 'motion', 'first', 'skipped', 'headSkipped']);
  told('equilibrium', ['score', 'motionRatio', 'firstFramePsnr']);
  for (const phase of ['priming', 'equilibrium'])
    assert.ok(readdirSync(join(out, phase, 'samples')).includes('00000000.webp'), 'a picture of the start');
});

test('every method of the table distils the same teacher, and says what it kept', async () => {
  const brief = loadPreset('digits-test', [
    'priming.steps=1',
    'priming.fake.warmup=1',
    'priming.fake.updates=1',
    'equilibrium.steps=1',
    'equilibrium.head.warmup=1',
    'best.every=1',
  ]);
  for (const method of METHOD_NAMES.filter((name) => name !== 'vpae')) {
    const own = mkdtempSync(join(tmpdir(), 'vpae-'));
    for (const part of ['vae.safetensors', 'teacher.safetensors', 'data'])
      cpSync(join(out, part), join(own, part), { recursive: true });
    const { done, path, phases } = await distill({ ...work, preset: brief, out: own, classifier, method });
    assert.ok(done, method);
    assert.equal(
      phases.map((phase) => phase.name),
      METHODS[method].stages.map((stage) => stage.name),
    );
    const { params } = await loadDiT(path);
    assert.ok(
      Object.values(params).every((t) => (t.data as Float32Array).every(Number.isFinite)),
      method,
    );
  }
});

test('the student makes a clip in one evaluation, the same whatever stands beside it; the teacher takes two a step', async () => {
  const paths = { device, vae: join(out, 'vae.safetensors'), classifier };
  const frame = new Float32Array(preset.data.size ** 2).fill(-1);
  const ask = (seed: number) => ({ caption: 'a 3 moving up', frame, seed });
  const pair = await sampleClips({ ...paths, model: join(out, 'student.safetensors'), requests: [ask(1), ask(2)] });
  const single = await sampleClips({ ...paths, model: join(out, 'student.safetensors'), requests: [ask(2)] });
  assert.is(pair.evaluations, 1);
  assert.ok(pair.videos[1]!.every((x, i) => Math.abs(x - single.videos[0]![i]!) < 1e-4));
  assert.ok(
    pair.videos[0]!.some((x, i) => Math.abs(x - pair.videos[1]![i]!) > 1e-3),
    'another seed is another clip',
  );
  const { model, sampling } = await openTrained(paths.vae, join(out, 'student.safetensors'));
  const chunks: HostTensor[] = [];
  const size = { width: preset.data.size, height: preset.data.size };
  const job = {
    prompt: 'a 3 moving up',
    negative: '',
    pictures: [host(frame, [1, size.height, size.width])],
    size,
    frames: preset.data.frames,
    seed: 2,
  };
  await generate(device, model, [job], {
    sampling,
    progress: () => {},
    sink: () =>
      Promise.resolve({
        add: (c) => Promise.resolve(void chunks.push(c)),
        end: () => Promise.resolve(),
        abort: () => Promise.resolve(),
      }),
  });
  const pixels = chunks.flatMap((c) => Array.from(c.data));
  assert.is(pixels.length, single.videos[0]!.length);
  assert.ok(
    pixels.every((x, i) => Math.abs(x - single.videos[0]![i]!) < 1e-3),
    'one seed is one clip, in sample as in eval',
  );
  const report = await evaluate({
    ...paths,
    model: join(out, 'teacher.safetensors'),
    judge: async (p) => Judge.heldOut(p, await loadClassifier(classifier)),
  });
  assert.is(report.samples.evaluations, 2 * preset.teacher.sampler.steps);
  assert.is(report.evaluation.clips, preset.data.heldOutClips);
  const student = await loadDiT(join(out, 'student.safetensors'));
  assert.is(student.kind, 'student');
});

test('models that do not fit are refused in one line', async () => {
  const refused = async (work_: Promise<unknown>) =>
    assert.match(
      await work_.then(
        () => 'accepted',
        (e: Error) => e.message,
      ),
      /^\[model\] [^\n]*$/,
    );
  await refused(distill({ ...work, classifier, preset: loadPreset('digits-test', ['dit.ffn_dim=32']) }));
  await refused(precompute({ ...work, preset: loadPreset('digits-test', ['vae.dim=8']) }));
  await refused(distill({ ...work, classifier, teacher: join(out, 'vae.safetensors') }));
  await refused(distill({ ...work, classifier, teacher: join(out, 'none.safetensors') }));
});

test('what was made is freed: jobs leave nothing on the device', () => {
  assert.ok(device.allocated < 2 ** 20, `${device.allocated} bytes`);
});

test.run();

/** What sampling is planned to take is what it takes, through the pipeline of `vpae sample`. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { open } from '../../engine/runtime/device.ts';
import { host } from '../../engine/frontend/tree.ts';
import { givenFrames } from '../../model/config.ts';
import { openCheckpoint } from '../../model/files/checkpoint.ts';
import { IMAGE_PATCH } from '../../model/imagetokens.ts';
import type { Sampling } from '../../model/pipeline/diffuse.ts';
import { networkOf } from '../../model/pipeline/forward.ts';
import { generate, halfOf, type Job, type VideoModel } from '../../model/pipeline/generate.ts';
import type { Precision } from '../../model/pipeline/precision.ts';
import { wanModel, wanSampling } from '../../model/pipeline/wan.ts';
import { initDiT } from '../../model/wan/dit.ts';
import { initVAE } from '../../model/wan/vae.ts';
import { toDevice } from '../../train/loop/checkpoint.ts';
import { courseFor } from '../../train/distill.ts';
import { METHODS } from '../../train/methods/index.ts';
import { ditConfigOf, headConfigOf, videoShape } from '../../train/methods/conditions.ts';
import type { Batch } from '../../train/data/shards.ts';
import type { VideoShards } from '../../train/data/videos.ts';
import { deviceBytes, peakOf, totalOf, type Stage } from '../../train/planning/cost.ts';
import { costOf, type Sampler } from '../../train/planning/jobs.ts';
import { subjectOf, type Subject } from '../../train/planning/subject.ts';
import { courseOf, distillVideos } from '../../train/videos/distill.ts';
import { BRIEF_SETTINGS } from '../cli/clips.ts';
import { writeFolder } from '../model/folders.ts';
import { noise } from '../model/tiny.ts';
import { held } from '../held.ts';

const device = await open();
const test = suite('sampling, planned and allocated');

/** Bytes at most of each stage that loads weights: first frame, diffusion, decoding. */
async function allocated(
  model: VideoModel,
  { video }: Subject,
  sampling: Sampling,
  precision: Precision = 'f32',
): Promise<Record<string, number>> {
  const [channels, frames, height, width] = video as [number, number, number, number];
  const job: Job = {
    prompt: 'one',
    negative: 'another one',
    size: { width, height },
    frames,
    seed: 1,
    pictures: Array.from({ length: givenFrames(model.dit) }, (_, i) =>
      noise(`picture ${i}`, [channels, height, width]),
    ),
  };
  const before = await held(device);
  const peaks: Record<string, number> = {};
  let stage = '';
  const enter = (next: string): void => {
    if (stage) peaks[stage] = device.peak - before;
    [stage, device.peak] = [next, device.allocated];
  };
  const watched: VideoModel = {
    ...model,
    loadVAE(d, half, progress) {
      enter(half === 'encoder' ? 'first frame' : 'decoding');
      return model.loadVAE(d, half, progress);
    },
    loadDiT(d, progress) {
      enter('diffusion');
      return model.loadDiT(d, progress);
    },
  };
  let cells = 0;
  await generate(device, watched, [job], {
    sampling,
    precision,
    progress: () => {},
    sink: () =>
      Promise.resolve({
        add: (chunk) => Promise.resolve(void (cells += chunk.data.length)),
        end: () => Promise.resolve(),
        abort: () => Promise.resolve(),
      }),
  });
  enter('');
  assert.is(cells, channels * frames * height * width);
  assert.is(device.allocated, before);
  return peaks;
}

const stages = (s: Subject, sampler: Sampler): Stage[] => costOf('sample', s, sampler, device).stages;
const planned = (s: Subject, sampler: Sampler): Record<string, number> =>
  Object.fromEntries(stages(s, sampler).map((stage) => [stage.name, totalOf(deviceBytes(stage))]));

for (const guided of [true, false]) {
  test(`digits-test, ${guided ? 'guided' : 'one evaluation'}`, async () => {
    const s = subjectOf('digits-test', []);
    const [net, vae] = [initDiT(s.config, 1), initVAE(s.vae, 1)];
    const { text_len: length, text_dim: dim, clip_dim: wide } = s.config;
    const patches = (s.preset!.data.size / IMAGE_PATCH) ** 2;
    const model: VideoModel = {
      dit: s.config,
      vae: s.vae,
      encodeText: (_, texts) => Promise.resolve(texts.map((t) => noise(t, [length, dim]))),
      encodeImages: (_, images) => Promise.resolve(images.map(() => noise('tokens', [patches, wide]))),
      loadDiT: (d) => Promise.resolve(networkOf(toDevice(d, net))),
      loadVAE: (d, half) => Promise.resolve(toDevice(d, halfOf(vae, half))),
    };
    const sampling: Sampling = guided
      ? { kind: 'euler', steps: 2, shift: 5, guidance: 3 }
      : { kind: 'renoise', steps: 1, shift: 1, guidance: 1 };
    assert.equal(await allocated(model, s, sampling), planned(s, { steps: sampling.steps, guided, offload: false }));
  });
}

const PRESETS = { t2v: 'wan2.1-t2v-1.3b', i2v: 'wan2.1-i2v-14b', flf2v: 'wan2.1-flf2v-14b-720p' };
for (const [kind, offload, precision, layout] of [
  ['t2v', false, 'f32'],
  ['t2v', false, 'f32', 'gguf'],
  ['t2v', false, 'f16'],
  ['i2v', true, 'f32'],
  ['i2v', true, 'f16'],
  ['flf2v', false, 'f32'],
] as const) {
  if (precision === 'f32' || device.caps.f16)
    test(`a folder of ${kind}${layout ? ` as ${layout}` : ''}, ${offload ? 'block by block' : 'whole'}, operands in ${precision}`, async () => {
      const folder = await mkdtemp(join(tmpdir(), 'sampled-'));
      try {
        await writeFolder(folder, layout ?? 'original', kind);
        const checkpoint = await openCheckpoint(folder);
        const {
          dit: { config },
          vae: { config: vae },
        } = checkpoint;
        const s: Subject = {
          ...subjectOf(PRESETS[kind], []),
          config,
          vae,
          latent: [vae.z_dim, 2, 4, 2],
          video: [3, 5, 32, 16],
          encoders: false,
          ...(layout && { packed: 'q8_0' as const }),
        };
        const sampler = { steps: 2, guided: true, offload, precision };
        const got = await allocated(
          wanModel(checkpoint, { offload }),
          s,
          { ...wanSampling(checkpoint, { width: 16, height: 32 }), steps: 2 },
          precision,
        );
        const want = planned(s, sampler);
        if (offload) {
          // of the block that is being read, what has come before the last one is freed is a matter of time
          const blocks = stages(s, sampler)
            .find((stage) => stage.name === 'diffusion')!
            .held.find(({ what }) => what.includes('two blocks'))!.bytes;
          const missing = want['diffusion']! - got['diffusion']!;
          assert.ok(missing >= 0 && missing <= blocks / 2, `${missing} of ${blocks}`);
          got['diffusion'] = want['diffusion']!;
        }
        assert.equal(got, want);
      } finally {
        await rm(folder, { recursive: true });
      }
    });
}

for (const method of ['vpae', 'meanflow', 'apt'] as const)
  test(`distilling records by ${method}, judged and shown`, async () => {
    const folder = await mkdtemp(join(tmpdir(), 'distilled-'));
    try {
      await writeFolder(folder, 'original', 't2v');
      const checkpoint = await openCheckpoint(folder);
      const {
        dit: { config },
        vae: { config: vae },
      } = checkpoint;
      const latent = [vae.z_dim, 2, 4, 4];
      const course = courseOf(checkpoint, latent, [
        'student.mode=lora',
        ...BRIEF_SETTINGS,
        'baselines.meanflow.batch=2',
        'baselines.meanflow.accumulate=2',
        'priming.batch=2',
        'priming.accumulate=2',
        'equilibrium.batch=2',
        'equilibrium.accumulate=2',
      ]);
      const records = (numbers: ArrayLike<number>): Batch => ({
        latent: host(noise('latent', [numbers.length, ...latent]).data as Float32Array, [numbers.length, ...latent]),
        captions: Array.from(numbers, () => 'a cat'),
        meta: [],
        embedded: {
          text: noise('text', [numbers.length, config.text_len, config.text_dim]),
          lengths: Array.from(numbers, () => 3),
        },
      });
      const shards: VideoShards = {
        count: 2,
        made: 'here',
        latent,
        others: 0,
        refused: [],
        unchecked: 0,
        records,
        batch: (_seed, _step, size) => records(Array.from({ length: size }, () => 0)),
      };
      const before = await held(device);
      device.peak = before;
      const taught = courseFor(METHODS[method], course);
      const { done } = await distillVideos({
        device,
        out: join(folder, 'run'),
        method,
        checkpoint,
        shards,
        course,
        draw: () => Promise.resolve(new Uint8Array(1)),
      });
      const got = device.peak - before;
      const [, , height, width] = videoShape(course);
      const s: Subject = {
        ...taught,
        name: 'tiny',
        config: ditConfigOf(taught),
        vae,
        head: headConfigOf(taught),
        latent,
        video: [...videoShape(course)],
        encoders: true,
        usual: wanSampling(checkpoint, { width, height }),
      };
      const want = Math.max(
        ...METHODS[method].stages.map(({ name }) =>
          peakOf(costOf(name, s, { steps: 1, guided: true, offload: false }, device)),
        ),
      );
      assert.ok(done && device.allocated === before);
      assert.ok(got <= want && got > 0.99 * want, `${got} of ${want}`);
    } finally {
      await rm(folder, { recursive: true });
    }
  });

test.run();

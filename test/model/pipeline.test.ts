/** The sampling pipeline on a device against the same composed by hand in the float64 oracle, and the rules of sizes. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { open } from '../../engine/runtime/device.ts';
import { concat } from '../../engine/frontend/functional.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { holdsFirst, readsImages, vaeConfig, type DiTConfig } from '../../model/config.ts';
import { loraSpecs, mergeLora } from '../../model/lora.ts';
import type { HostParams } from '../../model/params.ts';
import { evaluationsOf, latentNoise, spans, type Sampling } from '../../model/pipeline/diffuse.ts';
import { networkOf, type Network } from '../../model/pipeline/forward.ts';
import { generate, halfOf, type Job, type VideoModel } from '../../model/pipeline/generate.ts';
import { checkClip, latentShape, parseSize, sizeLike } from '../../model/pipeline/size.ts';
import { schedule } from '../../model/schedulers/index.ts';
import { dit, ditShapes, ditSpecs } from '../../model/wan/dit.ts';
import { ditTables, timeEmbedding, tokenGrid } from '../../model/wan/tables.ts';
import { decode, denormalise, encode, latentStats, normalise, vaeSpecs } from '../../model/wan/vae.ts';
import { oracle } from '../golden/executor.ts';
import { largest, noise, scrambled, scrambledDiT, tinyDiT } from './tiny.ts';
import { held } from '../held.ts';

const device = await open();
const vae = vaeConfig({
  dim: 4,
  z_dim: 4,
  dim_mult: [1, 1, 1],
  num_res_blocks: 1,
  temperal_downsample: [true, true],
  latent_mean: [1, 0, 0, -1],
  latent_std: [1, 2, 1, 1],
});
const vaeParams = scrambled(vaeSpecs(vae), 0.4);
const upload = (params: HostParams) =>
  Object.fromEntries(Object.entries(params).map(([name, t]) => [name, device.tensor(t.data as Float32Array, t.shape)]));

/** A small network of one picture takes any number of its tokens; the places of two are learnt, of 257 each. */
const tokensOf = ({ model_type }: DiTConfig): number => (model_type === 'i2v' ? 3 : 257);
const nameOf = (picture: HostTensor): string => `tokens of ${picture.data[0]}`;

/** A model whose texts and pictures are numbers drawn by name. */
function modelOf(
  config: DiTConfig,
  params: HostParams,
  network = (p: HostParams): Network => networkOf(upload(p)),
  low = params,
): VideoModel {
  return {
    dit: config,
    vae,
    encodeText: (_, texts) => Promise.resolve(texts.map((t) => noise(t, [config.text_len, config.text_dim]))),
    ...(readsImages(config) && {
      encodeImages: (_: unknown, pictures: readonly HostTensor[]) =>
        Promise.resolve(pictures.map((p) => noise(nameOf(p), [tokensOf(config), config.clip_dim]))),
    }),
    loadVAE: (_, half) => Promise.resolve(upload(halfOf(vaeParams, half))),
    loadDiT: (_, _progress, expert) => Promise.resolve(network(expert === 'low' ? low : params)),
  };
}

async function made(model: VideoModel, jobs: readonly Job[], sampling: Sampling): Promise<HostTensor[][]> {
  const clips: HostTensor[][] = jobs.map(() => []);
  await generate(device, model, jobs, {
    sampling,
    progress: () => {},
    sink: (i) =>
      Promise.resolve({
        add: (c) => Promise.resolve(void clips[i]!.push(c)),
        end: () => Promise.resolve(),
        abort: () => Promise.resolve(),
      }),
  });
  return clips;
}

/** The last pixel frame of what the same comes to, written out. */
async function byHand(
  config: DiTConfig,
  params: HostParams,
  job: Job,
  { kind, steps, shift, guidance, low }: Sampling,
  lowParams = params,
): Promise<HostTensor> {
  const holds = holdsFirst(config) && job.pictures.length > 0;
  const shape = latentShape(vae, job.size, job.frames);
  const { sigmas } = schedule('euler', steps, shift);
  const [, f, h, w] = shape;
  const { video } = await oracle.run(
    ({ p, q, v, stats, x, levels, text, negative, tokens, picture, tables, times, mask }) => {
      const seen = picture && normalise(encode(v, vae, picture).mean, stats);
      const first = holds && seen ? seen.slice(2, 0, 1) : undefined;
      const y = seen && !first ? concat([mask, seen], 1) : undefined;
      let z = x;
      for (let k = 0; k < steps; k++) {
        const below = low && 1000 * sigmas[k]! < low.below;
        const speed = (context: Tensor) =>
          dit(below ? q : p, config, {
            x: z,
            tEmb: times[k]!,
            context,
            ...(y && { y }),
            ...(tokens && { imageTokens: tokens }),
            ...(first && { first }),
            tables,
          }).v as Tensor;
        const uncond = speed(negative);
        const velocity = uncond.add(
          speed(text)
            .sub(uncond)
            .mul(below ? low.guidance : guidance),
        );
        const x0 = z.sub(velocity.mul(sigmas[k]!));
        z =
          kind === 'euler'
            ? z.add(velocity.mul(sigmas[k + 1]! - sigmas[k]!))
            : x0.mul(1 - sigmas[k + 1]!).add(levels[k]!.mul(sigmas[k + 1]!));
      }
      const whole = first ? concat([first, z.slice(2, 1)], 2) : z;
      return { video: decode(v, vae, denormalise(whole, stats)) };
    },
    {
      p: params,
      q: lowParams,
      v: vaeParams,
      stats: latentStats(vae),
      x: latentNoise(job.seed, 'start', [1, ...shape]),
      levels: Array.from({ length: steps }, (_, k) => latentNoise(job.seed, `level ${k + 1}`, [1, ...shape])),
      text: noise(job.prompt, [1, config.text_len, config.text_dim]),
      negative: noise(job.negative, [1, config.text_len, config.text_dim]),
      tokens:
        job.pictures.length && readsImages(config)
          ? host(
              Float32Array.from(
                job.pictures.flatMap((p) => [...noise(nameOf(p), [tokensOf(config), config.clip_dim]).data]),
              ),
              [1, job.pictures.length * tokensOf(config), config.clip_dim],
            )
          : undefined,
      picture: job.pictures.length ? withZeros(job.pictures, job.frames) : undefined,
      mask: givenMask(job.pictures.length, f, h * w, [1, 4, f, h, w]),
      tables: ditTables(config, [tokenGrid(config, shape)]),
      times: Array.from({ length: steps }, (_, k) => timeEmbedding([1000 * sigmas[k]!], config.freq_dim)),
    },
  );
  return host(
    video!.data.map((value) => Math.min(1, Math.max(-1, value))),
    video!.shape,
  );
}

/** First and last frame [C,H,W] → [1,C,frames,H,W], the rest zero. */
function withZeros([first, last]: readonly HostTensor[], frames: number): HostTensor {
  const [c, h, w] = first!.shape as [number, number, number];
  const data = new Float32Array(c * frames * h * w);
  for (let i = 0; i < c; i++) {
    data.set(first!.data.subarray(i * h * w, (i + 1) * h * w), i * frames * h * w);
    if (last) data.set(last.data.subarray(i * h * w, (i + 1) * h * w), ((i + 1) * frames - 1) * h * w);
  }
  return host(data, [1, c, frames, h, w]);
}

/** As Wan has it: 1 for each frame that is given, the first four times, then four frames to a latent frame and these to channels. */
function givenMask(given: number, f: number, plane: number, shape: number[]): HostTensor {
  const frames = Array.from({ length: 4 * f }, (_, t) => (t < 4 || (given > 1 && t === 4 * f - 1) ? 1 : 0));
  return host(
    Float32Array.from({ length: 4 * f * plane }, (_, i) => {
      const [channel, frame] = [Math.floor(i / (f * plane)), Math.floor(i / plane) % f];
      return frames[4 * frame + channel]!;
    }),
    shape,
  );
}

/** The pixels of chunk after chunk, beside those of the whole. */
function difference(chunks: readonly HostTensor[], whole: HostTensor): number {
  const [, c, t, h, w] = whole.shape as [number, number, number, number, number];
  let first = 0;
  return Math.max(
    ...chunks.map((chunk) => {
      const count = chunk.shape[1]!;
      const part = Float64Array.from({ length: chunk.data.length }, (_, i) => {
        const [channel, rest] = [Math.floor(i / (count * h * w)), i % (count * h * w)];
        return whole.data[channel * t * h * w + first * h * w + rest]!;
      });
      first += count;
      assert.equal(chunk.shape, [c, count, h, w]);
      return largest(chunk, host(part, chunk.shape));
    }),
  );
}

const picture = noise('picture', [3, 16, 8]);
const job = (seed: number, pictures = [picture]): Job => ({
  prompt: 'a cat',
  negative: 'blurred',
  pictures,
  size: { width: 8, height: 16 },
  frames: 5,
  seed,
});
const i2v = tinyDiT({ in_dim: 12, num_layers: 2 });

test('image-to-video, guided: two jobs are each what is composed by hand', async () => {
  const params = scrambledDiT(i2v);
  const sampling: Sampling = { kind: 'euler', steps: 2, shift: 3, guidance: 2 };
  const before = await held(device);
  const clips = await made(modelOf(i2v, params), [job(1), job(2)], sampling);
  assert.is(device.allocated, before, 'every part was freed');
  for (const [i, clip] of clips.entries())
    assert.ok(difference(clip, await byHand(i2v, params, job(i + 1), sampling)) < 2e-5, `job ${i}`);
  assert.ok(largest(clips[0]![1]!, clips[1]![1]!) > 0.1, 'another seed is another clip');
});

test('two experts, each with its guidance and one after the other on the device: two jobs are each what is composed by hand', async () => {
  const config = tinyDiT({ in_dim: 12, num_layers: 1, clip_dim: 0 });
  const [high, low] = [scrambledDiT(config), scrambled(ditSpecs(config), 0.3)];
  const sampling: Sampling = { kind: 'euler', steps: 3, shift: 3, guidance: 2, low: { below: 800, guidance: 3 } };
  assert.equal(
    spans(sampling).map(({ from, to, expert }) => `${expert} ${from} ${to}`),
    ['high 0 2', 'low 2 3'],
  );
  assert.is(evaluationsOf(sampling), 6);
  const there = { now: 0, most: 0 };
  const counted = (p: HostParams): Network => {
    const net = networkOf(upload(p));
    let held = true;
    there.most = Math.max(there.most, ++there.now);
    return {
      ...net,
      async free() {
        if (held) there.now--;
        held = false;
        await net.free();
      },
    };
  };
  const before = await held(device);
  const clips = await made(modelOf(config, high, counted, low), [job(1), job(2)], sampling);
  assert.is(device.allocated, before, 'every part was freed');
  assert.equal(there, { now: 0, most: 1 });
  for (const [i, clip] of clips.entries())
    assert.ok(difference(clip, await byHand(config, high, job(i + 1), sampling, low)) < 2e-5, `job ${i}`);
});

test('from text or from a first frame that stays as it is, by one network', async () => {
  const config = tinyDiT({ model_type: 'ti2v', in_dim: 4, num_layers: 1, clip_dim: 0 });
  const params = scrambledDiT(config);
  const jobs = [job(1), job(1, [])];
  for (const kind of ['euler', 'renoise'] as const) {
    const sampling: Sampling = { kind, steps: 2, shift: 3, guidance: kind === 'euler' ? 2 : 1 };
    const clips = await made(modelOf(config, params), jobs, sampling);
    for (const [i, clip] of clips.entries())
      assert.ok(difference(clip, await byHand(config, params, jobs[i]!, sampling)) < 2e-5, `${kind}, job ${i}`);
    assert.ok(largest(clips[0]![1]!, clips[1]![1]!) > 1e-3, 'the first frame is seen');
  }
});

test('between a first and a last frame', async () => {
  const flf2v = tinyDiT({ model_type: 'flf2v', in_dim: 12 });
  const params = scrambledDiT(flf2v);
  const sampling: Sampling = { kind: 'euler', steps: 1, shift: 3, guidance: 2 };
  const wanted = job(1, [picture, noise('another', [3, 16, 8])]);
  const [clip] = await made(modelOf(flf2v, params), [wanted], sampling);
  assert.ok(difference(clip!, await byHand(flf2v, params, wanted, sampling)) < 2e-5);
});

test('both texts at once where the weights outweigh them; a student noises afresh and is not guided', async () => {
  const heavy = tinyDiT({ model_type: 't2v', in_dim: 4, num_layers: 2, ffn_dim: 4000 });
  const params = scrambledDiT(heavy);
  const text = { ...job(3), pictures: [] };
  for (const sampling of [
    { kind: 'euler', steps: 2, shift: 3, guidance: 2 },
    { kind: 'renoise', steps: 3, shift: 5, guidance: 1 },
  ] as const) {
    const [clip] = await made(modelOf(heavy, params), [text], sampling);
    assert.ok(difference(clip!, await byHand(heavy, params, text, sampling)) < 2e-5, sampling.kind);
  }
});

test('block by block, with weights that come and go, it is the same clip; so it is with adapters beside the weights, which are as merged', async () => {
  const params = scrambledDiT(i2v);
  const lora = scrambled(loraSpecs(ditShapes(i2v), 2));
  const sampling: Sampling = { kind: 'euler', steps: 2, shift: 3, guidance: 2 };
  const together = { ...params, ...lora };
  const around = (all: HostParams) =>
    Object.fromEntries(Object.entries(all).filter(([name]) => !name.startsWith('blocks.')));
  let inUse = 0;
  const streamed = (all: HostParams): Network => ({
    ...networkOf(upload(around(all))),
    blocks: {
      fetch: (i) => {
        inUse++;
        return Promise.resolve(
          upload(
            Object.fromEntries(
              Object.entries(all)
                .filter(([name]) => name.startsWith(`blocks.${i}.`))
                .map(([name, t]) => [name.slice(`blocks.${i}.`.length), t]),
            ),
          ),
        );
      },
      release: (weights) => {
        inUse--;
        Object.values(weights).forEach((t) => t.free());
      },
    },
  });
  const expected = await byHand(i2v, mergeLora(params, lora, 1), job(1), sampling);
  const before = await held(device);
  for (const network of [undefined, streamed]) {
    const [clip] = await made(modelOf(i2v, together, network), [job(1)], sampling);
    assert.ok(difference(clip!, expected) < 2e-5, network ? 'streamed' : 'whole');
  }
  assert.equal([inUse, device.allocated], [0, before]);
  assert.ok(difference((await made(modelOf(i2v, params), [job(1)], sampling))[0]!, expected) > 0.01, 'adapters matter');
});

test("sizes: what the model takes, and a picture's form at the same area", () => {
  const wan = { ...i2v, patch_size: [1, 2, 2] as const };
  const eight = { ...vae, dim_mult: [1, 2, 4, 4], temperal_downsample: [false, true, true] };
  assert.equal(parseSize('832*480'), { width: 832, height: 480 });
  assert.throws(() => parseSize('480p'), /must be WIDTHxHEIGHT, as 832x480, got "480p"/);
  assert.throws(
    () => checkClip(wan, eight, { width: 830, height: 480 }, 81),
    /830x480: width must be a multiple of 16 .* nearest is 832x480/,
  );
  assert.throws(
    () => checkClip(wan, eight, { width: 832, height: 480 }, 80),
    /1 more than a multiple of 4, as 77 or 81, got 80/,
  );
  checkClip(wan, eight, { width: 832, height: 480 }, 81);
  assert.equal(latentShape(eight, { width: 832, height: 480 }, 81), [4, 21, 60, 104]);
  // Wan's own rule for a square and for a portrait picture, by hand: √399360 = 631.9; √(399360 · 3/2) = 773.9, √(399360 · 2/3) = 515.9.
  assert.equal(sizeLike({ dit: wan, vae: eight }, { width: 500, height: 500 }, { width: 832, height: 480 }), {
    width: 624,
    height: 624,
  });
  assert.equal(sizeLike({ dit: wan, vae: eight }, { width: 1000, height: 1500 }, { width: 832, height: 480 }), {
    width: 512,
    height: 768,
  });
});

test.after(() => device.close());
test.run();

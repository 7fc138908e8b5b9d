/** Properties of the causal VAE in the float64 oracle; the numbers themselves are checked against the reference tensors. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { vaeConfig, vaeStride } from '../../model/config.ts';
import type { Params } from '../../model/params.ts';
import { decode, denormalise, encode, initVAE, latentStats, normalise, vaeSpecs } from '../../model/wan/vae.ts';
import { localVAE } from '../../model/wan/vaestart.ts';
import { Cache } from '../../model/wan/vaelayers.ts';
import { oracle } from '../golden/executor.ts';
import { largest, noise, scrambled } from './tiny.ts';

const config = vaeConfig({
  dim: 4,
  z_dim: 3,
  dim_mult: [1, 2, 2],
  num_res_blocks: 1,
  temperal_downsample: [true, true],
  channels: 1,
  latent_mean: [1, 2, 3],
  latent_std: [1, 2, 4],
});
const params = scrambled(vaeSpecs(config), 0.15);

const encoded = async (video: HostTensor): Promise<HostTensor> =>
  (await oracle.run(({ p, x }) => ({ mean: encode(p, config, x).mean }), { p: params, x: video }))['mean']!;
const decoded = async (z: HostTensor): Promise<HostTensor> =>
  (await oracle.run(({ p, x }) => ({ y: decode(p, config, x) }), { p: params, x: z }))['y']!;

/** `count` frames of [1,C,T,H,W], the first ones unless told. */
function frames(x: HostTensor, count: number, first = 0): HostTensor {
  const [, c, t, h, w] = x.shape as [number, number, number, number, number];
  const data = Float64Array.from(
    { length: c * count * h * w },
    (_, i) => x.data[(Math.floor(i / (count * h * w)) * t + first) * h * w + (i % (count * h * w))]!,
  );
  return host(data, [1, c, count, h, w]);
}

const video = noise('video', [1, 1, 9, 8, 8]);

test('a prefix of the video has a prefix of the latent, down to one image', async () => {
  const whole = await encoded(video);
  assert.equal(whole.shape, [1, 3, 3, 2, 2]);
  assert.ok(largest(await encoded(frames(video, 5)), frames(whole, 2)) < 1e-12);
  assert.ok(largest(await encoded(frames(video, 1)), frames(whole, 1)) < 1e-12);
});

/** Runs `chunks` of frames (or latent frames) of x one after another, each with the cache of the one before. */
async function inChunks(
  x: HostTensor,
  chunks: readonly number[],
  run: (p: Params, x: Tensor, cache: Cache) => Tensor,
): Promise<HostTensor[]> {
  const parts: HostTensor[] = [];
  let before: Record<string, HostTensor> | undefined;
  let at = 0;
  for (const count of chunks) {
    const out = await oracle.run(
      ({ p, chunk, past }) => {
        const cache = new Cache(past);
        return { y: run(p, chunk, cache), ...cache.after };
      },
      { p: params, chunk: frames(x, count, at), past: before },
    );
    const { y, ...after } = out;
    parts.push(y!);
    before = after;
    at += count;
  }
  return parts;
}

test('a clip in chunks is the whole clip', async () => {
  const latent = await encoded(video);
  for (const chunks of [
    [1, 4, 4],
    [1, 8],
    [5, 4],
  ]) {
    let at = 0;
    for (const part of await inChunks(video, chunks, (p, x, cache) => encode(p, config, x, { cache }).mean)) {
      assert.ok(largest(part, frames(latent, part.shape[2]!, at)) < 1e-12, `encode ${chunks.join()}`);
      at += part.shape[2]!;
    }
    assert.is(at, 3);
  }
  const z = noise('z', [1, 3, 3, 2, 2]);
  const whole = await decoded(z);
  for (const chunks of [
    [1, 1, 1],
    [1, 2],
    [2, 1],
  ]) {
    let at = 0;
    for (const part of await inChunks(z, chunks, (p, x, cache) => decode(p, config, x, { cache }))) {
      assert.ok(largest(part, frames(whole, part.shape[2]!, at)) < 1e-12, `decode ${chunks.join()}`);
      at += part.shape[2]!;
    }
    assert.is(at, 9);
  }
});

test('surplus frames are dropped', async () => {
  assert.ok(largest(await encoded(frames(video, 8)), await encoded(frames(video, 5))) < 1e-12);
});

test('a prefix of the latent has a prefix of the video: 1, then 4 frames each', async () => {
  const z = noise('z', [1, 3, 3, 2, 2]);
  const whole = await decoded(z);
  assert.equal(whole.shape, [1, 1, 9, 8, 8]);
  assert.ok(largest(await decoded(frames(z, 2)), frames(whole, 5)) < 1e-12);
  assert.ok(largest(await decoded(frames(z, 1)), frames(whole, 1)) < 1e-12);
  assert.equal(vaeStride(config), [4, 4, 4]);
});

test('normalising goes there and back by the channel statistics', async () => {
  const { n, back } = await oracle.run(
    ({ x, stats }) => {
      const n: Tensor = normalise(x, stats);
      return { n, back: denormalise(n, stats) };
    },
    { x: host([3, 6, 11], [1, 3, 1, 1, 1]), stats: latentStats(config) },
  );
  assert.equal([...n!.data], [2, 2, 2]);
  assert.equal([...back!.data], [3, 6, 11]);
});

test("first values: gains one, attention the identity, the rest within PyTorch's bounds", () => {
  const first = initVAE(config, 5);
  assert.ok(first['encoder.downsamples.0.residual.0.gamma']!.data.every((x) => x === 1));
  assert.ok(first['decoder.middle.1.proj.weight']!.data.every((x) => x === 0));
  const w = first['encoder.middle.0.residual.2.weight']!;
  assert.equal(w.shape, [8, 8, 3, 3, 3]);
  assert.ok(Math.max(...w.data) <= 1 / Math.sqrt(8 * 27) && Math.max(...w.data) > 0.9 / Math.sqrt(8 * 27));
});

test('local first values: blocks that add nothing yet, little noise, and a place that outweighs its neighbours', async () => {
  const first = localVAE(config, 5);
  const blocks = Object.keys(first).filter((name) => name.includes('residual.6'));
  assert.ok(blocks.length > 0 && blocks.every((name) => first[name]!.data.every((x) => x === 0)));
  const { logvar } = await oracle.run(({ p, x }) => ({ logvar: encode(p, config, x).logvar }), { p: first, x: video });
  assert.ok(logvar!.data.every((x) => x < -3));
  // [8, 8, 3, 3, 3]: the middle of the newest frame is tap 22 of 27.
  const w = first['encoder.middle.0.residual.2.weight']!.data;
  const size = (own: boolean) => Math.hypot(...w.filter((_, i) => (i % 27 === 22) === own));
  assert.ok(size(true) > 5 * size(false));
});

test('videos that do not fit are refused', async () => {
  const attempt = (shape: number[]) => {
    try {
      void oracle.run(({ p, x }) => ({ m: encode(p, config, x).mean }), { p: params, x: noise('v', shape) });
    } catch (e) {
      return (e as Error).message;
    }
    return '';
  };
  assert.match(attempt([1, 3, 1, 8, 8]), /has 3 channels, expected 1/);
  assert.match(attempt([1, 1, 1, 6, 8]), /multiples of 4, got \[1,1,1,6,8\]/);
});

test.run();

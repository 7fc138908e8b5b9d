/** Clips in chunks and tiles on a device: the whole clip's numbers from two programs, and shares of tiles that add up to one. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { open } from '../../engine/runtime/device.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { vaeConfig, vaeStride, type VAEConfig } from '../../model/config.ts';
import { decode, denormalise, encode, latentStats, normalise, vaeSpecs } from '../../model/wan/vae.ts';
import { StreamingVAE } from '../../model/wan/vaestream.ts';
import { blend, cut, layTiles } from '../../model/wan/tiles.ts';
import { oracle } from '../golden/executor.ts';
import { largest, noise, scrambled } from './tiny.ts';
import { held } from '../held.ts';

const WAN21 = vaeConfig({
  dim: 4,
  z_dim: 3,
  dim_mult: [1, 2, 2],
  num_res_blocks: 1,
  temperal_downsample: [true, true],
  channels: 1,
  latent_mean: [1, 2, 3],
  latent_std: [1, 2, 4],
});
/** Its strides, but through cells of 2x2 pixels and stages with shortcuts. */
const WAN22 = vaeConfig({
  ...WAN21,
  dec_dim: 8,
  patch_size: 2,
  is_residual: true,
  dim_mult: [1, 1],
  temperal_downsample: [true],
});
const device = await open();

/** A VAE with its weights here and there. */
function made(config: VAEConfig) {
  const params = scrambled(vaeSpecs(config), 0.15);
  const weights = Object.fromEntries(
    Object.entries(params).map(([name, t]) => [name, device.tensor(t.data as Float32Array, t.shape)]),
  );
  return { config, params, vae: new StreamingVAE(device, config, weights) };
}
const { config, params, vae } = made(WAN21);
const z = noise('z', [3, 3, 4, 6]);

/** Chunks along time put together. */
function joined(parts: readonly HostTensor[]): HostTensor {
  const [c, , h, w] = parts[0]!.shape as [number, number, number, number];
  const frames = parts.reduce((sum, p) => sum + p.shape[1]!, 0);
  const out: number[] = [];
  for (let i = 0; i < c; i++)
    for (const p of parts) out.push(...p.data.subarray(i * p.shape[1]! * h * w, (i + 1) * p.shape[1]! * h * w));
  return host(out, [c, frames, h, w]);
}

async function decoded(tile?: number): Promise<HostTensor> {
  const parts: HostTensor[] = [];
  for await (const part of vae.decode(z, { tile })) parts.push(part);
  assert.equal(
    parts.map((p) => p.shape[1]),
    [1, 4, 4],
  );
  return joined(parts);
}

const reference = (
  await oracle.run(({ p, x, stats }) => ({ y: decode(p, config, denormalise(x, stats)) }), {
    p: params,
    x: { ...z, shape: [1, ...z.shape] },
    stats: latentStats(config),
  })
)['y']!;
const clamped = host(
  reference.data.map((v) => Math.min(1, Math.max(-1, v))),
  reference.shape,
);

test('decoding in chunks gives the whole clip, from two programs whatever its length', async () => {
  const before = await held(device);
  assert.ok(largest(await decoded(), clamped) < 1e-5);
  assert.is(device.allocated, before);
  const { buffers } = device.counters;
  for await (const _ of vae.decode(noise('long', [3, 9, 4, 6]))) void _;
  const long = device.counters.buffers - buffers;
  for await (const _ of vae.decode(noise('longer', [3, 19, 4, 6]))) void _;
  assert.is(device.counters.buffers - buffers - long, long, 'twice the frames make no more buffers');
});

test('encoding in chunks gives the whole clip', async () => {
  const video = noise('video', [1, 9, 16, 24]);
  const part = (first: number, count: number) =>
    host(video.data.slice(first * 384, (first + count) * 384), [1, count, 16, 24]);
  const latent = await vae.encode([9, 16, 24], part);
  const whole = await oracle.run(({ p, x, stats }) => ({ y: normalise(encode(p, config, x).mean, stats) }), {
    p: params,
    x: { ...video, shape: [1, ...video.shape] },
    stats: latentStats(config),
  });
  assert.equal(latent.shape, [3, 3, 4, 6]);
  assert.ok(largest(latent, whole['y']!) < 1e-5);
});

test('stages with shortcuts go in chunks and in tiles as others do', async () => {
  const { config, params, vae } = made(WAN22);
  const [time] = vaeStride(config);
  const video = noise('video', [1, 1 + 2 * time, 16, 24]);
  const part = (first: number, count: number) =>
    host(video.data.slice(first * 384, (first + count) * 384), [1, count, 16, 24]);
  const whole = await oracle.run(
    ({ p, x, z, stats }) => ({
      latent: normalise(encode(p, config, x).mean, stats),
      clip: decode(p, config, denormalise(z, stats)),
    }),
    {
      p: params,
      x: { ...video, shape: [1, ...video.shape] },
      z: { ...z, shape: [1, ...z.shape] },
      stats: latentStats(config),
    },
  );
  const latent = await vae.encode([1 + 2 * time, 16, 24], part);
  assert.ok(largest(latent, whole['latent']!) < 1e-5);
  const parts: HostTensor[] = [];
  for await (const chunk of vae.decode(z)) parts.push(chunk);
  const clip = joined(parts);
  assert.equal(clip.shape, [1, 1 + 2 * time, 16, 24]);
  const inside = host(
    whole['clip']!.data.map((v) => Math.min(1, Math.max(-1, v))),
    whole['clip']!.shape,
  );
  assert.ok(largest(clip, inside) < 1e-5);
  const tiles: HostTensor[] = [];
  for await (const chunk of vae.decode(z, { tile: 16 })) tiles.push(chunk);
  assert.equal(joined(tiles).shape, clip.shape);
});

test('tiles are blended by shares that add up to one, and cut out what they were blended from', () => {
  for (const [h, w, edge] of [
    [7, 33, 8],
    [60, 104, 32],
    [9, 8, 8],
    [50, 50, 16],
  ] as const) {
    const x = noise('x', [2, 1, h * 2, w * 2]);
    const back = host(new Float32Array(x.data.length), x.shape);
    for (const tile of layTiles(h, w, edge, 2)) blend(back, cut(x, tile), tile);
    assert.ok(largest(back, x) < 1e-5, `${h}x${w} by ${edge}`);
  }
  assert.is(layTiles(60, 104, 32).length, 3 * 4);
});

test('each tile is the clip of its own piece of the latent', async () => {
  const composed = host(new Float32Array(9 * 16 * 24), [1, 9, 16, 24]);
  const pixels = layTiles(4, 6, 4, 4);
  for (const [i, tile] of layTiles(4, 6, 4).entries()) {
    const piece = cut(z, tile);
    const { y } = await oracle.run(({ p, x, stats }) => ({ y: decode(p, config, denormalise(x, stats)) }), {
      p: params,
      x: { ...piece, shape: [1, ...piece.shape] },
      stats: latentStats(config),
    });
    blend(composed, { ...y!, shape: y!.shape.slice(1) }, pixels[i]!);
  }
  const tiled = await decoded(16);
  assert.ok(
    largest(
      tiled,
      host(
        composed.data.map((v) => Math.min(1, Math.max(-1, v))),
        composed.shape,
      ),
    ) < 1e-5,
  );
  assert.ok(largest(tiled, clamped) > 1e-3, 'tiles do not see across their edges');
});

test('where whole frames are over the binding limit, the largest tiles that are not are taken', async () => {
  const limit = device.caps.maxBindingBytes;
  try {
    Object.assign(device.caps, { maxBindingBytes: 4 * 8 * 4 * 144 * 144 }); // four frames of eight channels, between 128 and 160 pixels
    let steps = 0;
    for await (const _ of vae.decode(noise('big', [3, 2, 40, 40]), {
      onProgress: (_done, total) => {
        steps = total;
      },
    }))
      void _;
    assert.is(steps, 2 * 4, '2 x 2 tiles of 128 pixels, two chunks each');
  } finally {
    Object.assign(device.caps, { maxBindingBytes: limit });
  }
});

test.after(() => device.close());
test.run();

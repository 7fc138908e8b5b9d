/** Sharpness, texture, spread over seeds, and the reader of flare's clips: each against a known answer. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { evaluate } from '../../engine/frontend/oracle.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { trace } from '../../engine/frontend/trace.ts';
import { host } from '../../engine/frontend/tree.ts';
import type { FlareClip } from '../../train/data/flare/clips.ts';
import { ACTIONS, FACINGS, GARMENTS } from '../../train/data/flare/outfits.ts';
import { Stream } from '../../train/loop/rng.ts';
import { blurred, initReader, readerLogits } from '../../train/methods/reader.ts';
import { evaluateFlare, lookAt } from '../../train/metrics/evaluateflare.ts';
import { flareReader, framePairs, readFlare } from '../../train/metrics/flarereader.ts';
import { frechet } from '../../train/metrics/frechet.ts';
import { read } from '../../train/metrics/reader.ts';
import { laplacianEnergy } from '../../train/metrics/sharpness.ts';
import { spread } from '../../train/metrics/spread.ts';
import { TEXTURE_FEATURES, textureFeatures } from '../../train/metrics/texture.ts';

type Shape = readonly [number, number, number, number];
/** A clip from its values by channel, frame, row and column. */
function clipOf([C, F, H, W]: Shape, value: (c: number, t: number, y: number, x: number) => number): Float32Array {
  return Float32Array.from({ length: C * F * H * W }, (_, i) =>
    value(Math.floor(i / (F * H * W)), Math.floor(i / (H * W)) % F, Math.floor(i / W) % H, i % W),
  );
}
const noise = (shape: Shape, seed: number): Float32Array => {
  const random = new Stream(seed, 0, 'test.noise');
  return clipOf(shape, () => 0.3 * random.normal());
};

test('the Laplacian of a ramp is 0, of a chequerboard of ±a eight a, of one point by its stencil', () => {
  const shape: Shape = [3, 2, 8, 8];
  assert.ok(
    laplacianEnergy(
      clipOf(shape, (c, t, y, x) => 0.1 * x - 0.05 * y + 0.2 * c + t),
      shape,
    ) < 1e-12,
  );
  const board = laplacianEnergy(
    clipOf(shape, (_, __, y, x) => ((x + y) % 2 ? 0.25 : -0.25)),
    shape,
  );
  assert.ok(Math.abs(board - 4) < 1e-6); // (8 · 0.25)²
  const point = laplacianEnergy(
    clipOf([1, 1, 5, 5], (_, __, y, x) => Number(x === 2 && y === 2)),
    [1, 1, 5, 5],
  );
  assert.ok(Math.abs(point - (16 + 4) / 9) < 1e-6); // its own place and four neighbours, of nine inner ones
});

test('texture: the same clips are at distance 0; blur, seams, another colour and flicker are far from it, a new draw is near', () => {
  const shape: Shape = [3, 5, 24, 24];
  const set = (change: (video: Float32Array, i: number) => Float32Array, from = 0) => {
    const rows = Array.from({ length: 6 }, (_, i) => textureFeatures(change(noise(shape, from + i), i), shape));
    const all = new Float32Array(rows.length * rows[0]!.length);
    rows.forEach((r, i) => all.set(r, i * r.length));
    return all;
  };
  const real = set((v) => v);
  assert.is(real.length % TEXTURE_FEATURES, 0);
  const from = (other: Float32Array) => frechet(other, real, TEXTURE_FEATURES);
  assert.ok(from(real) < 1e-6);
  const again = from(set((v) => v, 100));
  const plane = 24 * 24;
  const soft = from(
    set((v) => {
      const out = new Float32Array(v.length);
      for (let p = 0; p < v.length; p += plane) out.set(blurred(v.subarray(p, p + plane), 24, 'edge'), p);
      return out;
    }),
  );
  const seams = from(set((v) => v.map((x, i) => (i % 4 === 0 ? x + 0.4 : x))));
  const tinted = from(set((v) => v.map((x, i) => (i < 5 * plane ? x + 0.4 : x))));
  const flickering = from(set((v) => v.map((x, i) => x + (Math.floor(i / plane) % 2 ? 0.2 : -0.2))));
  for (const [name, distance] of Object.entries({ soft, seams, tinted, flickering }))
    assert.ok(distance > 5 * again, `${name}: ${distance}, a new draw ${again}`);
});

test('spread: 0 where seeds do not matter, the distance where two do', () => {
  const [a, b] = [new Float32Array(8).fill(0.5), new Float32Array(8).fill(-0.5)];
  assert.is(
    spread([
      [a, a, a],
      [b, b, b],
    ]),
    0,
  );
  assert.is(spread([[a, b]]), 1);
  assert.ok(
    Math.abs(
      spread([
        [a, b, b],
        [a, a, a],
      ]) -
        2 / 3 / 2,
    ) < 1e-6,
  );
  assert.throws(() => spread([[a]]), /^\[spread\] a condition has 1 clip, needs 2 or more$/);
});

const SHAPE: Shape = [3, 3, 16, 16];
const reader = flareReader(16);
const weights = Object.fromEntries(
  Object.entries(initReader(reader, 3)).map(([name, t]) => [name, t.data as Float32Array]),
);

test('pairs of frames: each frame, and how the next differs', () => {
  const video = clipOf([1, 3, 1, 2], (_, t, __, x) => t * t + 10 * x);
  assert.equal(Array.from(framePairs(video, [1, 3, 1, 2])), [0, 10, 1, 11, 1, 1, 3, 3]);
});

test("the reader's plain forward is the net that is trained", () => {
  const x = framePairs(noise(SHAPE, 1), SHAPE);
  const names = Object.keys(weights).sort(); // as the tree is flattened
  const params = initReader(reader, 3);
  // [6, pairs, 16, 16] → [pairs, 6, 16, 16]
  const pictures = host(
    clipOf([2, 6, 16, 16], (b, c, y, i) => x[((c * 2 + b) * 16 + y) * 16 + i]!),
    [2, 6, 16, 16],
  );
  const { graph, outputs } = trace(
    (f: Tensor, p: Record<string, Tensor>) => readerLogits(reader, p, f),
    [pictures, Object.fromEntries(names.map((n) => [n, params[n]!]))],
  );
  const made = evaluate(graph, outputs, [pictures, ...names.map((n) => params[n]!)]);
  const { logits, features } = read(reader, weights, x, 2);
  assert.is(features.length, 2 * reader.features);
  for (const [k, question] of Object.keys(reader.answers).sort().entries())
    for (const [pair, row] of logits[question]!.entries())
      row.forEach((v, i) => assert.ok(Math.abs(v - made[k]!.data[pair * row.length + i]!) < 1e-4, question));
});

test('what is wrong with clips of flare shows in the measures', () => {
  const videos = Array.from({ length: 8 }, (_, i) => noise(SHAPE, i));
  // Conditions that say what this untrained reader happens to read: the real clips are then all right.
  const conditions = videos.map((video): FlareClip => {
    const { action, facing, garment } = readFlare(weights, video, SHAPE);
    return { video, caption: '', action, facing, garment };
  });
  const real = lookAt(videos, SHAPE, weights);
  const judge = (change: (video: Float32Array, i: number) => Float32Array, of: readonly FlareClip[] = conditions) =>
    evaluateFlare(videos.map(change), of, { shape: SHAPE, weights, real });
  const right = judge((v) => v);
  assert.equal(
    [right.accuracy, right.precision, right.recall, right.sharpness, right.motionRatio, right.firstFramePsnr],
    [1, 1, 1, 1, 1, 100],
  );
  assert.ok(right.frechet < 1e-3 && right.texture < 1e-3);
  const other = <T>(of: readonly T[], one: T): T => of[(of.indexOf(one) + 1) % of.length]!;
  const wrong = judge(
    (v) => v,
    conditions.map((c, i) =>
      i < 4
        ? {
            ...c,
            action: other(ACTIONS, c.action),
            facing: other(FACINGS, c.facing),
            garment: other(GARMENTS, c.garment),
          }
        : c,
    ),
  );
  assert.equal(
    [wrong.actionAccuracy, wrong.directionAccuracy, wrong.garmentAccuracy, wrong.accuracy],
    [0.5, 0.5, 0.5, 0.5],
  );
  const half = judge((v) => v.map((x) => x / 2));
  assert.ok(Math.abs(half.sharpness - 0.25) < 1e-5 && Math.abs(half.motionRatio - 0.5) < 1e-5);
  const still = judge((v) => v.map((_, i) => v[Math.floor(i / 768) * 768 + (i % 256)]!));
  assert.ok(still.motionRatio === 0 && still.flicker === 1 && still.firstFramePsnr === 100);
  assert.ok(judge(() => videos[0]!).recall < 0.5);
  assert.throws(() => judge((v, i) => (i === 2 ? v.map(() => NaN) : v)), /clip 2 holds values that are not finite/);
  assert.throws(() => judge((v) => v, conditions.slice(1)), /8 clips for 7 conditions/);
});

test.run();

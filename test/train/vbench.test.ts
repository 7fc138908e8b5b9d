/** VBench's formulas against numbers worked out by hand and against a published row; footage, proxies, precision and recall. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { conditions } from '../../train/data/digits.ts';
import { precisionRecall } from '../../train/metrics/manifold.ts';
import { Stream } from '../../train/loop/rng.ts';
import { judgeFolder } from '../../train/vbench/folder.ts';
import { centreCrop, footageOf, frameAt, resize, resizeShorter, type Frame } from '../../train/vbench/footage.ts';
import {
  consistency,
  flowInterval,
  groupScores,
  imageConformity,
  isDynamic,
  motionSmoothness,
  similarity,
  temporalFlickering,
} from '../../train/vbench/formulas.ts';
import { measure } from '../../train/vbench/measure.ts';
import { blocks, PROXIES } from '../../train/vbench/proxies.ts';

const near = (a: number | undefined, b: number, tolerance = 1e-9) =>
  assert.ok(Math.abs(a! - b) <= tolerance, `${a} is not ${b}`);
const cos60 = [0.5, Math.sqrt(0.75)];

test('the published row of Wan2.1-I2V-14B gives its published scores', () => {
  const { i2v, quality, total, without } = groupScores({
    subject_consistency: 0.9486,
    background_consistency: 0.9707,
    motion_smoothness: 0.979,
    dynamic_degree: 0.5138,
    aesthetic_quality: 0.6475,
    imaging_quality: 0.7044,
    camera_motion: 0.3476,
    i2v_subject: 0.9695,
    i2v_background: 0.9644,
  });
  assert.equal(
    [i2v, quality, total].map((x) => (100 * x!).toFixed(2)),
    ['92.90', '80.83', '86.86'],
  );
  assert.equal(without, []);
  assert.equal(groupScores({ dynamic_degree: 0.5 }), {
    i2v: undefined,
    quality: 0.5,
    total: undefined,
    without: [
      'camera_motion',
      'i2v_subject',
      'i2v_background',
      'subject_consistency',
      'background_consistency',
      'motion_smoothness',
      'aesthetic_quality',
      'imaging_quality',
    ],
  });
});

test('consistency and conformity by hand', () => {
  near(similarity([3, 0], [0.1, 0]), 1);
  assert.is(similarity([1, 0], [-1, 0]), 0, 'never below 0');
  // Frames at 0°, 60°, 60°, 0°: to the one before .5, 1, .5; to the first .5, .5, 1.
  const frames = [[1, 0], cos60, cos60, [2, 0]];
  near(consistency(frames), (0.5 + 0.75 + 0.75) / 3);
  near(imageConformity([0, 1], frames), 0.4 * Math.sqrt(0.75) + 0.3 * (2 / 3) + 0.3 * 0.5);
});

test('smoothness, flicker and dynamic degree by hand', () => {
  const frames = [0, 51, 0, 0, 102].map((v) => Uint8Array.of(v, v));
  near(temporalFlickering(frames), (255 - (51 + 51 + 0 + 102) / 4) / 255);
  near(
    motionSmoothness(frames, (a, b) => a.map((v, i) => (v + b[i]!) / 2)),
    (255 - (51 + 51) / 2) / 255,
  );
  near(
    motionSmoothness(frames.slice(0, 4), (a) => a),
    (255 - 51) / 255,
    1e-12,
  ); // an even count: the last has no neighbour
  assert.equal([8, 12, 20, 24, 30, 3].map(flowInterval), [1, 2, 2, 3, 4, 1]); // Python rounds 1.5 and 2.5 to 2
  const flow = (strong: number) => Float32Array.from({ length: 100 }, (_, i) => (i < 5 ? strong : 0));
  // 256 px: over 6 px in the strongest 5 %; 16 frames: 4 of 15 pairs.
  const pairs = (moving: number) => Array.from({ length: 15 }, (_, i) => flow(i < moving ? 6.1 : 5.9));
  assert.equal(
    [isDynamic(pairs(3), 256, 300), isDynamic(pairs(4), 256, 300), isDynamic(pairs(4), 300, 300)],
    [false, true, false],
  );
});

const gradient: Frame = {
  width: 8,
  height: 4,
  data: Uint8Array.from({ length: 96 }, (_, i) => 30 * (Math.floor(i / 3) % 8)),
};

test('frames are resized and cropped', () => {
  for (const kernel of ['linear', 'cubic', 'pillow'] as const)
    for (const antialias of [true, false]) {
      assert.equal(resize(gradient, 8, 4, kernel, antialias), gradient);
      const flat = { ...gradient, data: new Uint8Array(96).fill(77) };
      assert.ok(resize(flat, 3, 9, kernel, antialias).data.every((v) => v === 77));
    }
  assert.equal(
    Array.from(resize(gradient, 4, 4, 'linear', false).data.slice(0, 12)).filter((_, i) => i % 3 === 0),
    [15, 75, 135, 195],
  ); // between two pixels each
  const { width, height } = resizeShorter(gradient, 6, 'linear', false);
  assert.equal([width, height], [12, 6]);
  assert.equal(
    Array.from(centreCrop(gradient, 4).data.slice(0, 12)).filter((_, i) => i % 3 === 0),
    [60, 90, 120, 150],
  );
});

test('block matching finds a shift', () => {
  const random = new Stream(1, 0, 'blocks');
  const noise = Uint8Array.from({ length: 64 * 64 }, () => random.int(256));
  const shifted = (by: number): Frame => ({
    width: 64,
    height: 64,
    data: Uint8Array.from({ length: 3 * 64 * 64 }, (_, i) => noise[(Math.floor(i / 3) + 64 * 64 - by) % (64 * 64)]!),
  });
  const lengths = blocks.lengths(shifted(0), shifted(2 + 64));
  const inner = [...lengths].filter((_, i) => i % 64 >= 8 && i % 64 < 56 && i >= 8 * 64 && i < 56 * 64);
  assert.ok(inner.every((l) => Math.abs(l - Math.hypot(2, 1)) < 1e-6));
  assert.ok(blocks.lengths(shifted(0), shifted(0)).every((l) => l === 0));
});

const clips = conditions(3, 12);
const take = (video: Float32Array, name = '') => ({
  name,
  footage: footageOf(video, [1, 9, 32, 32], 8),
  image: frameAt(footageOf(clips[0]!.video, [1, 9, 32, 32], 8), 0),
});

test('moving clips are dynamic, still ones are smooth, and what is measured by a proxy says so', async () => {
  const moving = await measure(
    clips.map((c) => take(c.video)),
    PROXIES,
  );
  const frozen = await measure(
    clips.map((c) => take(c.video.map((_, i) => c.video[i % 1024]!))),
    PROXIES,
  );
  const value = (m: typeof moving, name: string) => m.dimensions.find((d) => d.name === name)!.value;
  assert.equal([value(moving, 'dynamic_degree'), value(frozen, 'dynamic_degree')], [1, 0]);
  assert.ok(
    value(frozen, 'motion_smoothness') === 1 &&
      value(frozen, 'temporal_flickering') === 1 &&
      value(moving, 'temporal_flickering') < 0.98,
  );
  assert.ok(value(frozen, 'subject_consistency') > value(moving, 'subject_consistency'));
  assert.ok(
    moving.scores.proxy &&
      moving.scores.without.includes('camera_motion') &&
      moving.dimensions
        .filter((d) => !d.proxy)
        .map((d) => d.name)
        .join() === 'temporal_flickering',
  );
  assert.match(
    await measure(
      [take(clips[0]!.video.slice(0, 2048), 'short')].map((t) => ({
        ...t,
        footage: { ...t.footage, frames: t.footage.frames.slice(0, 2) },
      })),
      PROXIES,
    ).then(
      () => '',
      (e: Error) => e.message,
    ),
    /^\[vbench\] short has 2 frames/,
  );
});

test('a set beside itself is perfect; noise is far, and covers nothing', async () => {
  const instruments = { ...PROXIES, subject_consistency: PROXIES.background_consistency! }; // few features: quick
  const judge = (change: (v: number) => number) =>
    judgeFolder(
      clips.map((c) => take(c.video.map(change))),
      instruments,
      clips.map((c) => take(c.video)),
    );
  const same = (await judge((v) => v)).reference!;
  assert.equal(
    [same.precision, same.recall, same.motionRatio].map((x) => x.toFixed(6)),
    ['1.000000', '1.000000', '1.000000'],
  );
  near(same.frechet, 0, 1);
  const random = new Stream(1, 0, 'noise');
  const noise = await judge(() => random.uniform(-1, 1));
  assert.ok(noise.reference!.frechet > 1e4 && noise.reference!.precision === 0 && noise.reference!.motionRatio > 3);
  assert.is(noise.psnrByFrame!.length, 9);
});

test('precision and recall tell samples off the data from data left out', () => {
  const random = new Stream(2, 0, 'manifold');
  const points = (n: number, x: number, y: number) =>
    Array.from({ length: n }, () => [x + random.normal(), y + random.normal()]).flat();
  const real = Float32Array.from([...points(100, 0, 0), ...points(100, 50, 0)]);
  const half = precisionRecall(Float32Array.from(points(200, 0, 0)), real, 2);
  assert.ok(half.precision > 0.9 && half.recall > 0.4 && half.recall < 0.55, JSON.stringify(half));
  const spread = precisionRecall(Float32Array.from([...points(100, 0, 0), ...points(100, 0, 90)]), real, 2);
  assert.ok(spread.precision > 0.4 && spread.precision < 0.55, JSON.stringify(spread));
});

test.run();

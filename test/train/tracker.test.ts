import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { conditions } from '../../train/data/digits.ts';
import { drift, firstFramePsnr, flicker, frameOf, motionEnergy, psnr } from '../../train/data/frames.ts';
import { track } from '../../train/metrics/tracker.ts';

const SHAPE = [1, 9, 32, 32] as const;
const clips = conditions(3, 400);

test('real held-out clips: at least 99 % right directions, speeds within a tenth of a pixel', () => {
  const tracks = clips.map((c) => track(c.video, SHAPE));
  const right = tracks.filter((t, i) => t.direction === clips[i]!.direction).length;
  assert.ok(right >= 0.99 * clips.length, `${right} of ${clips.length}`);
  tracks.forEach((t, i) => {
    assert.ok(
      Math.hypot(t.velocity[0] - clips[i]!.velocity[0], t.velocity[1] - clips[i]!.velocity[1]) < 0.1,
      clips[i]!.caption,
    );
    assert.ok(t.jitter < 0.2);
  });
});

test('a held frame is still, an empty clip is still and finite', () => {
  const still = new Float32Array(9 * 1024);
  for (let t = 0; t < 9; t++) still.set(clips[0]!.video.subarray(0, 1024), t * 1024);
  assert.is(track(still, SHAPE).direction, 'still');
  assert.is(flicker(still, SHAPE), 1);
  const empty = track(new Float32Array(9 * 1024).fill(-1), SHAPE);
  assert.equal([empty.direction, empty.speed, empty.jitter], ['still', 0, 0]);
  assert.ok(empty.centroids.every((c) => c === undefined));
});

test('haze does not pull the centroid, and colour is averaged', () => {
  const { video, direction } = clips[5]!;
  assert.is(
    track(
      video.map((v) => Math.max(v, -0.75)),
      SHAPE,
    ).direction,
    direction,
  );
  const colour = new Float32Array(3 * video.length);
  for (let c = 0; c < 3; c++) colour.set(video, c * video.length);
  assert.equal(track(colour, [3, 9, 32, 32]).velocity, track(video, SHAPE).velocity);
});

test('PSNR has a data range of 2 and a ceiling', () => {
  const a = new Float32Array(100);
  assert.ok(
    Math.abs(
      psnr(
        a,
        a.map(() => 0.2),
      ) - 20,
    ) < 1e-4,
  ); // 10 log10(4 / 0.04)
  assert.is(psnr(a, a), 100);
  assert.throws(() => psnr(a, new Float32Array(3)), /sizes differ/);
  const { video } = clips[1]!;
  const spoilt = video.map((v, i) => (i >= 1024 ? v + 0.02 : v));
  assert.is(firstFramePsnr(spoilt, SHAPE, frameOf(video, SHAPE, 0)), 100);
});

test('motion energy, flicker and drift of a clip that brightens evenly', () => {
  const shape = [2, 3, 2, 2] as const;
  const video = Float32Array.from({ length: 24 }, (_, i) => 0.1 * (Math.floor(i / 4) % 3) + (i % 2 ? 0.5 : -0.5));
  assert.ok(Math.abs(motionEnergy(video, shape) - 0.1) < 1e-6);
  assert.ok(Math.abs(flicker(video, shape) - 0.95) < 1e-6);
  const { mean, contrast } = drift(video, shape);
  assert.ok(Math.abs(mean - 0.15) < 1e-6 && Math.abs(contrast - 1) < 1e-6);
});

test.run();

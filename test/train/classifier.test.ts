import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { open } from '../../engine/runtime/device.ts';
import { evaluate } from '../../engine/frontend/oracle.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { trace } from '../../engine/frontend/trace.ts';
import { host } from '../../engine/frontend/tree.ts';
import { conditions } from '../../train/data/digits.ts';
import { classify, CLASSIFIER_SHAPES, loadClassifier } from '../../train/metrics/classifier.ts';
import { evaluateClips, featuresOf } from '../../train/metrics/evaluate.ts';
import { CLASSIFIER_TRAINING, classifierLogits, trainClassifier } from '../../train/methods/classifier.ts';

const SHAPE = [1, 9, 32, 32] as const;
const weights = await loadClassifier(fileURLToPath(new URL('../../bundle/classifier.safetensors', import.meta.url)));
const clips = conditions(11, 80);
const videos = clips.map((c) => c.video);
const real = featuresOf(videos, SHAPE, weights);

test('the bundled classifier reads at least 95 % of real held-out clips', () => {
  const { digitAccuracy, directionAccuracy, frechet, firstFramePsnr, contrast } = evaluateClips(
    videos,
    clips,
    SHAPE,
    weights,
    real,
  );
  assert.ok(digitAccuracy >= 0.95, String(digitAccuracy));
  assert.ok(directionAccuracy >= 0.99 && frechet < 1e-6 && firstFramePsnr === 100 && Math.abs(contrast - 1) < 0.05);
});

test('its plain forward is the net that was trained', () => {
  const { video } = clips[0]!;
  const names = Object.keys(CLASSIFIER_SHAPES).sort(); // as the tree is flattened
  const params = names.map((n) => host(weights[n]!, CLASSIFIER_SHAPES[n]!));
  const frames = host(
    video.subarray(0, 2 * 1024).map((v) => (v + 1) / 2),
    [2, 1, 32, 32],
  );
  const { graph, outputs } = trace(
    (f: Tensor, p: Record<string, Tensor>) => classifierLogits(p, f),
    [frames, Object.fromEntries(names.map((n, i) => [n, params[i]!]))],
  );
  const [logits] = evaluate(graph, outputs, [frames, ...params]);
  const { features, digit } = classify(weights, video.subarray(0, 2 * 1024), [1, 2, 32, 32]);
  const total = new Float64Array(10);
  for (let f = 0; f < 2; f++) {
    for (let k = 0; k < 10; k++) {
      let sum = weights['logits.bias']![k]!;
      for (let i = 0; i < 64; i++) sum += weights['logits.weight']![k * 64 + i]! * features[f * 64 + i]!;
      assert.ok(Math.abs(sum - logits!.data[f * 10 + k]!) < 1e-3, `frame ${f}, digit ${k}`);
      total[k]! += sum;
    }
  }
  assert.is(total.indexOf(Math.max(...total)), digit);
});

test('what is wrong with clips shows in the measures', () => {
  const judge = (change: (video: Float32Array, i: number) => Float32Array) =>
    evaluateClips(videos.map(change), clips, SHAPE, weights, real);
  const wrongDigit = judge((_, i) => videos[(i + 1) % videos.length]!);
  assert.ok(wrongDigit.digitAccuracy < 0.1 && wrongDigit.firstFramePsnr < 20 && wrongDigit.frechet < 1e-6);
  const held = judge((video) => video.map((_, k) => video[k % 1024]!));
  assert.ok(held.directionAccuracy === 0 && held.motion < 1e-6 && held.flicker === 1 && held.firstFramePsnr === 100);
  const same = judge(() => videos[0]!);
  assert.ok(same.diversity === 0 && same.frechet > 100);
  const faded = judge((video) => video.map((v, k) => (k < 1024 ? v : (v + 1) * 0.5 - 1)));
  assert.ok(Math.abs(faded.contrast - 0.5) < 0.05 && faded.brightnessDrift > 0.01);
  assert.throws(
    () => judge((video, i) => (i === 2 ? video.map(() => NaN) : video)),
    /clip 2 holds values that are not finite/,
  );
  assert.throws(() => evaluateClips(videos.slice(1), clips, SHAPE, weights, real), /79 clips for 80 conditions/);
  assert.throws(
    () => classify(weights, new Float32Array(64 * 64), [1, 1, 64, 64]),
    /expected frames of 32x32 px, got 64x64/,
  );
});

test('training learns and writes weights that load', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'classifier-'));
  const losses: number[] = [];
  try {
    const device = await open();
    await trainClassifier(
      device,
      join(folder, 'c.safetensors'),
      { ...CLASSIFIER_TRAINING, steps: 100, batch: 16, warmup: 5 },
      (_, loss) => losses.push(loss),
    );
    await loadClassifier(join(folder, 'c.safetensors'));
  } finally {
    rmSync(folder, { recursive: true });
  }
  assert.ok(losses.length === 1 && losses[0]! < 2.2, `${losses.join()}: guessing has a loss of 2.3`);
});

test.run();

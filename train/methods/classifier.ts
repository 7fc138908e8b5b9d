/** Trains the frozen judge of `digits` once: single frames of training clips, made a little blurrier or fainter so that it is no pedant. */
import type { Device } from '../../engine/runtime/device.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { host } from '../../engine/frontend/tree.ts';
import { digits, DIGITS, type Digits } from '../data/digits.ts';
import type { AdamConfig } from '../loop/optim.ts';
import { Stream } from '../loop/rng.ts';
import { CLASSES, CLASSIFIER, SIZE } from '../metrics/classifier.ts';
import { blurred, readerLogits, trainReader, type ReaderBatch } from './reader.ts';

/** Chosen for this size: about five minutes on two cores; the last tenth of a point of accuracy is not needed. */
export const CLASSIFIER_TRAINING = {
  seed: 1,
  steps: 3000,
  batch: 128,
  warmup: 100,
  adam: { lr: 2e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0.02, clip: 5 } satisfies AdamConfig,
  /** Share of blurred frames (3x3 binomial kernel), and the least contrast. */
  blur: 0.3,
  faintest: 0.6,
};
type Training = typeof CLASSIFIER_TRAINING;

/** Logits [B, 10] of frames [B, 1, 32, 32] in 0…1: `classify` as the engine sees it. */
export const classifierLogits = (p: Record<string, Tensor>, frames: Tensor): Tensor =>
  readerLogits(CLASSIFIER, p, frames)['logits']!;

/** A random frame of each of `batch` new clips, so every place and every handwriting comes up; labels are one-hot. */
function frameBatch(clips: Digits, step: number, { seed, batch, blur, faintest }: Training): ReaderBatch {
  const random = new Stream(seed, step, 'classifier.batch');
  const frames = new Float32Array(batch * SIZE * SIZE);
  const labels = new Float32Array(batch * CLASSES);
  for (let b = 0; b < batch; b++) {
    const { video, digit } = clips.clip(step * batch + b);
    const t = random.int(DIGITS.frames);
    const frame = video.subarray(t * SIZE * SIZE, (t + 1) * SIZE * SIZE).map((v) => (v + 1) / 2);
    const contrast = random.uniform(faintest, 1);
    frames.set(
      (random.uniform() < blur ? blurred(frame, SIZE, 'zero') : frame).map((v) => v * contrast),
      b * SIZE * SIZE,
    );
    labels[b * CLASSES + digit] = 1;
  }
  return { frames: host(frames, [batch, 1, SIZE, SIZE]), labels: { logits: host(labels, [batch, CLASSES]) } };
}

/** Trains from nothing and writes the weights (F16, about 180 KB). `onStep` gets the loss every hundredth step. */
export async function trainClassifier(
  device: Device,
  path: string,
  training: Training = CLASSIFIER_TRAINING,
  onStep?: (step: number, loss: number) => void,
): Promise<void> {
  const clips = digits('train', training.seed);
  await trainReader(device, {
    path,
    reader: CLASSIFIER,
    training,
    what: 'digit classifier of 32x32 frames',
    batch: (step) => frameBatch(clips, step, training),
    onStep,
  });
}

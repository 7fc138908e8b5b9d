/** Trains the frozen judge of `flare`: pairs of frames of training clips, some a little blurred so that it is no pedant. */
import type { Device } from '../../engine/runtime/device.ts';
import { host } from '../../engine/frontend/tree.ts';
import { flare } from '../data/flare/clips.ts';
import { ACTIONS, FACINGS, GARMENTS } from '../data/flare/outfits.ts';
import type { AdamConfig } from '../loop/optim.ts';
import { Stream } from '../loop/rng.ts';
import { flareReader, framePairs } from '../metrics/flarereader.ts';
import { blurred, trainReader, type ReaderBatch } from './reader.ts';

/** As the digits' classifier's, on several pairs of each clip, since composing one takes longer than reading it. */
export const FLARE_READER_TRAINING = {
  seed: 1,
  steps: 3000,
  /** Clips of a step, and pairs of frames of each. */
  clips: 24,
  pairs: 4,
  warmup: 100,
  adam: { lr: 2e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0.02, clip: 5 } satisfies AdamConfig,
  /** Share of blurred clips (3x3 binomial kernel). */
  blur: 0.3,
};
type Training = typeof FLARE_READER_TRAINING;

const QUESTIONS = { action: ACTIONS, facing: FACINGS, garment: GARMENTS } as const;

/** Trains from nothing and writes the weights (F16, about 400 KB). `onStep` gets the loss every hundredth step. */
export async function trainFlareReader(
  device: Device,
  path: string,
  settings: { size: number; frames: number },
  training: Training = FLARE_READER_TRAINING,
  onStep?: (step: number, loss: number) => void,
): Promise<void> {
  const { size, frames } = settings;
  const { clip } = flare('train', training.seed, settings);
  const plane = size * size;
  const batch = (step: number): ReaderBatch => {
    const random = new Stream(training.seed, step, 'classifier.batch');
    const count = training.clips * training.pairs;
    const pictures = new Float32Array(count * 6 * plane);
    const labels = Object.fromEntries(
      Object.entries(QUESTIONS).map(([name, answers]) => [name, new Float32Array(count * answers.length)]),
    );
    for (let b = 0; b < count; b += training.pairs) {
      const shown = clip(step * training.clips + b / training.pairs);
      const all = framePairs(shown.video, [3, frames, size, size]);
      const order = random.shuffle(frames - 1);
      const blur = random.uniform() < training.blur;
      for (let k = 0; k < training.pairs; k++) {
        const pair = order[k % order.length]!;
        for (let c = 0; c < 6; c++) {
          const at = (c * (frames - 1) + pair) * plane;
          const one = all.subarray(at, at + plane);
          pictures.set(blur ? blurred(one, size, 'edge') : one, ((b + k) * 6 + c) * plane);
        }
        for (const [name, answers] of Object.entries(QUESTIONS))
          labels[name]![
            (b + k) * answers.length + (answers as readonly string[]).indexOf(shown[name as keyof typeof QUESTIONS])
          ] = 1;
      }
    }
    return {
      frames: host(pictures, [count, 6, size, size]),
      labels: Object.fromEntries(
        Object.entries(labels).map(([name, rows]) => [name, host(rows, [count, rows.length / count])]),
      ),
    };
  };
  const reader = flareReader(size);
  await trainReader(device, {
    path,
    reader,
    training,
    what: `flare's classifier of frame pairs, ${size}x${size}`,
    batch,
    onStep,
  });
}

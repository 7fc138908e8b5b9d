/** Trains the frozen judge of `digits` once: single frames of training clips, made a little blurrier or fainter so that it is no pedant. */
import type { Device } from '../../engine/runtime/device.ts';
import { constant, conv2d, linear, relu } from '../../engine/frontend/functional.ts';
import { vjp } from '../../engine/frontend/autodiff.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { saveTensors } from '../../model/files/safetensors.ts';
import type { HostParams } from '../../model/params.ts';
import { toHost } from '../loop/checkpoint.ts';
import { digits, DIGITS, type Digits } from '../data/digits.ts';
import { start } from './jobs.ts';
import { cosine, update, type AdamConfig, type Trained } from '../loop/optim.ts';
import { Stream } from '../loop/rng.ts';
import { compileStep } from '../loop/step.ts';
import { CLASSES, CLASSIFIER_SHAPES, SIZE } from '../metrics/classifier.ts';

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
export function classifierLogits(p: Record<string, Tensor>, frames: Tensor): Tensor {
  let x = frames;
  for (let l = 1; l <= 3; l++)
    x = relu(conv2d(x, p[`conv${l}.weight`]!, p[`conv${l}.bias`]!, { stride: [2, 2], padLo: [1, 1], padHi: [0, 0] }));
  const hidden = relu(linear(x.reshape([x.shape[0]!, -1]), p['hidden.weight']!, p['hidden.bias']!));
  return linear(hidden, p['logits.weight']!, p['logits.bias']!);
}

/** He initialisation; biases are 0. */
export function initClassifier(seed: number): Record<string, HostTensor> {
  return Object.fromEntries(
    Object.entries(CLASSIFIER_SHAPES).map(([name, shape], i) => {
      const size = shape.reduce((a, b) => a * b, 1);
      const random = new Stream(seed, i, 'classifier.init');
      const deviation = Math.sqrt((2 * shape[0]!) / size);
      return [
        name,
        host(
          Float32Array.from({ length: size }, () => (shape.length > 1 ? deviation * random.normal() : 0)),
          shape,
        ),
      ];
    }),
  );
}

/** [1 2 1]ᵀ[1 2 1] / 16 over one frame; outside is background. */
function blurred(frame: Float32Array): Float32Array {
  const at = (y: number, x: number): number => (y < 0 || x < 0 || y >= SIZE || x >= SIZE ? 0 : frame[y * SIZE + x]!);
  return frame.map((_, i) => {
    const [y, x] = [Math.floor(i / SIZE), i % SIZE];
    let sum = 0;
    for (let dy = -1; dy <= 1; dy++)
      for (let dx = -1; dx <= 1; dx++) sum += at(y + dy, x + dx) * (2 - Math.abs(dy)) * (2 - Math.abs(dx));
    return sum / 16;
  });
}

/** A random frame of each of `batch` new clips, so every place and every handwriting comes up; labels are one-hot. */
function frameBatch(
  clips: Digits,
  step: number,
  { seed, batch, blur, faintest }: Training,
): { frames: HostTensor; labels: HostTensor } {
  const random = new Stream(seed, step, 'classifier.batch');
  const frames = new Float32Array(batch * SIZE * SIZE);
  const labels = new Float32Array(batch * CLASSES);
  for (let b = 0; b < batch; b++) {
    const { video, digit } = clips.clip(step * batch + b);
    const t = random.int(DIGITS.frames);
    const frame = video.subarray(t * SIZE * SIZE, (t + 1) * SIZE * SIZE).map((v) => (v + 1) / 2);
    const contrast = random.uniform(faintest, 1);
    frames.set(
      (random.uniform() < blur ? blurred(frame) : frame).map((v) => v * contrast),
      b * SIZE * SIZE,
    );
    labels[b * CLASSES + digit] = 1;
  }
  return { frames: host(frames, [batch, 1, SIZE, SIZE]), labels: host(labels, [batch, CLASSES]) };
}

/** One update on the mean cross-entropy. */
const classifierStep =
  (adam: AdamConfig) => (s: Trained, data: { frames: Tensor; labels: Tensor }, at: { lr: Tensor; count: Tensor }) => {
    const logits = classifierLogits(s.params, data.frames);
    const top = logits.amax([-1], true);
    const entropy = logits
      .sub(top)
      .exp()
      .sum([-1], true)
      .log()
      .add(top)
      .sub(logits.mul(data.labels).sum([-1], true));
    const loss = entropy.mean();
    const { state } = update(s, vjp(loss, constant(1), s.params), adam, at);
    return { ...state, metrics: { loss } };
  };

/** Trains from nothing and writes the weights (F16, about 180 KB). `onStep` gets the loss every hundredth step. */
export async function trainClassifier(
  device: Device,
  path: string,
  training: Training = CLASSIFIER_TRAINING,
  onStep?: (step: number, loss: number) => void,
): Promise<void> {
  const { seed, steps, warmup, adam } = training;
  const clips = digits('train', seed);
  const step = compileStep(device, 'classifier', classifierStep(adam));
  let state = await start(device, initClassifier(seed), { m: true });
  for (let i = 0; i < steps; i++) {
    const { state: next, metrics } = await step(state, frameBatch(clips, i, training), {
      lr: cosine(adam.lr, i, warmup, steps),
      count: i + 1,
    });
    state = next;
    if (onStep && (i + 1) % 100 === 0) onStep(i + 1, (await metrics)['loss']!);
  }
  await saveTensors(path, (await toHost(state.params)) as HostParams, {
    dtype: 'F16',
    metadata: { what: 'digit classifier of 32x32 frames', training: JSON.stringify(training) },
  });
}

/** Trains the small nets that judge clips: mean cross-entropy of every question's answers. */
import type { Device } from '../../engine/runtime/device.ts';
import { constant, conv2d, linear, relu } from '../../engine/frontend/functional.ts';
import { vjp } from '../../engine/frontend/autodiff.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { saveTensors } from '../../model/files/safetensors.ts';
import type { HostParams } from '../../model/params.ts';
import { toHost } from '../loop/checkpoint.ts';
import { cosine, update, type AdamConfig, type Trained } from '../loop/optim.ts';
import { Stream } from '../loop/rng.ts';
import { compileStep } from '../loop/step.ts';
import { readerShapes, type Reader } from '../metrics/reader.ts';
import { start } from './jobs.ts';

/** Logits [B, answers] by question, of pictures [B, channels, size, size]: `read` as the engine sees it. */
export function readerLogits(r: Reader, p: Record<string, Tensor>, pictures: Tensor): Record<string, Tensor> {
  let x = pictures;
  for (let l = 1; l < r.channels.length; l++)
    x = relu(conv2d(x, p[`conv${l}.weight`]!, p[`conv${l}.bias`]!, { stride: [2, 2], padLo: [1, 1], padHi: [0, 0] }));
  const hidden = relu(linear(x.reshape([x.shape[0]!, -1]), p['hidden.weight']!, p['hidden.bias']!));
  return Object.fromEntries(
    Object.keys(r.answers).map((name) => [name, linear(hidden, p[`${name}.weight`]!, p[`${name}.bias`]!)]),
  );
}

/** He initialisation; biases are 0. */
export function initReader(r: Reader, seed: number): Record<string, HostTensor> {
  return Object.fromEntries(
    Object.entries(readerShapes(r)).map(([name, shape], i) => {
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

/** [1 2 1]ᵀ[1 2 1] / 16 over one square plane; outside is 0, or what lies at the edge. */
export function blurred(plane: Float32Array, side: number, outside: 'zero' | 'edge'): Float32Array {
  const clamp = (k: number): number => Math.min(side - 1, Math.max(0, k));
  const at = (y: number, x: number): number =>
    outside === 'edge'
      ? plane[clamp(y) * side + clamp(x)]!
      : y < 0 || x < 0 || y >= side || x >= side
        ? 0
        : plane[y * side + x]!;
  return plane.map((_, i) => {
    const [y, x] = [Math.floor(i / side), i % side];
    let sum = 0;
    for (let dy = -1; dy <= 1; dy++)
      for (let dx = -1; dx <= 1; dx++) sum += at(y + dy, x + dx) * (2 - Math.abs(dy)) * (2 - Math.abs(dx));
    return sum / 16;
  });
}

/** Pictures [B, channels, size, size], and one-hot answers [B, answers] by question. */
export interface ReaderBatch<X = HostTensor> {
  frames: X;
  labels: Record<string, X>;
}

/** Mean over a batch of -log p of the right answers. */
function crossEntropy(logits: Tensor, labels: Tensor): Tensor {
  const top = logits.amax([-1], true);
  return logits
    .sub(top)
    .exp()
    .sum([-1], true)
    .log()
    .add(top)
    .sub(logits.mul(labels).sum([-1], true))
    .mean();
}

const readerStep =
  (r: Reader, adam: AdamConfig) => (s: Trained, data: ReaderBatch<Tensor>, at: { lr: Tensor; count: Tensor }) => {
    const logits = readerLogits(r, s.params, data.frames);
    const loss = Object.keys(r.answers)
      .map((name) => crossEntropy(logits[name]!, data.labels[name]!))
      .reduce((a, b) => a.add(b));
    const { state } = update(s, vjp(loss, constant(1), s.params), adam, at);
    return { ...state, metrics: { loss } };
  };

interface ReaderTraining {
  /** Where the weights go, F16. */
  path: string;
  reader: Reader;
  training: { seed: number; steps: number; warmup: number; adam: AdamConfig };
  /** For the file's metadata. */
  what: string;
  batch: (step: number) => ReaderBatch;
  /** Gets the loss, summed over questions, every hundredth step. */
  onStep?: ((step: number, loss: number) => void) | undefined;
}

/** Trains from nothing and writes the weights. */
export async function trainReader(
  device: Device,
  { path, reader, training, what, batch, onStep }: ReaderTraining,
): Promise<void> {
  const { seed, steps, warmup, adam } = training;
  const step = compileStep(device, 'classifier', readerStep(reader, adam));
  let state = await start(device, initReader(reader, seed), { m: true });
  for (let i = 0; i < steps; i++) {
    const { state: next, metrics } = await step(state, batch(i), {
      lr: cosine(adam.lr, i, warmup, steps),
      count: i + 1,
    });
    state = next;
    if (onStep && (i + 1) % 100 === 0) onStep(i + 1, (await metrics)['loss']!);
  }
  await saveTensors(path, (await toHost(state.params)) as HostParams, {
    dtype: 'F16',
    metadata: { what, training: JSON.stringify(training) },
  });
}

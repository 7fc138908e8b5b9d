/**
 * The frozen judge of `digits`: a small convolutional net that reads one 32x32 frame, and its forward pass in plain JavaScript, so that
 * metrics need no device. Its 64 last hidden activations are the features of the Fréchet distance.
 *
 * Trained once by `trainClassifier` on MNIST's training digits only; the weights are bundled.
 */
import { loadParams } from '../../model/files/load.ts';
import type { ClipShape } from '../data/frames.ts';

/** Three 3x3 convolutions of stride 2, each halving 32 px; then 1024 → 64 → 10. */
export const CHANNELS = [1, 16, 32, 64] as const;
export const SIZE = 32;
export const FEATURES = 64;
export const CLASSES = 10;
const LAST = SIZE / 8;

export const CLASSIFIER_SHAPES: Readonly<Record<string, readonly number[]>> = {
  ...Object.fromEntries(
    [1, 2, 3].flatMap((l) => [
      [`conv${l}.weight`, [CHANNELS[l]!, CHANNELS[l - 1]!, 3, 3]],
      [`conv${l}.bias`, [CHANNELS[l]!]],
    ]),
  ),
  'hidden.weight': [FEATURES, CHANNELS[3] * LAST * LAST],
  'hidden.bias': [FEATURES],
  'logits.weight': [CLASSES, FEATURES],
  'logits.bias': [CLASSES],
};

export type ClassifierWeights = Readonly<Record<string, Float32Array>>;

/** Reads the classifier's weights; throws when the file is missing or does not fit. */
export async function loadClassifier(path: string): Promise<ClassifierWeights> {
  const params = await loadParams(path, CLASSIFIER_SHAPES);
  return Object.fromEntries(Object.entries(params).map(([name, t]) => [name, t.data as Float32Array]));
}

/** What the classifier says of one clip. */
export interface Reading {
  /** Most likely digit by the mean of the frames' logits. */
  readonly digit: number;
  /** Most likely digit of each frame, and its probability. */
  readonly digits: readonly number[];
  readonly certainty: readonly number[];
  /** [frames, 64], one row a frame. */
  readonly features: Float32Array;
}

/** 3x3 convolution of stride 2 and zero padding 1, then ReLU, on every frame of [channels, frames, side, side]. */
function convolve(
  x: Float32Array,
  { channels, frames, side }: { channels: number; frames: number; side: number },
  weight: Float32Array,
  bias: Float32Array,
): Float32Array {
  const half = side / 2;
  const places = frames * half * half;
  const taps = channels * 9;
  const columns = new Float32Array(taps * places); // every tap's view of the input, so that the product below runs along memory
  for (let tap = 0; tap < taps; tap++) {
    const c = Math.floor(tap / 9);
    const [dy, dx] = [Math.floor((tap % 9) / 3) - 1, (tap % 3) - 1];
    for (let f = 0; f < frames; f++) {
      for (let oy = 0; oy < half; oy++) {
        const y = 2 * oy + dy;
        if (y < 0) continue; // y and x stay below `side`: 2 (half - 1) + 1
        const from = ((c * frames + f) * side + y) * side + dx;
        const to = tap * places + (f * half + oy) * half;
        for (let ox = dx < 0 ? 1 : 0; ox < half; ox++) columns[to + ox] = x[from + 2 * ox]!;
      }
    }
  }
  const out = new Float32Array(bias.length * places);
  for (let o = 0; o < bias.length; o++) {
    const row = out.subarray(o * places, (o + 1) * places).fill(bias[o]!);
    for (let tap = 0; tap < taps; tap++) {
      const w = weight[o * taps + tap]!;
      const at = tap * places;
      for (let p = 0; p < places; p++) row[p]! += w * columns[at + p]!;
    }
    for (let p = 0; p < places; p++) if (row[p]! < 0) row[p] = 0;
  }
  return out;
}

const linear = (x: Float32Array, weight: Float32Array, bias: Float32Array): Float32Array =>
  bias.map((b, o) => {
    let sum = b;
    for (let i = 0; i < x.length; i++) sum += weight[o * x.length + i]! * x[i]!;
    return sum;
  });

/** Reads a clip [1, frames, 32, 32] in [-1, 1]. Colour clips are averaged over channels first. */
export function classify(
  weights: ClassifierWeights,
  video: Float32Array,
  [channels, frames, height, width]: ClipShape,
): Reading {
  if (height !== SIZE || width !== SIZE)
    throw new Error(`[classifier] expected frames of ${SIZE}x${SIZE} px, got ${height}x${width}`);
  const plane = frames * SIZE * SIZE;
  let x = new Float32Array(plane); // brightness, 0…1, so that zero padding is background
  for (let c = 0; c < channels; c++)
    for (let i = 0; i < plane; i++) x[i]! += (video[c * plane + i]! + 1) / (2 * channels);
  for (let l = 1; l <= 3; l++)
    x = convolve(
      x,
      { channels: CHANNELS[l - 1]!, frames, side: SIZE >> (l - 1) },
      weights[`conv${l}.weight`]!,
      weights[`conv${l}.bias`]!,
    ) as Float32Array<ArrayBuffer>;

  const features = new Float32Array(frames * FEATURES);
  const total = new Float64Array(CLASSES);
  const digits: number[] = [];
  const certainty: number[] = [];
  const area = LAST * LAST;
  for (let f = 0; f < frames; f++) {
    const flat = new Float32Array(CHANNELS[3] * area);
    for (let c = 0; c < CHANNELS[3]; c++)
      flat.set(x.subarray((c * frames + f) * area, (c * frames + f + 1) * area), c * area);
    const hidden = linear(flat, weights['hidden.weight']!, weights['hidden.bias']!).map((v) => Math.max(0, v));
    features.set(hidden, f * FEATURES);
    const logits = linear(hidden, weights['logits.weight']!, weights['logits.bias']!);
    const top = Math.max(...logits);
    digits.push(logits.indexOf(top));
    certainty.push(1 / logits.reduce((sum, v) => sum + Math.exp(v - top), 0));
    logits.forEach((v, k) => (total[k]! += v));
  }
  return { digit: total.indexOf(Math.max(...total)), digits, certainty, features };
}

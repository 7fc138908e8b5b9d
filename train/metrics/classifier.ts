/**
 * The frozen judge of `digits`: a reader of one 32x32 frame. Its 64 features are those of the Fréchet distance.
 *
 * Trained once by `trainClassifier` on MNIST's training digits only; the weights are bundled.
 */
import type { ClipShape } from '../data/frames.ts';
import { loadReader, read, readerShapes, verdict, type Reader, type ReaderWeights } from './reader.ts';

export const SIZE = 32;
export const FEATURES = 64;
export const CLASSES = 10;
/** Three convolutions, then 1024 → 64 → 10. */
export const CLASSIFIER: Reader = {
  size: SIZE,
  channels: [1, 16, 32, 64],
  features: FEATURES,
  answers: { logits: CLASSES },
};
export const CLASSIFIER_SHAPES = readerShapes(CLASSIFIER);

export type ClassifierWeights = ReaderWeights;

/** Reads the classifier's weights; throws when the file is missing or does not fit. */
export const loadClassifier = (path: string): Promise<ClassifierWeights> => loadReader(path, CLASSIFIER);

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

/** Reads a clip [1, frames, 32, 32] in [-1, 1]. Colour clips are averaged over channels first. */
export function classify(
  weights: ClassifierWeights,
  video: Float32Array,
  [channels, frames, height, width]: ClipShape,
): Reading {
  if (height !== SIZE || width !== SIZE)
    throw new Error(`[classifier] expected frames of ${SIZE}x${SIZE} px, got ${height}x${width}`);
  const plane = frames * SIZE * SIZE;
  const x = new Float32Array(plane); // brightness, 0…1, so that zero padding is background
  for (let c = 0; c < channels; c++)
    for (let i = 0; i < plane; i++) x[i]! += (video[c * plane + i]! + 1) / (2 * channels);
  const { features, logits } = read(CLASSIFIER, weights, x, frames);
  const each = logits['logits']!;
  return {
    digit: verdict(each),
    digits: each.map((frame) => frame.indexOf(Math.max(...frame))),
    certainty: each.map((frame) => {
      const top = Math.max(...frame);
      return 1 / frame.reduce((sum, v) => sum + Math.exp(v - top), 0);
    }),
    features,
  };
}

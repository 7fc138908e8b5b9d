/** What one set of generated clips is worth: the right digit, moving the right way, as far as the real one, from the given first frame. */
import type { DigitClip } from '../data/digits.ts';
import { classify, FEATURES, type ClassifierWeights } from './classifier.ts';
import { drift, firstFramePsnr, flicker, frameOf, motionEnergy, psnr, type ClipShape } from '../data/frames.ts';
import { diversity, frechet } from './frechet.ts';
import { precisionRecall } from './manifold.ts';
import { track } from './tracker.ts';

/** Means over clips unless said otherwise. */
export interface Evaluation {
  clips: number;
  /** Share of clips whose digit the frozen classifier reads as the caption's. */
  digitAccuracy: number;
  /** Share of all frames whose digit it reads so: a digit that loses its shape on the way is seen here. */
  frameAccuracy: number;
  /** Share of clips that the centroid tracker sees moving as the caption says. */
  directionAccuracy: number;
  /** Speed of the centroid, px a frame. */
  motion: number;
  /** Mean absolute difference of consecutive frames, [-1, 1] units. */
  motionEnergy: number;
  /** The same over the real clips': 0 is still. */
  motionRatio: number;
  /** Distance of the centroid from a straight, even path, px: 0 is perfectly smooth. */
  jitter: number;
  /** Frame 0 against the condition, dB. */
  firstFramePsnr: number;
  /** VBench's flicker formula: 1 is still. */
  flicker: number;
  /** Wandering of mean brightness from frame 0, [-1, 1] units, and contrast relative to frame 0. */
  brightnessDrift: number;
  contrast: number;
  /** Fréchet distance to the real clips of the same conditions, over the classifier's 64 features of every frame. */
  frechet: number;
  /** Share of the clips among the real ones, and of the real ones among the clips, over the means of their features. */
  precision: number;
  recall: number;
  /** Mean distance between two clips' features: far below the real clips' value means collapse. */
  diversity: number;
  /**
   * By frame: share of clips whose digit is read right in it, and PSNR to the given
   * first frame, dB. Late frames drift where the means hide it.
   */
  byFrame: { digit: number[]; psnr: number[] };
}

/**
 * Features of every frame [clips · frames, 64], of every clip [clips, 64] (mean over
 * frames), and the digit read from each clip and each frame.
 */
export interface FeatureSet {
  frames: Float32Array;
  clips: Float32Array;
  digits: number[];
  frameDigits: (readonly number[])[];
}

/** Runs the classifier over clips. Keep the real clips' result: it serves every comparison. */
export function featuresOf(
  videos: readonly Float32Array[],
  shape: ClipShape,
  classifier: ClassifierWeights,
): FeatureSet {
  const frames = new Float32Array(videos.length * shape[1] * FEATURES);
  const clips = new Float32Array(videos.length * FEATURES);
  const frameDigits: (readonly number[])[] = [];
  const digits = videos.map((video, i) => {
    const { digit, digits: each, features } = classify(classifier, video, shape);
    frameDigits.push(each);
    frames.set(features, i * features.length);
    features.forEach((v, k) => (clips[i * FEATURES + (k % FEATURES)]! += v / shape[1]));
    return digit;
  });
  return { frames, clips, digits, frameDigits };
}

/**
 * Judges generated clips, one a condition and in the conditions' order.
 * @param generated clips [channels, frames, 32, 32] in [-1, 1]
 * @param conditions the held-out clips whose caption and first frame they were made from
 * @param real `featuresOf` the conditions' own videos
 */
export function evaluateClips(
  generated: readonly Float32Array[],
  conditions: readonly DigitClip[],
  shape: ClipShape,
  classifier: ClassifierWeights,
  real: FeatureSet,
): Evaluation {
  if (generated.length !== conditions.length)
    throw new Error(`[evaluate] ${generated.length} clips for ${conditions.length} conditions`);
  const broken = generated.findIndex((video) => video.some((v) => !Number.isFinite(v)));
  if (broken >= 0) throw new Error(`[evaluate] clip ${broken} holds values that are not finite`);
  const found = featuresOf(generated, shape, classifier);
  const tracks = generated.map((video) => track(video, shape));
  const drifts = generated.map((video) => drift(video, shape));
  const mean = (value: (i: number) => number): number =>
    generated.reduce((s, _, i) => s + value(i), 0) / generated.length;
  const byFrame = (value: (i: number, t: number) => number): number[] =>
    Array.from({ length: shape[1] }, (_, t) => mean((i) => value(i, t)));
  const moved = mean((i) => motionEnergy(generated[i]!, shape));
  const digit = byFrame((i, t) => Number(found.frameDigits[i]![t] === conditions[i]!.digit));
  return {
    clips: generated.length,
    digitAccuracy: mean((i) => Number(found.digits[i] === conditions[i]!.digit)),
    frameAccuracy: digit.reduce((a, b) => a + b, 0) / digit.length,
    directionAccuracy: mean((i) => Number(tracks[i]!.direction === conditions[i]!.direction)),
    motion: mean((i) => tracks[i]!.speed),
    motionEnergy: moved,
    motionRatio: moved / mean((i) => motionEnergy(conditions[i]!.video, shape)),
    jitter: mean((i) => tracks[i]!.jitter),
    firstFramePsnr: mean((i) => firstFramePsnr(generated[i]!, shape, frameOf(conditions[i]!.video, shape, 0))),
    flicker: mean((i) => flicker(generated[i]!, shape)),
    brightnessDrift: mean((i) => drifts[i]!.mean),
    contrast: mean((i) => drifts[i]!.contrast),
    frechet: frechet(found.frames, real.frames, FEATURES),
    ...precisionRecall(found.clips, real.clips, FEATURES),
    diversity: diversity(found.clips, FEATURES),
    byFrame: {
      digit,
      psnr: byFrame((i, t) => psnr(frameOf(generated[i]!, shape, t), frameOf(conditions[i]!.video, shape, 0))),
    },
  };
}

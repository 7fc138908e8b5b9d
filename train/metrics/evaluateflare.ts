/** What one set of generated clips of `flare` is worth: who acts how and where to, as sharp, as lively and as varied as the real ones. */
import type { FlareClip } from '../data/flare/clips.ts';
import { firstFramePsnr, flicker, frameOf, motionEnergy, type ClipShape } from '../data/frames.ts';
import { FLARE_FEATURES, readFlare, type FlareReading } from './flarereader.ts';
import { frechet } from './frechet.ts';
import { precisionRecall } from './manifold.ts';
import type { ReaderWeights } from './reader.ts';
import { laplacianEnergy } from './sharpness.ts';
import { TEXTURE_FEATURES, textureFeatures } from './texture.ts';

/** Means over clips unless said otherwise. */
export interface FlareEvaluation {
  clips: number;
  /** Shares of clips in which the frozen classifier reads what the caption says. */
  actionAccuracy: number;
  directionAccuracy: number;
  garmentAccuracy: number;
  /** Their mean. */
  accuracy: number;
  /** Fréchet distances to the real clips: of the classifier's features of frame pairs, and of random filters' answers, times 100. */
  frechet: number;
  texture: number;
  /** Share of the clips among the real ones, and of the real ones among the clips, over the means of their features. */
  precision: number;
  recall: number;
  /** Energy of the Laplacian over the real clips': below 1 is blurred. */
  sharpness: number;
  /** Mean absolute difference of consecutive frames over the real clips': 0 is still. */
  motionRatio: number;
  /** Frame 0 against the condition, dB. */
  firstFramePsnr: number;
  /** VBench's flicker formula: 1 is still. */
  flicker: number;
}

/** What is compared of a set of clips. */
export interface FlareLook {
  readings: FlareReading[];
  /** [pairs of all clips, 64] and [clips, 64]. */
  pairs: Float32Array;
  clips: Float32Array;
  /** [places, 48]. */
  texture: Float32Array;
  sharpness: number;
  motion: number;
}

const mean = <T>(all: readonly T[], of: (one: T, i: number) => number): number =>
  all.reduce((sum, one, i) => sum + of(one, i), 0) / all.length;

const concat = (rows: readonly Float32Array[]): Float32Array => {
  const out = new Float32Array(rows.reduce((n, r) => n + r.length, 0));
  rows.reduce((at, r) => (out.set(r, at), at + r.length), 0);
  return out;
};

/** Looks at clips [3, frames, height, width]. Keep the real clips' result: it serves every comparison. */
export function lookAt(videos: readonly Float32Array[], shape: ClipShape, weights: ReaderWeights): FlareLook {
  const readings = videos.map((video) => readFlare(weights, video, shape));
  const averages = readings.map(({ features }) => {
    const sum = new Float32Array(FLARE_FEATURES);
    features.forEach((v, k) => (sum[k % FLARE_FEATURES]! += v / (shape[1] - 1)));
    return sum;
  });
  return {
    readings,
    pairs: concat(readings.map((r) => r.features)),
    clips: concat(averages),
    texture: concat(videos.map((video) => textureFeatures(video, shape))),
    sharpness: mean(videos, (video) => laplacianEnergy(video, shape)),
    motion: mean(videos, (video) => motionEnergy(video, shape)),
  };
}

/**
 * Judges generated clips, one a condition and in the conditions' order.
 * @param conditions the clips whose caption and first frame they were made from
 * @param real `lookAt` the conditions' own videos
 */
export function evaluateFlare(
  generated: readonly Float32Array[],
  conditions: readonly FlareClip[],
  { shape, weights, real }: { shape: ClipShape; weights: ReaderWeights; real: FlareLook },
): FlareEvaluation {
  if (generated.length !== conditions.length)
    throw new Error(`[evaluate] ${generated.length} clips for ${conditions.length} conditions`);
  const broken = generated.findIndex((video) => video.some((v) => !Number.isFinite(v)));
  if (broken >= 0) throw new Error(`[evaluate] clip ${broken} holds values that are not finite`);
  const made = lookAt(generated, shape, weights);
  const right = (what: 'action' | 'facing' | 'garment'): number =>
    mean(conditions, (clip, i) => Number(made.readings[i]![what] === clip[what]));
  const [action, direction, garment] = [right('action'), right('facing'), right('garment')];
  return {
    clips: generated.length,
    actionAccuracy: action,
    directionAccuracy: direction,
    garmentAccuracy: garment,
    accuracy: (action + direction + garment) / 3,
    frechet: frechet(made.pairs, real.pairs, FLARE_FEATURES),
    texture: 100 * frechet(made.texture, real.texture, TEXTURE_FEATURES),
    ...precisionRecall(made.clips, real.clips, FLARE_FEATURES),
    sharpness: made.sharpness / real.sharpness,
    motionRatio: made.motion / real.motion,
    firstFramePsnr: mean(generated, (video, i) =>
      firstFramePsnr(video, shape, frameOf(conditions[i]!.video, shape, 0)),
    ),
    flicker: mean(generated, (video) => flicker(video, shape)),
  };
}

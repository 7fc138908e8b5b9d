/**
 * The frozen judge of `flare`: reads action, direction and garment from two consecutive frames, so that it sees how someone moves. Its
 * features are those of the Fréchet distance and of precision and recall. Trained by `vpae train classifier --preset flare`.
 */
import { ACTIONS, FACINGS, GARMENTS } from '../data/flare/outfits.ts';
import type { ClipShape } from '../data/frames.ts';
import { read, verdict, type Reader, type ReaderWeights } from './reader.ts';

export const FLARE_FEATURES = 64;
/** Two frames of three channels; four convolutions make 3x3 places of 48 px. */
export const flareReader = (size: number): Reader => ({
  size,
  channels: [6, 24, 48, 64, 96],
  features: FLARE_FEATURES,
  answers: { action: ACTIONS.length, facing: FACINGS.length, garment: GARMENTS.length },
});

/** [6, frames - 1, height, width] of a clip [3, frames, height, width]: each frame, and how the next one differs from it. */
export function framePairs(video: Float32Array, [channels, frames, height, width]: ClipShape): Float32Array {
  const plane = height * width;
  const pairs = frames - 1;
  const out = new Float32Array(2 * channels * pairs * plane);
  for (let c = 0; c < channels; c++) {
    for (let i = 0; i < pairs * plane; i++) {
      const now = video[c * frames * plane + i]!;
      out[c * pairs * plane + i] = now;
      out[(channels + c) * pairs * plane + i] = video[c * frames * plane + i + plane]! - now;
    }
  }
  return out;
}

/** What is read from a clip. */
export interface FlareReading {
  readonly action: (typeof ACTIONS)[number];
  readonly facing: (typeof FACINGS)[number];
  readonly garment: (typeof GARMENTS)[number];
  /** [frames - 1, 64]. */
  readonly features: Float32Array;
}

/** Reads a clip [3, frames, size, size] in [-1, 1]. */
export function readFlare(weights: ReaderWeights, video: Float32Array, shape: ClipShape): FlareReading {
  const { features, logits } = read(flareReader(shape[2]), weights, framePairs(video, shape), shape[1] - 1);
  return {
    action: ACTIONS[verdict(logits['action']!)]!,
    facing: FACINGS[verdict(logits['facing']!)]!,
    garment: GARMENTS[verdict(logits['garment']!)]!,
    features,
  };
}

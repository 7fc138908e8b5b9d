/** Generated clips as VBench's formulas take them: each beside the picture it was made from. */
import { videoShape } from '../methods/conditions.ts';
import type { Clip } from '../data/sets.ts';
import type { Preset } from '../presets/index.ts';
import { footageOf, frameAt } from './footage.ts';
import type { Take } from './measure.ts';

/** The clips of small presets have no rate of their own: that at which every frame's flow is looked at. */
export const CLIP_FPS = 8;

/** What clips were made from. */
export interface Conditions {
  readonly preset: Preset;
  readonly clips: readonly Clip[];
}

/** @param videos one a condition, in their order; of text alone there is no picture */
export const clipTakes = ({ clips, preset }: Conditions, videos: readonly Float32Array[]): Take[] =>
  videos.map((video, i) => ({
    name: `clip ${i}`,
    footage: footageOf(video, videoShape(preset), CLIP_FPS),
    ...(preset.dit.model_type === 'i2v' && {
      image: frameAt(footageOf(clips[i]!.video, videoShape(preset), CLIP_FPS), 0),
    }),
  }));

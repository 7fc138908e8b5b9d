/** Generated clips as VBench's formulas take them: each beside the picture it was made from. */
import { videoShape } from '../conditions.ts';
import type { Judge } from '../eval.ts';
import { footageOf, frameAt } from './footage.ts';
import type { Take } from './measure.ts';

/** The clips of small presets have no rate of their own: that at which every frame's flow is looked at. */
export const CLIP_FPS = 8;

/** @param videos one a condition of the judge, in their order */
export const clipTakes = ({ clips, preset }: Judge, videos: readonly Float32Array[]): Take[] =>
  videos.map((video, i) => ({
    name: `clip ${i}`, footage: footageOf(video, videoShape(preset), CLIP_FPS), image: frameAt(footageOf(clips[i]!.video, videoShape(preset), CLIP_FPS), 0),
  }));

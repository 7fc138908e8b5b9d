/**
 * VBench's image-to-video dimensions as formulas over what networks see: features of frames, rebuilt frames, optical flow.
 *
 * Huang et al., "VBench" (CVPR 2024) and "VBench++"; the formulas are those of the suite's code (vbench, vbench2_beta_i2v,
 * scripts/constant.py, scripts/cal_i2v_final_score.py). Features are rows of any length; they need not be normalised.
 */

export type Feature = ArrayLike<number>;

export const DIMENSIONS = [
  'camera_motion',
  'i2v_subject',
  'i2v_background',
  'subject_consistency',
  'background_consistency',
  'motion_smoothness',
  'dynamic_degree',
  'aesthetic_quality',
  'imaging_quality',
] as const;
export type DimensionName = (typeof DIMENSIONS)[number];

const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;

/** Cosine of two features, at least 0. */
export function similarity(a: Feature, b: Feature): number {
  let [ab, aa, bb] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    ab += a[i]! * b[i]!;
    aa += a[i]! ** 2;
    bb += b[i]! ** 2;
  }
  return Math.max(0, ab / (Math.max(Math.sqrt(aa), 1e-8) * Math.max(Math.sqrt(bb), 1e-8)));
}

const consecutive = (frames: readonly Feature[]): number[] => frames.slice(1).map((f, i) => similarity(frames[i]!, f));

/** i2v_subject, i2v_background of a video: 0.4 max to the image + 0.3 mean + 0.3 least of consecutive frames. */
export function imageConformity(image: Feature, frames: readonly Feature[]): number {
  const steps = consecutive(frames);
  return 0.4 * Math.max(...frames.map((f) => similarity(image, f))) + 0.3 * mean(steps) + 0.3 * Math.min(...steps);
}

/** subject_consistency, background_consistency of a video: ½ (to the frame before + to the first), mean over later frames. */
export const consistency = (frames: readonly Feature[]): number =>
  mean(consecutive(frames).map((before, i) => (before + similarity(frames[0]!, frames[i + 1]!)) / 2));

/** Mean absolute difference of two frames of bytes. */
function byteDifference(a: Uint8Array, b: Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += Math.abs(a[i]! - b[i]!);
  return sum / a.length;
}

/** motion_smoothness of a video: every second frame is rebuilt from its neighbours; (255 - mean difference) / 255. */
export function motionSmoothness(
  frames: readonly Uint8Array[],
  between: (before: Uint8Array, after: Uint8Array) => Uint8Array,
): number {
  const differences: number[] = [];
  for (let t = 1; t + 1 < frames.length; t += 2)
    differences.push(byteDifference(frames[t]!, between(frames[t - 1]!, frames[t + 1]!)));
  return (255 - mean(differences)) / 255;
}

/** temporal_flickering of a video; not a part of the image-to-video total. */
export const temporalFlickering = (frames: readonly Uint8Array[]): number =>
  (255 - mean(frames.slice(1).map((f, i) => byteDifference(frames[i]!, f)))) / 255;

/** Every how many frames the flow is looked at: about eight a second. */
export const flowInterval = (fps: number): number => Math.max(1, roundEven(fps / 8));

/** Python's round: halves go to the even number. */
const roundEven = (x: number): number => (Math.abs(x % 1) === 0.5 ? 2 * Math.round(x / 2) : Math.round(x));

/**
 * dynamic_degree of a video: whether enough pairs of frames move.
 * @param flows length of the flow of every pixel [height · width], for each pair of consecutive frames, in pixels
 */
export function isDynamic(flows: readonly Float32Array[], width: number, height: number): boolean {
  const threshold = 6 * (Math.min(width, height) / 256);
  const needed = roundEven(4 * ((flows.length + 1) / 16));
  let moving = 0;
  for (const flow of flows) {
    const strongest = Float32Array.from(flow)
      .sort()
      .reverse()
      .slice(0, Math.trunc(0.05 * flow.length));
    if (mean([...strongest]) > threshold) moving++;
    if (moving >= needed) return true;
  }
  return false;
}

/** Least and largest value that a dimension is normalised by, and its weight in its group. */
const SCALES: Record<DimensionName, { low: number; high: number; weight: number; group: 'i2v' | 'quality' }> = {
  camera_motion: { low: 0, high: 1, weight: 0.1, group: 'i2v' },
  i2v_subject: { low: 0.1462, high: 1, weight: 1, group: 'i2v' },
  i2v_background: { low: 0.2615, high: 1, weight: 1, group: 'i2v' },
  subject_consistency: { low: 0.1462, high: 1, weight: 1, group: 'quality' },
  background_consistency: { low: 0.2615, high: 1, weight: 1, group: 'quality' },
  motion_smoothness: { low: 0.706, high: 0.9975, weight: 1, group: 'quality' },
  dynamic_degree: { low: 0, high: 1, weight: 0.5, group: 'quality' },
  aesthetic_quality: { low: 0, high: 1, weight: 1, group: 'quality' },
  imaging_quality: { low: 0, high: 1, weight: 1, group: 'quality' },
};

export interface Scores {
  /** I2V Score, Quality Score, and their mean, 0 to 1; undefined where nothing of a group was measured. */
  i2v?: number | undefined;
  quality?: number | undefined;
  total?: number | undefined;
  /** What the suite's own scores hold and these do not: with any, they are no official scores. */
  without: DimensionName[];
}

/** The group scores by the suite's normalisation and weights, over the dimensions that are given. */
export function groupScores(values: Partial<Record<DimensionName, number>>): Scores {
  const score = (group: 'i2v' | 'quality'): number | undefined => {
    const here = DIMENSIONS.filter((d) => SCALES[d].group === group && values[d] !== undefined);
    const weights = here.reduce((sum, d) => sum + SCALES[d].weight, 0);
    const sum = here.reduce(
      (s, d) => s + SCALES[d].weight * ((values[d]! - SCALES[d].low) / (SCALES[d].high - SCALES[d].low)),
      0,
    );
    return weights ? sum / weights : undefined;
  };
  const [i2v, quality] = [score('i2v'), score('quality')];
  return {
    i2v,
    quality,
    total: i2v === undefined || quality === undefined ? undefined : (i2v + quality) / 2,
    without: DIMENSIONS.filter((d) => values[d] === undefined),
  };
}

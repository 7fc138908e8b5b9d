/** VBench's dimensions of a set of videos, with whatever instruments are at hand: the suite's own networks, or proxies that say so. */
import { frameAt, type Footage, type Frame } from './footage.ts';
import {
  consistency,
  DIMENSIONS,
  flowInterval,
  groupScores,
  imageConformity,
  isDynamic,
  motionSmoothness,
  temporalFlickering,
  type DimensionName,
  type Feature,
  type Scores,
} from './formulas.ts';

/**
 * What stands in for one of the suite's networks. `proxy`: it is not that network, and its numbers mean something only beside each other.
 */
interface Instrument {
  name: string;
  proxy: boolean;
}
/** Frames → one feature row each. */
export interface Eye extends Instrument {
  see(frames: readonly Frame[], what: 'video' | 'image'): Promise<Feature[]>;
}
/** Frames → one score each, 0 to 1. */
export interface Rater extends Instrument {
  rate(frames: readonly Frame[]): Promise<number[]>;
}
export interface Interpolator extends Instrument {
  between(before: Frame, after: Frame): Uint8Array;
}
export interface Flow extends Instrument {
  lengths(before: Frame, after: Frame): Float32Array;
}

export interface Instruments {
  i2v_subject?: Eye | undefined;
  i2v_background?: Eye | undefined;
  subject_consistency?: Eye | undefined;
  background_consistency?: Eye | undefined;
  motion_smoothness?: Interpolator | undefined;
  dynamic_degree?: Flow | undefined;
  aesthetic_quality?: Rater | undefined;
  imaging_quality?: Rater | undefined;
}

/** A video and the picture it was made from, if that is known. */
export interface Take {
  name: string;
  footage: Footage;
  image?: Frame | undefined;
}

interface Dimension {
  name: DimensionName | 'temporal_flickering';
  /** Mean over videos. */ value: number;
  by: string;
  proxy: boolean;
}
export interface Measured {
  videos: number;
  dimensions: Dimension[];
  scores: Scores & { proxy: boolean };
}

/** Measures videos one after the other, so that only one need be in memory. @param takes in any order, two frames or more each */
export async function measure(
  takes: Iterable<Take> | AsyncIterable<Take>,
  instruments: Instruments,
): Promise<Measured> {
  const sums = new Map<Dimension['name'], { sum: number; weight: number }>();
  let videos = 0;
  for await (const take of takes) {
    if (take.footage.frames.length < 3)
      throw new Error(`[vbench] ${take.name} has ${take.footage.frames.length} frames: three are needed`);
    videos++;
    for (const [name, value, weight] of await measureOne(take, instruments)) {
      const so = sums.get(name) ?? { sum: 0, weight: 0 };
      sums.set(name, { sum: so.sum + weight * value, weight: so.weight + weight });
    }
  }
  const by = (name: Dimension['name']): Instrument =>
    name === 'temporal_flickering' ? { name: 'pixels', proxy: false } : instruments[name as keyof Instruments]!;
  const dimensions = [...sums].map(([name, { sum, weight }]) => ({
    name,
    value: sum / weight,
    by: by(name).name,
    proxy: by(name).proxy,
  }));
  const official = dimensions.filter((d): d is Dimension & { name: DimensionName } => d.name !== 'temporal_flickering');
  return {
    videos,
    dimensions: dimensions.sort((a, b) => ORDER.indexOf(a.name) - ORDER.indexOf(b.name)),
    scores: {
      ...groupScores(Object.fromEntries(official.map((d) => [d.name, d.value]))),
      proxy: official.some((d) => d.proxy),
    },
  };
}

const ORDER: readonly Dimension['name'][] = [...DIMENSIONS, 'temporal_flickering'];

/** Values of one video and their weights: the suite means consistency over frames, everything else over videos. */
async function measureOne({ footage, image }: Take, by: Instruments): Promise<[Dimension['name'], number, number][]> {
  const { frames: bytes, width, height, fps } = footage;
  const frames = bytes.map((_, t) => frameAt(footage, t));
  const out: [Dimension['name'], number, number][] = [['temporal_flickering', temporalFlickering(bytes), 1]];
  const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;
  const seen = new Map<Eye, Promise<Feature[]>>(); // one eye may serve several dimensions
  const see = (eye: Eye) => seen.get(eye) ?? seen.set(eye, eye.see(frames, 'video')).get(eye)!;
  for (const name of ['i2v_subject', 'i2v_background'] as const) {
    const eye = by[name];
    if (eye && image) out.push([name, imageConformity((await eye.see([image], 'image'))[0]!, await see(eye)), 1]);
  }
  for (const name of ['subject_consistency', 'background_consistency'] as const) {
    const eye = by[name];
    if (eye) out.push([name, consistency(await see(eye)), frames.length - 1]);
  }
  const { motion_smoothness: interpolator, dynamic_degree: flow } = by;
  if (interpolator)
    out.push([
      'motion_smoothness',
      motionSmoothness(bytes, (a, b) => interpolator.between({ width, height, data: a }, { width, height, data: b })),
      1,
    ]);
  if (flow) {
    const looked = frames.filter((_, t) => t % flowInterval(fps) === 0);
    out.push([
      'dynamic_degree',
      Number(
        isDynamic(
          looked.slice(1).map((f, i) => flow.lengths(looked[i]!, f)),
          width,
          height,
        ),
      ),
      1,
    ]);
  }
  for (const name of ['aesthetic_quality', 'imaging_quality'] as const) {
    const rater = by[name];
    if (rater) out.push([name, mean(await rater.rate(frames)), 1]);
  }
  return out;
}

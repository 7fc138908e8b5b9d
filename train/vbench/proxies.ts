/**
 * Stand-ins for VBench's networks that need no weights, for small data: each is named as a proxy, and its numbers never stand beside
 * published ones. The formulas above them are the suite's.
 */
import { classify, FEATURES, type ClassifierWeights } from '../metrics/classifier.ts';
import { resize, type Frame } from './footage.ts';
import type { Eye, Flow, Instruments, Interpolator, Rater } from './measure.ts';

const THUMBNAIL = 8;
const BINS = 8;

/** In DINO's place: the frame as 8x8 px. */
export const thumbnails: Eye = {
  name: '8x8 px',
  proxy: true,
  see: async (frames) => frames.map((f) => resize(f, THUMBNAIL, THUMBNAIL, 'linear', true).data),
};

/** In CLIP's and DreamSim's place: how often each of 8 levels of red, green and blue occurs. */
const colours: Eye = {
  name: 'colour histogram',
  proxy: true,
  see: async (frames) =>
    frames.map(({ data }) => {
      const bins = new Float64Array(3 * BINS);
      for (let i = 0; i < data.length; i++) bins[(i % 3) * BINS + Math.floor((data[i]! * BINS) / 256)]!++;
      return bins;
    }),
};

/** In AMT-S's place: the mean of the neighbours. */
const midway: Interpolator = {
  name: 'mean of neighbours',
  proxy: true,
  between: (a, b) => a.data.map((v, i) => Math.round((v + b.data[i]!) / 2)),
};

const GRID = 16; // blocks along the shorter side
const SEARCH = 0.0625; // of the shorter side, each way

/** In RAFT's place: the shift of each square block that fits best, whole pixels; the smaller of two that fit alike. */
export const blocks: Flow = { name: 'block matching', proxy: true, lengths: (a, b) => blockFlow(a, b) };

function blockFlow(a: Frame, b: Frame): Float32Array {
  const { width, height } = a;
  const size = Math.max(2, Math.floor(Math.min(width, height) / GRID));
  const reach = Math.max(2, Math.ceil(SEARCH * Math.min(width, height)));
  const shifts = [];
  for (let dy = -reach; dy <= reach; dy++)
    for (let dx = -reach; dx <= reach; dx++) shifts.push([dx, dy, Math.hypot(dx, dy)] as const);
  shifts.sort((p, q) => p[2] - q[2]);
  const out = new Float32Array(width * height);
  for (let y = 0; y < height; y += size) {
    for (let x = 0; x < width; x += size) {
      let best = { cost: Infinity, length: 0 };
      for (const [dx, dy, length] of shifts) {
        const cost = mismatch(a, b, { x, y, size }, [dx, dy], best.cost);
        if (cost < best.cost) best = { cost, length };
        if (cost === 0) break;
      }
      for (let j = y; j < Math.min(height, y + size); j++)
        out.fill(best.length, j * width + x, j * width + Math.min(width, x + size));
    }
  }
  return out;
}

/** Sum of absolute differences of a block of `a` and the shifted one of `b`; gives up above `most`. */
function mismatch(
  a: Frame,
  b: Frame,
  { x, y, size }: { x: number; y: number; size: number },
  [dx, dy]: readonly [number, number],
  most: number,
): number {
  const { width, height } = a;
  let sum = 0;
  for (let j = y; j < Math.min(height, y + size); j++) {
    for (let i = x; i < Math.min(width, x + size); i++) {
      const [u, v] = [i + dx, j + dy];
      if (u < 0 || v < 0 || u >= width || v >= height) return Infinity;
      for (let k = 0; k < 3; k++) sum += Math.abs(a.data[3 * (j * width + i) + k]! - b.data[3 * (v * width + u) + k]!);
    }
    if (sum >= most) return sum;
  }
  return sum;
}

/** In MUSIQ's place: mean step between neighbouring pixels beside that of the first frame; 1 is as sharp, less is blurrier or noisier. */
const sharpness: Rater = {
  name: 'sharpness beside frame 0',
  proxy: true,
  async rate(frames) {
    const all = frames.map(edges);
    return all.map((e) => (Math.min(e, all[0]!) + 1e-6) / (Math.max(e, all[0]!) + 1e-6));
  },
};

function edges({ width, height, data }: Frame): number {
  let sum = 0;
  for (let i = 0; i < data.length - 3 * width; i++)
    if (Math.floor(i / 3) % width < width - 1)
      sum += Math.abs(data[i]! - data[i + 3]!) + Math.abs(data[i]! - data[i + 3 * width]!);
  return sum / (width * height);
}

/** For any videos. Aesthetics have no honest stand-in without a network. */
export const PROXIES: Instruments = {
  i2v_subject: thumbnails,
  subject_consistency: thumbnails,
  i2v_background: colours,
  background_consistency: colours,
  motion_smoothness: midway,
  dynamic_degree: blocks,
  imaging_quality: sharpness,
};

/** For `digits`: the classifier's features are the subject, and how sure it is of the digit stands for how well that is drawn. */
export function digitProxies(classifier: ClassifierWeights): Instruments {
  const read = ({ width, height, data }: Frame) =>
    classify(
      classifier,
      Float32Array.from({ length: width * height }, (_, i) => data[3 * i]! / 127.5 - 1),
      [1, 1, height, width],
    );
  const subject: Eye = {
    name: 'digit classifier',
    proxy: true,
    see: async (frames) => frames.map((f) => read(f).features.subarray(0, FEATURES)),
  };
  const certainty: Rater = {
    name: "classifier's certainty",
    proxy: true,
    rate: async (frames) => frames.map((f) => read(f).certainty[0]!),
  };
  return { ...PROXIES, i2v_subject: subject, subject_consistency: subject, aesthetic_quality: certainty };
}

/**
 * A small convolutional net that reads square pictures, and its forward pass in plain JavaScript, so that metrics need no device: 3x3
 * convolutions of stride 2, a layer of features, and a linear answer to each question.
 */
import { loadParams } from '../../model/files/load.ts';

export interface Reader {
  /** Side of a picture, px: divided by two by each convolution. */
  readonly size: number;
  /** Of the picture, and of what each convolution gives. */
  readonly channels: readonly number[];
  readonly features: number;
  /** How many answers each question has. */
  readonly answers: Readonly<Record<string, number>>;
}

export type ReaderWeights = Readonly<Record<string, Float32Array>>;

const depthOf = ({ channels }: Reader): number => channels.length - 1;

/** Name → shape of its weights. */
export function readerShapes(r: Reader): Readonly<Record<string, readonly number[]>> {
  const { channels, size, features, answers } = r;
  const linear = (name: string, out: number, inner: number): [string, number[]][] => [
    [`${name}.weight`, [out, inner]],
    [`${name}.bias`, [out]],
  ];
  const convolutions = channels.slice(1).flatMap((out, l): [string, number[]][] => [
    [`conv${l + 1}.weight`, [out, channels[l]!, 3, 3]],
    [`conv${l + 1}.bias`, [out]],
  ]);
  return Object.fromEntries([
    ...convolutions,
    ...linear('hidden', features, channels.at(-1)! * (size >> depthOf(r)) ** 2),
    ...Object.entries(answers).flatMap(([question, n]) => linear(question, n, features)),
  ]);
}

/** Reads a reader's weights; throws when the file is missing or does not fit. */
export async function loadReader(path: string, reader: Reader): Promise<ReaderWeights> {
  const params = await loadParams(path, readerShapes(reader));
  return Object.fromEntries(Object.entries(params).map(([name, t]) => [name, t.data as Float32Array]));
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

export interface Reading {
  /** [frames, features]. */
  features: Float32Array;
  /** By question, for each frame: the logits of its answers. */
  logits: Record<string, Float32Array[]>;
}

/** @param x [channels, frames, size, size] */
export function read(r: Reader, weights: ReaderWeights, x: Float32Array, frames: number): Reading {
  const depth = depthOf(r);
  let maps = x;
  for (let l = 0; l < depth; l++)
    maps = convolve(
      maps,
      { channels: r.channels[l]!, frames, side: r.size >> l },
      weights[`conv${l + 1}.weight`]!,
      weights[`conv${l + 1}.bias`]!,
    );
  const area = (r.size >> depth) ** 2;
  const wide = r.channels.at(-1)!;
  const features = new Float32Array(frames * r.features);
  const logits: Record<string, Float32Array[]> = {};
  for (let f = 0; f < frames; f++) {
    const flat = new Float32Array(wide * area);
    for (let c = 0; c < wide; c++)
      flat.set(maps.subarray((c * frames + f) * area, (c * frames + f + 1) * area), c * area);
    const hidden = linear(flat, weights['hidden.weight']!, weights['hidden.bias']!).map((v) => Math.max(0, v));
    features.set(hidden, f * r.features);
    for (const question of Object.keys(r.answers))
      (logits[question] ??= []).push(linear(hidden, weights[`${question}.weight`]!, weights[`${question}.bias`]!));
  }
  return { features, logits };
}

/** The answer that frames give together: the likeliest by the sum of their logits. */
export function verdict(logits: readonly Float32Array[]): number {
  const total = new Float64Array(logits[0]!.length);
  for (const frame of logits) frame.forEach((v, k) => (total[k]! += v));
  return total.indexOf(Math.max(...total));
}

/**
 * f32 values as packed matrices: blocks as ggml's reference quantisers choose them (ggml-quants.c), and eight-bit floats with one scale.
 */
import { BLOCKS, type BlockType } from '../kernels/packed.ts';
import { f16Table, toF16 } from './halves.ts';

/** Types that are written. */
export type Quantised = Extract<BlockType, 'q8_0' | 'q5_0' | 'q4_k'>;

/** One block of `x` from `from` on into bytes `b` from `at` on. */
type Pack = (x: Float32Array, from: number, b: Uint8Array, at: number) => void;

const one = new Float32Array(1);
/** Writes the nearest half, and gives its value. */
function putHalf(value: number, b: Uint8Array, at: number): number {
  one[0] = value;
  const bits = toF16(one)[0]!;
  b[at] = bits & 255;
  b[at + 1] = bits >> 8;
  return f16Table()[bits]!;
}
const clamp = (x: number, most: number): number => Math.max(0, Math.min(most, Math.round(x)));

const q8_0: Pack = (x, from, b, at) => {
  let most = 0;
  for (let i = from; i < from + 32; i++) most = Math.max(most, Math.abs(x[i]!));
  const d = most / 127;
  putHalf(d, b, at);
  for (let i = 0; i < 32; i++) b[at + 2 + i] = d ? Math.round(x[from + i]! / d) : 0;
};

const q5_0: Pack = (x, from, b, at) => {
  let most = 0;
  for (let i = from; i < from + 32; i++) if (Math.abs(x[i]!) > Math.abs(most)) most = x[i]!;
  const d = most / -16;
  putHalf(d, b, at);
  for (let i = 0; i < 32; i++) {
    const q = d ? clamp(x[from + i]! / d + 16, 31) : 16;
    b[at + 6 + (i & 15)]! |= (q & 15) << (i & 16 ? 4 : 0);
    b[at + 2 + (i >> 3)]! |= (q >> 4) << (i & 7);
  }
};

const RUN = 32;
const TRIED = 20; // scales around the one that spans the run, a tenth of a level apart

/** Scale and minimum, both at least 0, of x ≈ scale · level - minimum with levels 0 to 15: of some tried the best in weighted squares. */
function spanned(x: Float32Array, from: number): { scale: number; least: number } {
  let [low, high, squares] = [0, -Infinity, 0];
  for (let i = from; i < from + RUN; i++) {
    low = Math.min(low, x[i]!);
    high = Math.max(high, x[i]!);
    squares += x[i]! * x[i]!;
  }
  if (high <= low) return { scale: 0, least: -low };
  const typical = Math.sqrt(squares / RUN);
  let best = { scale: (high - low) / 15, least: -low };
  let smallest = Infinity;
  for (let step = -1; step <= TRIED; step++) {
    const by = step < 0 ? 15 / (high - low) : (14 + step / 10) / (high - low);
    let [w0, wx, wl, wll, wlx] = [0, 0, 0, 0, 0];
    for (let i = from; i < from + RUN; i++) {
      const [v, w] = [x[i]!, typical + Math.abs(x[i]!)];
      const l = clamp(by * (v - low), 15);
      w0 += w;
      wx += w * v;
      wl += w * l;
      wll += w * l * l;
      wlx += w * l * v;
    }
    const det = w0 * wll - wl * wl;
    if (!(det > 0)) continue;
    let [scale, offset] = [(w0 * wlx - wx * wl) / det, (wll * wx - wl * wlx) / det];
    if (offset > 0) [scale, offset] = [wlx / wll, 0];
    let error = 0;
    for (let i = from; i < from + RUN; i++) {
      const off = scale * clamp(by * (x[i]! - low), 15) + offset - x[i]!;
      error += (typical + Math.abs(x[i]!)) * off * off;
    }
    if (error < smallest && scale > 0) [smallest, best] = [error, { scale, least: -offset }];
  }
  return best;
}

const q4_k: Pack = (x, from, b, at) => {
  const runs = Array.from({ length: 8 }, (_, j) => spanned(x, from + RUN * j));
  const d = putHalf(Math.max(...runs.map((r) => r.scale)) / 63, b, at);
  const dmin = putHalf(Math.max(...runs.map((r) => r.least)) / 63, b, at + 2);
  for (const [j, run] of runs.entries()) {
    const scale = d ? clamp(run.scale / d, 63) : 0;
    const least = dmin ? clamp(run.least / dmin, 63) : 0;
    if (j < 4) {
      b[at + 4 + j]! |= scale;
      b[at + 8 + j]! |= least;
    } else {
      b[at + 8 + j] = (scale & 15) | ((least & 15) << 4);
      b[at + j]! |= (scale >> 4) << 6;
      b[at + 4 + j]! |= (least >> 4) << 6;
    }
    const [by, less] = [d * scale, dmin * least];
    for (let l = 0; l < RUN; l++)
      b[at + 16 + (j >> 1) * 32 + l]! |= (by ? clamp((x[from + RUN * j + l]! + less) / by, 15) : 0) << ((j & 1) * 4);
  }
};

const PACKS: Record<Quantised, Pack> = { q8_0, q5_0, q4_k };

export const isQuantised = (dtype: string): dtype is Quantised => Object.hasOwn(PACKS, dtype);

/** Whole blocks. */
export function quantise(type: Quantised, values: Float32Array): Uint8Array<ArrayBuffer> {
  const { elements, bytes } = BLOCKS[type];
  const out = new Uint8Array((values.length / elements) * bytes);
  for (let i = 0, at = 0; i < values.length; i += elements, at += bytes) PACKS[type](values, i, out, at);
  return out;
}

const LARGEST = 448;
const word = new Uint32Array(one.buffer);

/** The nearest E4M3, ties to even; beyond the largest that. */
export function toF8E4M3(values: Float32Array): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(values.length);
  for (let i = 0; i < values.length; i++) {
    one[0] = values[i]!;
    const sign = (word[0]! >>> 24) & 0x80;
    const size = Math.abs(values[i]!);
    one[0] = size;
    const bits = word[0]!;
    if (size >= LARGEST) out[i] = sign | 0x7e;
    // Normal from 2⁻⁶ on: the exponent is 120 less; below, whole multiples of 2⁻⁹, which adding 2¹⁴ rounds to.
    else if (size >= 2 ** -6) out[i] = sign | ((bits - (120 << 23) + 0x7ffff + ((bits >>> 20) & 1)) >>> 20);
    else {
      one[0] = size + 2 ** 14;
      out[i] = sign | (word[0]! - 0x46800000);
    }
  }
  return out;
}

/** What codes are multiplied by so that the largest value is the largest code. */
export function scaleOf(values: Float32Array): number {
  let most = 0;
  for (const v of values) most = Math.max(most, Math.abs(v));
  return most ? Math.fround(most / LARGEST) : 1;
}

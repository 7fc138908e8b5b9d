/**
 * Values of packed matrices in f32, one rounding an operation as ggml's own functions have it (ggml-quants.c): what a kernel's values are
 * checked against, and what a matrix becomes where it cannot stay packed.
 */
import { blockOf, BLOCKS, fp8Of, type BlockType, type Packed } from '../kernels/packed.ts';
import { f16Table, fromF8E4M3, fromF8E5M2 } from './halves.ts';

const { fround } = Math;

/** One block of `b` from byte `at` on, as numbers from `to` on. */
type Unpack = (b: Uint8Array, at: number, out: Float32Array, to: number) => void;

const half = (b: Uint8Array, at: number): number => f16Table()[b[at]! | (b[at + 1]! << 8)]!;
const signed = (byte: number): number => (byte << 24) >> 24;

/** What four bits mean in the types whose levels are not even. */
const NONLINEAR = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113] as const;

/** Blocks of 32 codes: low nibbles, then high ones, from byte `from` on; a fifth bit, where there is one, from byte `high` on. */
const nibbles =
  (value: (d: number, q: number, m: number) => number, from: number, high = 0): Unpack =>
  (b, at, out, to) => {
    const [d, m] = [half(b, at), half(b, at + 2)];
    for (let j = 0; j < 32; j++) {
      const low = (b[at + from + (j & 15)]! >> (j & 16 ? 4 : 0)) & 15;
      const bit = high ? (b[at + high + (j >> 3)]! >> (j & 7)) & 1 : 0;
      out[to + j] = value(d, low | (bit << 4), m);
    }
  };

/** Scale and minimum number j of the eight that share 12 bytes. */
function sixBits(s: Uint8Array, at: number, j: number): [scale: number, least: number] {
  if (j < 4) return [s[at + j]! & 63, s[at + j + 4]! & 63];
  const both = s[at + j + 4]!;
  return [(both & 15) | ((s[at + j - 4]! >> 6) << 4), (both >> 4) | ((s[at + j]! >> 6) << 4)];
}

/** Eight runs of 32 with scales of six bits. */
const wide =
  (code: (b: Uint8Array, at: number, j: number, l: number) => number): Unpack =>
  (b, at, out, to) => {
    const [d, dmin] = [half(b, at), half(b, at + 2)];
    for (let j = 0; j < 8; j++) {
      const [scale, least] = sixBits(b, at + 4, j);
      const [by, less] = [fround(d * scale), fround(dmin * least)];
      for (let l = 0; l < 32; l++) out[to + 32 * j + l] = fround(by * code(b, at, j, l)) - less;
    }
  };
const nibble = (b: Uint8Array, at: number, j: number, l: number): number =>
  (b[at + (j >> 1) * 32 + l]! >> ((j & 1) * 4)) & 15;

/** Sixteen runs of 16, in two halves of four groups of 32. `of` gives a run's scale and minimum. */
const sixteen =
  (
    of: (b: Uint8Array, at: number, run: number) => readonly [by: number, less: number],
    code: (b: Uint8Array, at: number, part: number, group: number, l: number) => number,
  ): Unpack =>
  (b, at, out, to) => {
    for (let run = 0; run < 16; run++) {
      const [by, less] = of(b, at, run);
      const [part, group] = [run >> 3, (run >> 1) & 3];
      for (let l = (run & 1) * 16, end = l + 16; l < end; l++)
        out[to + 128 * part + 32 * group + l] = fround(by * code(b, at, part, group, l)) - less;
    }
  };

const UNPACK: Record<BlockType, Unpack> = {
  q8_0(b, at, out, to) {
    const d = half(b, at);
    for (let j = 0; j < 32; j++) out[to + j] = d * signed(b[at + 2 + j]!);
  },
  q4_0: nibbles((d, q) => d * (q - 8), 2),
  q4_1: nibbles((d, q, m) => fround(d * q) + m, 4),
  q5_0: nibbles((d, q) => d * (q - 16), 6, 2),
  q5_1: nibbles((d, q, m) => fround(d * q) + m, 8, 4),
  iq4_nl: nibbles((d, q) => d * NONLINEAR[q]!, 2),
  q4_k: wide((b, at, j, l) => nibble(b, at + 16, j, l)),
  q5_k: wide((b, at, j, l) => nibble(b, at + 48, j, l) + 16 * ((b[at + 16 + l]! >> j) & 1)),
  q6_k: sixteen(
    (b, at, run) => [fround(half(b, at + 208) * signed(b[at + 192 + run]!)), 0],
    (b, at, part, group, l) =>
      ((b[at + 64 * part + 32 * (group & 1) + l]! >> ((group >> 1) * 4)) & 15) +
      16 * ((b[at + 128 + 32 * part + l]! >> (2 * group)) & 3) -
      32,
  ),
  q3_k: sixteen(
    (b, at, run) => {
      const low = (b[at + 96 + (run & 7)]! >> ((run >> 3) * 4)) & 15;
      const high = (b[at + 104 + (run & 3)]! >> (2 * (run >> 2))) & 3;
      return [fround(half(b, at + 108) * ((low | (high << 4)) - 32)), 0];
    },
    (b, at, part, group, l) =>
      ((b[at + 32 + 32 * part + l]! >> (2 * group)) & 3) - ((b[at + l]! >> (4 * part + group)) & 1 ? 0 : 4),
  ),
  q2_k: sixteen(
    (b, at, run) => [fround(half(b, at + 80) * (b[at + run]! & 15)), fround(half(b, at + 82) * (b[at + run]! >> 4))],
    (b, at, part, group, l) => (b[at + 16 + 32 * part + l]! >> (2 * group)) & 3,
  ),
  iq4_xs(b, at, out, to) {
    const d = half(b, at);
    for (let j = 0; j < 8; j++) {
      const low = (b[at + 4 + (j >> 1)]! >> ((j & 1) * 4)) & 15;
      const high = ((b[at + 2]! | (b[at + 3]! << 8)) >> (2 * j)) & 3;
      const by = fround(d * ((low | (high << 4)) - 32));
      for (let l = 0; l < 32; l++)
        out[to + 32 * j + l] = by * NONLINEAR[(b[at + 8 + 16 * j + (l & 15)]! >> (l & 16 ? 4 : 0)) & 15]!;
    }
  },
};

const FROM_FP8 = { f8_e4m3: fromF8E4M3, f8_e5m2: fromF8E5M2 };

/** Whole blocks as numbers. */
export function unpack(dtype: Packed, bytes: Uint8Array): Float32Array<ArrayBuffer> {
  const { elements, bytes: size } = blockOf(dtype);
  const eight = fp8Of(dtype);
  if (eight && !eight.run) return FROM_FP8[eight.code](bytes);
  const count = bytes.length / size;
  const out = new Float32Array(count * elements);
  if (!eight) {
    const one = UNPACK[dtype as BlockType];
    for (let i = 0; i < count; i++) one(bytes, i * size, out, i * elements);
    return out;
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let i = 0; i < count; i++) {
    const scale = view.getFloat32(i * size, true);
    const codes = FROM_FP8[eight.code](bytes.subarray(i * size + 4, (i + 1) * size));
    for (let j = 0; j < elements; j++) out[i * elements + j] = scale * codes[j]!;
  }
  return out;
}

/** Where in a block halves stand, of which one that is not finite spoils it. */
const HALVES: Partial<Record<BlockType, readonly number[]>> = {
  q4_1: [0, 2],
  q5_1: [0, 2],
  q2_k: [80, 82],
  q3_k: [108],
  q4_k: [0, 2],
  q5_k: [0, 2],
  q6_k: [208],
};

/** Number of the first block of ggml's whose scale or minimum is NaN or infinite; -1 where there is none. */
export function brokenBlock(dtype: BlockType, bytes: Uint8Array): number {
  const size = BLOCKS[dtype].bytes;
  const places = HALVES[dtype] ?? [0];
  for (let block = 0, at = 0; at < bytes.length; block++, at += size)
    for (const place of places) if ((bytes[at + place + 1]! & 0x7c) === 0x7c) return block;
  return -1;
}

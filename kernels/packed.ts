/**
 * Matrices of few bits a number, as files have them and as they lie on a device: rows of whole blocks of fours, each with its own scale.
 * ggml's types under its names (ggml-common.h), and eight-bit floats: plain, or with an f32 scale in front of each run.
 */

/** Numbers of a block, and its bytes. */
export interface Block {
  readonly elements: number;
  readonly bytes: number;
}

/** ggml's types. */
export const BLOCKS = {
  q8_0: { elements: 32, bytes: 34 },
  q4_0: { elements: 32, bytes: 18 },
  q4_1: { elements: 32, bytes: 20 },
  q5_0: { elements: 32, bytes: 22 },
  q5_1: { elements: 32, bytes: 24 },
  iq4_nl: { elements: 32, bytes: 18 },
  q2_k: { elements: 256, bytes: 84 },
  q3_k: { elements: 256, bytes: 110 },
  q4_k: { elements: 256, bytes: 144 },
  q5_k: { elements: 256, bytes: 176 },
  q6_k: { elements: 256, bytes: 210 },
  iq4_xs: { elements: 256, bytes: 136 },
} as const;
export type BlockType = keyof typeof BLOCKS;

export const FP8 = ['f8_e4m3', 'f8_e5m2'] as const;
export type Fp8 = (typeof FP8)[number];

/** `f8_e4m3/64`: 64 codes, of a multiple of four, behind the f32 that they are multiplied by; of a scale a row, the row's length. */
export type Packed = BlockType | Fp8 | `${Fp8}/${number}`;

const SCALED = /^(f8_e4m3|f8_e5m2)\/([1-9]\d*)$/;

/** What it is made of; undefined for a name that is none. */
export function findBlock(dtype: string): Block | undefined {
  if (Object.hasOwn(BLOCKS, dtype)) return BLOCKS[dtype as BlockType];
  if (FP8.some((t) => t === dtype)) return { elements: 4, bytes: 4 };
  const run = Number(SCALED.exec(dtype)?.[2]);
  return run % 4 === 0 ? { elements: run, bytes: 4 + run } : undefined;
}

export const isPacked = (dtype: string): dtype is Packed => findBlock(dtype) !== undefined;

export const blockOf = (dtype: Packed): Block => findBlock(dtype)!;

/** An eight-bit float's kind, and the numbers that share a scale; none where there is no scale. */
export function fp8Of(dtype: Packed): { code: Fp8; run?: number } | undefined {
  const code = FP8.find((t) => dtype.startsWith(t));
  const run = Number(SCALED.exec(dtype)?.[2]);
  return code && { code, ...(run && { run }) };
}

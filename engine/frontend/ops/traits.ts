/**
 * What the compiler needs to know of an op beside its rules. An op's record states every
 * trait: a forgotten one would be a silent slowdown, or worse.
 */
import type { OpAttrs, OpName } from '../graph.ts';

export interface Traits {
  /**
   * What it takes to have its value once more where it is read: `free`, another name for bytes that are there; `cheap`; `expensive`, a
   * transcendental function, which is worth keeping; `kernel`, which always writes its value.
   */
  readonly cost: 'free' | 'cheap' | 'expensive' | 'kernel';
  /** Reading through it takes index arithmetic that costs more than a load. */
  readonly scattered: boolean;
  /** Pointwise code for four neighbours at once, or for one after the other where WGSL code of ours has no vector form. */
  readonly lanes: 'vector' | 'single';
  /**
   * Pointwise code that its kernel can run before it stores: none; code given the element; its row and column too; and with `rows` also
   * its neighbour in a pair, as rotary embedding reads it: families of rows have four at hand.
   */
  readonly epilogue: 'none' | 'flat' | 'placed' | 'rows';
  /** Of f16 operands its value is an f16: there is nothing to round. */
  readonly exact: boolean;
  /** Floats that its kernel reads: any, or f32 alone, to which narrower ones are cast in front. */
  readonly reads: 'any' | 'f32';
  /** How it takes operands in half precision: not at all, by a cast in front, or by its kernel (attribute `half`). */
  readonly half: 'never' | 'cast' | 'kernel';
  /** Operands to which all its results are proportional, where it takes them in half precision: those of gradients are scaled. */
  readonly linear: readonly number[];
  /** It takes no memory of a checkpoint's: it is never made again. */
  readonly source: boolean;
}

/** Inlined where its value is read. */
export const INLINED: Traits = {
  cost: 'cheap',
  scattered: false,
  lanes: 'vector',
  epilogue: 'none',
  exact: false,
  reads: 'any',
  half: 'never',
  linear: [],
  source: false,
};

/** A kernel of its own that reads f32. */
export const KERNEL: Traits = { ...INLINED, cost: 'kernel', reads: 'f32' };

/** One that rounds nothing. */
export const EXACT: Traits = { ...INLINED, exact: true };

/** A transcendental function. */
export const EXPENSIVE: Traits = { ...INLINED, cost: 'expensive' };

/** One that is computed number by number. */
export const SINGLE: Traits = { ...EXPENSIVE, lanes: 'single' };

/** Ops with the attribute `half`. */
export type HalfOp = {
  [K in OpName]: string extends keyof OpAttrs[K] ? never : 'half' extends keyof OpAttrs[K] ? K : never;
}[OpName];

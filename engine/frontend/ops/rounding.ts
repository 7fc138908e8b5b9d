/** Numbers as a dtype holds them. */
import type { DType } from '../../../kernels/kernel.ts';

/** To the nearest whole number, ties to the even one. */
export function toEven(x: number): number {
  const below = Math.floor(x);
  const up = x - below > 0.5 || (x - below === 0.5 && below % 2 !== 0);
  return up ? Math.ceil(x) : below;
}

/** The nearest f16: 11 bits, steps of 2⁻²⁴ below 2⁻¹⁴, infinite from 65520 on. */
export function toHalf(x: number): number {
  const size = Math.abs(x);
  if (!(size > 0 && size < Infinity)) return x;
  if (size >= 65520) return Math.sign(x) * Infinity;
  let exponent = -14;
  while (2 ** (exponent + 1) <= size) exponent++;
  const step = 2 ** (exponent - 10);
  return Math.sign(x) * toEven(size / step) * step;
}

/** What is left of a number in this dtype. Whole numbers wrap; bf16 is not made here. */
export function rounded(x: number, dtype: DType): number {
  if (dtype === 'f16') return toHalf(x);
  if (dtype === 'i32') return x | 0;
  return dtype === 'u32' ? x >>> 0 : Math.fround(x);
}

/** A float cast to whole numbers: the part before the point, the nearest end of the range outside it, 0 of NaN. */
export function toWhole(x: number, dtype: 'i32' | 'u32'): number {
  const [least, most] = dtype === 'i32' ? [-(2 ** 31), 2 ** 31 - 1] : [0, 2 ** 32 - 1];
  return Number.isNaN(x) ? 0 : Math.min(most, Math.max(least, Math.trunc(x)));
}

/** f32 values in the float types that files keep: what a type cannot hold is refused, not written as infinity. */
import { toBF16, toF16 } from '../halves.ts';

/** Conversion, and where values begin to round to infinity. */
const TYPES = {
  F32: { encode: (x: Float32Array) => x, end: Infinity, largest: 3.4028234663852886e38 },
  F16: { encode: toF16, end: 65520, largest: 65504 },
  BF16: { encode: toBF16, end: 2 ** 128 - 2 ** 119, largest: 2 ** 128 - 2 ** 120 },
} as const;
export type FloatType = keyof typeof TYPES;

/** Values as the type has them, beyond its largest as infinity. */
export const rounded = (values: Float32Array, dtype: FloatType): Float32Array | Uint16Array =>
  TYPES[dtype].encode(values);

/** The same. @throws one line that names the tensor where it holds a value that is not finite, or one beyond the type */
export function encoded(name: string, values: Float32Array, dtype: FloatType): Float32Array | Uint16Array {
  const { encode, end, largest } = TYPES[dtype];
  let most = 0;
  let bad = 0;
  let at = -1;
  for (let i = 0; i < values.length; i++) {
    const size = Math.abs(values[i]!);
    if (!(size < Infinity)) {
      bad++;
      if (at < 0) at = i;
    } else if (size > most) most = size;
  }
  if (bad)
    throw new Error(
      `tensor ${name}: ${bad} of ${values.length} values are not finite, the first is ${values[at]}: the weights are broken`,
    );
  if (most >= end)
    throw new Error(
      `tensor ${name} reaches ${Number(most.toPrecision(6))}, ${dtype.toLowerCase()} ends at ${Number(largest.toPrecision(6))}: write it as ${dtype === 'F16' ? 'bf16 or f32' : 'f32'}`,
    );
  return encode(values);
}

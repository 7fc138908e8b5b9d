/**
 * Floats as they lie in storage buffers, and how a shader reads them: always as f32. Halves
 * without a type of their own in WGSL lie two in a u32, low bits first.
 */
import type { Caps } from './kernel.ts';

export type FloatType = 'f32' | 'f16' | 'bf16';

export interface FloatReader {
  /** Element type of the binding's array: of one value, or with `vec` of four neighbours. */
  type: string;
  /** Value number `i` of buffer `name` as f32, or its `i`-th four as vec4f. `i` stands twice in it. */
  read(name: string, i: string): string;
  /** Module-scope functions that the readers of all buffers of a type share. */
  common: string;
  /** Those of buffer `name`. */
  functions?: (name: string) => string;
  /** Read by fours in any case: rows are whole fours. */
  fours?: boolean;
  /** Along a row, what so many neighbours share, and four values given that; a power of two. */
  run?: {
    length: number;
    head(name: string, i: string): string;
    values(name: string, i: string, head: string): string;
  };
}

/** What reading bf16 calls. */
export const BF16 = `fn bf16x4(w: vec2u) -> vec4f { return bitcast<vec4f>(vec4u(w.x << 16u, w.x & 0xffff0000u, w.y << 16u, w.y & 0xffff0000u)); }
fn bf16x1(w: u32, i: u32) -> f32 { return bitcast<f32>(select(w << 16u, w & 0xffff0000u, (i & 1u) == 1u)); }`;

export const nativeHalf = (caps: Pick<Caps, 'f16'>, dtype: FloatType): boolean => dtype === 'f16' && caps.f16;

export function floatReader(caps: Pick<Caps, 'f16'>, dtype: FloatType, vec: boolean): FloatReader {
  if (dtype === 'f32') return { type: vec ? 'vec4f' : 'f32', read: (name, i) => `${name}[${i}]`, common: '' };
  if (nativeHalf(caps, dtype))
    return {
      type: vec ? 'vec4<f16>' : 'f16',
      read: (name, i) => `${vec ? 'vec4f' : 'f32'}(${name}[${i}])`,
      common: '',
    };
  if (dtype === 'bf16') {
    return {
      type: vec ? 'vec2u' : 'u32',
      common: BF16,
      read: (name, i) => (vec ? `bf16x4(${name}[${i}])` : `bf16x1(${name}[(${i}) / 2u], ${i})`),
    };
  }
  return {
    type: vec ? 'vec2u' : 'u32',
    common: '',
    read: (name, i) =>
      vec
        ? `vec4f(unpack2x16float(${name}[${i}].x), unpack2x16float(${name}[${i}].y))`
        : `unpack2x16float(${name}[(${i}) / 2u])[(${i}) & 1u]`,
  };
}

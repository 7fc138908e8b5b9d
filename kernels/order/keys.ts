/**
 * Numbers as u32 keys that stand in their order, so that comparisons are of whole numbers: no driver's ways with NaN, zeros or
 * denormals matter. Larger keys come first; of equal ones the lower index does.
 */
import type { Access } from '../kernel.ts';

/** Lines of `n` elements, `inner` apart, in an array [outer, n, inner]. */
export interface Lines {
  outer: number;
  n: number;
  inner: number;
}

export interface OrderProblem extends Lines {
  dtype: 'f32' | 'i32' | 'u32';
  /** The largest come first, or the smallest. */
  largest: boolean;
  /** NaN comes first either way, else only among the largest. */
  nanFirst: boolean;
  access: Access;
}

export const LINES = ['lines', 'n', 'inner'] as const;
export const lineParams = ({ outer, n, inner }: Lines): number[] => [outer * inner, n, inner];

/** `at(line, r)`: where element r of a line lies. */
export const AT = `fn at(line: u32, r: u32) -> u32 {
  let o = line / p.inner;
  return (o * p.n + r) * p.inner + (line - o * p.inner);
}`;

/** `keyOf(bits)`, of a word as it lies in memory. */
export function keyFunction({ dtype, largest, nanFirst }: OrderProblem): string {
  const order = {
    f32: `  if ((b << 1u) == 0u) { return ${largest ? '' : '~'}0x80000000u; } // zeros are equal
  let k = select(b | 0x80000000u, ~b, (b & 0x80000000u) != 0u);`,
    i32: '  let k = b ^ 0x80000000u;',
    u32: '  let k = b;',
  }[dtype];
  const nan = largest || nanFirst ? '0xffffffffu' : '0u';
  return `fn keyOf(b: u32) -> u32 {
${dtype === 'f32' ? `  if ((b & 0x7fffffffu) > 0x7f800000u) { return ${nan}; }\n` : ''}${order}
  return ${largest ? 'k' : '~k'};
}`;
}

/** `before(a, b)` of pairs (key, index). */
export const BEFORE = 'fn before(a: vec2u, b: vec2u) -> bool { return a.x > b.x || (a.x == b.x && a.y < b.y); }';

/** Behind everything. */
export const LAST = 'vec2u(0u, 0xffffffffu)';

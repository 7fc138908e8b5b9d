/** What templates print WGSL with. */

/** 0 … n - 1: what is written out n times. */
export const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

/** Components of a vec4. */
export const XYZW = ['x', 'y', 'z', 'w'] as const;

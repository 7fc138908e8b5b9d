/**
 * Counter-based random numbers: every element is a function of (key, index, stream), so any device draws the same video.
 *
 * Normal, by Box and Muller:
 *
 *     let b = threefry(vec2u(key[0], key[1]), vec2u(i, p.stream));
 *     dst[i] = sqrt(-2.0 * log((f32(b.x >> 8u) + 1.0) * 0x1p-24f)) * cosine(6.283185307179586 * f32(b.y >> 8u) * 0x1p-24f);
 */
import { ceilDiv, foldGrid, shader, type Access, type Caps, type Launch } from '../kernel.ts';
import { TRIG } from '../trig.ts';

export interface RandomProblem {
  n: number;
  dist: 'normal' | 'uniform';
  /** Tells apart the draws that share a key within one program. */
  stream: number;
  access: Access;
}

/** Threefry2x32, 20 rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011). */
export const THREEFRY = `fn threefry(key: vec2u, counter: vec2u) -> vec2u {
  let ks = array<u32, 3>(key.x, key.y, key.x ^ key.y ^ 0x1bd11bdau);
  var x = counter + key;
${[0, 1, 2, 3, 4]
  .map(
    (g) => `${(g % 2 ? [17, 29, 16, 24] : [13, 15, 26, 6])
      .map((r) => `  x.x += x.y; x.y = ((x.y << ${r}u) | (x.y >> ${32 - r}u)) ^ x.x;`)
      .join('\n')}
  x += vec2u(ks[${(g + 1) % 3}], ks[${(g + 2) % 3}] + ${g + 1}u);`,
  )
  .join('\n')}
  return x;
}`;

const WORKGROUP = 64;
/** 24 bits of each word, as exact floats in [0, 1); the normal's logarithm takes (0, 1]. */
const DRAW = {
  uniform: 'f32(b.x >> 8u) * 0x1p-24f',
  normal: 'sqrt(-2.0 * log((f32(b.x >> 8u) + 1.0) * 0x1p-24f)) * cosine(6.283185307179586 * f32(b.y >> 8u) * 0x1p-24f)',
};

/** Slots: key u32[2], out f32[n]. Element i draws from threefry(key, (i, stream)); normals by Box-Muller. */
export function random(_caps: Caps, { n, dist, stream, access }: RandomProblem): Launch {
  const wgsl = shader({
    params: ['n', 'stream'],
    buffers: [
      { name: 'key', type: 'u32', access },
      { name: 'dst', type: 'f32', access: 'read_write' },
    ],
    workgroup: [WORKGROUP, 1, 1],
    functions: dist === 'normal' ? `${THREEFRY}\n${TRIG}` : THREEFRY,
    main: `  let i = (wid.x + wid.y * nwg.x) * ${WORKGROUP}u + li;
  if (i >= p.n) { return; }
  let b = threefry(vec2u(key[0], key[1]), vec2u(i, p.stream));
  dst[i] = ${DRAW[dist]};`,
  });
  return {
    dispatches: [
      {
        label: `random ${dist} ${n}`,
        wgsl,
        grid: foldGrid(ceilDiv(n, WORKGROUP)),
        params: [n, stream],
        bind: [0, 1],
        flops: 100 * n,
        bytes: 4 * n + 8,
      },
    ],
    scratch: [],
  };
}

/**
 * Random numbers as pure functions of (seed, step, role), for data order, conditions and the keys of the engine's own generator.
 *
 * No state survives a step, so a resumed run draws what an uninterrupted one would. Threefry-2x32-20 of Salmon et al.,
 * "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
 */
import type { HostTensor } from '../../engine/frontend/tree.ts';

type Pair = [number, number];
const ROTATIONS = [13, 15, 26, 6, 17, 29, 16, 24] as const;

/** Threefry-2x32 with 20 rounds: (key, counter) → 64 random bits. */
export function threefry([k0, k1]: Pair, [c0, c1]: Pair): Pair {
  const keys = [k0, k1, (k0 ^ k1 ^ 0x1bd11bda) >>> 0];
  let a = (c0 + k0) | 0;
  let b = (c1 + k1) | 0;
  for (let round = 0; round < 20; round++) {
    const r = ROTATIONS[round % 8]!;
    a = (a + b) | 0;
    b = ((b << r) | (b >>> (32 - r))) ^ a;
    if (round % 4 === 3) {
      const j = (round + 1) / 4;
      a = (a + keys[j % 3]!) | 0;
      b = (b + keys[(j + 1) % 3]! + j) | 0;
    }
  }
  return [a >>> 0, b >>> 0];
}

function derive(seed: number, step: number, role: string): Pair {
  for (const [name, v] of [
    ['seed', seed],
    ['step', step],
  ] as const) {
    if (!Number.isSafeInteger(v) || v < 0)
      throw new Error(`[rng] ${name} must be a whole number of 0 or more, got ${v}`);
  }
  let hash = 0x811c9dc5; // FNV-1a
  for (let i = 0; i < role.length; i++) hash = Math.imul(hash ^ role.charCodeAt(i), 0x01000193);
  const folded = threefry([seed >>> 0, Math.floor(seed / 2 ** 32)], [hash >>> 0, Math.floor(step / 2 ** 32)]);
  return threefry(folded, [step >>> 0, 0]);
}

/** The key that `normal` and `uniform` of the engine take: u32[2], different for every (seed, step, role). */
export function key(seed: number, step: number, role: string): HostTensor {
  return { shape: [2], dtype: 'u32', data: Uint32Array.from(derive(seed, step, role)) };
}

/** Draws on the host, in order, from the stream that (seed, step, role) names. */
export class Stream {
  private readonly key: Pair;
  private drawn = 0;

  constructor(seed: number, step: number, role: string) {
    this.key = derive(seed, step, role);
  }

  u32(): number {
    const i = this.drawn++;
    return threefry(this.key, [i >>> 1, 1])[i & 1]!;
  }

  /** In [lo, hi). */
  uniform(lo = 0, hi = 1): number {
    return lo + (hi - lo) * (this.u32() / 2 ** 32);
  }

  /** In 0 … n-1. */
  int(n: number): number {
    return Math.floor(this.uniform(0, n));
  }

  /** Mean 0, variance 1 (Box-Muller). */
  normal(): number {
    const radius = Math.sqrt(-2 * Math.log((this.u32() + 1) / 2 ** 32));
    return radius * Math.cos(2 * Math.PI * this.uniform());
  }

  /** A permutation of 0 … n-1 (Fisher-Yates). */
  shuffle(n: number): Uint32Array {
    const order = Uint32Array.from({ length: n }, (_, i) => i);
    for (let i = n - 1; i > 0; i--) {
      const j = this.int(i + 1);
      [order[i], order[j]] = [order[j]!, order[i]!];
    }
    return order;
  }
}

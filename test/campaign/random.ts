/** Random numbers of a campaign: the same for the same seed. */

/** mulberry32: a whole number below n. */
export function generator(seed: number): (n: number) => number {
  return (n) => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), seed | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) % n;
  };
}

/** What a part of a campaign has to say. */
export interface Outcome {
  /** How many were tried, of what. */
  tried: string;
  findings: string[];
}

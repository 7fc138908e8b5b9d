/**
 * Counter-based random numbers: Threefry-2x32 with 20 rounds (Salmon et al., SC 2011). Element i of stream s under a key
 * depends on nothing else, so every device and every schedule draws the same numbers.
 */
import { numel } from '../../../kernels/kernel.ts';
import { fail, printShapes } from '../../host/errors.ts';
import type { OpDef } from './op.ts';
import { arity, sameShape } from './op.ts';
import { KERNEL } from './traits.ts';

const ROTATIONS = [13, 15, 26, 6, 17, 29, 16, 24];
/** Parity constant of the Threefry key schedule. */
const PARITY = 0x1bd11bda;

/** Two random u32 for a counter (c0, c1) under a key (k0, k1). */
export function threefry2x32(k0: number, k1: number, c0: number, c1: number): [number, number] {
  const key = [k0 >>> 0, k1 >>> 0, (PARITY ^ k0 ^ k1) >>> 0];
  let a = (c0 + key[0]!) >>> 0;
  let b = (c1 + key[1]!) >>> 0;
  for (let round = 0; round < 20; round++) {
    const r = ROTATIONS[round % 8]!;
    a = (a + b) >>> 0;
    b = (((b << r) | (b >>> (32 - r))) ^ a) >>> 0;
    if (round % 4 !== 3) continue;
    const s = (round + 1) / 4;
    a = (a + key[s % 3]!) >>> 0;
    b = (b + key[(s + 1) % 3]! + s) >>> 0;
  }
  return [a, b];
}

/** 24 random bits as a float in [0, 1), exact in f32. */
const unit = (bits: number): number => (bits >>> 8) * 2 ** -24;

/** Element i of a stream: uniform in [0, 1), or normal by Box–Muller. */
export function randomElement(dist: 'normal' | 'uniform', k0: number, k1: number, i: number, stream: number): number {
  const [b0, b1] = threefry2x32(k0, k1, i, stream);
  return dist === 'uniform'
    ? unit(b0)
    : Math.sqrt(-2 * Math.log(unit(b0) + 2 ** -24)) * Math.cos(2 * Math.PI * unit(b1));
}

export const random: OpDef<'random'> = {
  infer(x, { shape }) {
    arity('random', x, 1);
    if (x[0]!.dtype !== 'u32' || !sameShape(x[0]!.shape, [2]))
      fail('random', `expected a key u32[2], got ${x[0]!.dtype}${printShapes(x[0]!.shape)}`);
    return [{ shape, dtype: 'f32' }];
  },
  oracle: ([key], { shape, dist, stream }) => [
    Float64Array.from({ length: numel(shape) }, (_, i) => randomElement(dist, key!.data[0]!, key!.data[1]!, i, stream)),
  ],
  vjp: null,
  flops: (_, outs) => 60 * numel(outs[0]!.shape),
  traits: KERNEL,
};

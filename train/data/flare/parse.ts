/**
 * Flare's own text files: where each sprite lies on its sheet, in which order the parts of a figure are drawn, where a floor's tiles lie.
 */
import { SLOTS, type Slot } from './outfits.ts';

export const DIRECTIONS = 8;

interface Rectangle {
  x: number;
  y: number;
  width: number;
  height: number;
}
/** On a sheet; (originX, originY) in it is where the figure stands. */
export interface Placed extends Rectangle {
  originX: number;
  originY: number;
}

export interface Motion {
  frames: number;
  milliseconds: number;
  type: 'looped' | 'back_forth' | 'play_once';
  /** By frame · 8 + direction; where nothing is drawn there is none. */
  sprites: (Placed | undefined)[];
}

interface Animation {
  /** The sheet, below the mod's folder. */
  image: string;
  motions: Record<string, Motion>;
}

/** `[run]`, `frames=8`, `duration=533ms`, `type=looped`, `frame=index,direction,x,y,width,height,originX,originY`. @throws one line */
export function parseAnimation(text: string, path: string): Animation {
  const image = /^image=(.+)$/m.exec(text)?.[1]?.trim();
  if (image === undefined) throw new Error(`[flare] ${path} names no image: it is not an animation of Flare's`);
  const motions: Record<string, Motion> = {};
  for (const [, name, body] of text.matchAll(/^\[(\w+)\]$([^[]*)/gm)) {
    const field = (key: string): string => new RegExp(`^${key}=(\\w+)`, 'm').exec(body!)?.[1] ?? '';
    const type = field('type');
    if (type !== 'looped' && type !== 'back_forth' && type !== 'play_once')
      throw new Error(`[flare] ${path}: [${name}] has the type "${type}", expected looped, back_forth or play_once`);
    const motion: Motion = {
      frames: Number.parseInt(field('frames'), 10),
      milliseconds: Number.parseInt(field('duration'), 10),
      type,
      sprites: [],
    };
    for (const [, numbers] of body!.matchAll(/^frame=([-\d,]+)$/gm)) {
      const [frame, direction, x, y, width, height, originX, originY] = numbers!.split(',').map(Number) as number[];
      motion.sprites[frame! * DIRECTIONS + direction!] = {
        x: x!,
        y: y!,
        width: width!,
        height: height!,
        originX: originX!,
        originY: originY!,
      };
    }
    motions[name!] = motion;
  }
  return { image, motions };
}

/** `layer=direction,slot,…`: for each direction the slots from the first to be drawn to the last. @throws one line */
export function parseLayers(text: string, path: string): Slot[][] {
  const layers: Slot[][] = [];
  for (const [, direction, slots] of text.matchAll(/^layer=(\d),(.+)$/gm))
    layers[Number(direction)] = slots!.split(',').map((slot) => {
      const found = SLOTS.find((s) => s === slot.trim());
      if (!found) throw new Error(`[flare] ${path}: unknown part "${slot.trim()}" of a figure`);
      return found;
    });
  if (layers.length !== DIRECTIONS || layers.includes(undefined as never))
    throw new Error(`[flare] ${path} orders ${Object.keys(layers).length} directions, expected ${DIRECTIONS}`);
  return layers;
}

/** The first floor of a tile set, by the game's numbers. */
const FIRST_FLOOR = 16;

/** The sheet and the first `count` floors of a tile set: `img=…`, `tile=id,x,y,width,height,originX,originY`. @throws one line */
export function parseTiles(text: string, count: number, path: string): { image: string; tiles: Rectangle[] } {
  const image = /^img=(.+)$/m.exec(text)?.[1]?.trim();
  const tiles: Rectangle[] = [];
  for (const [, id, ...numbers] of text.matchAll(/^tile=(\d+),(\d+),(\d+),(\d+),(\d+)/gm)) {
    const [x, y, width, height] = numbers.map(Number) as [number, number, number, number];
    if (Number(id) >= FIRST_FLOOR && Number(id) < FIRST_FLOOR + count)
      tiles[Number(id) - FIRST_FLOOR] = { x, y, width, height };
  }
  if (image === undefined || tiles.filter(Boolean).length !== count)
    throw new Error(
      `[flare] ${path} holds ${tiles.filter(Boolean).length} of ${count} floors: it is not a tile set of Flare's`,
    );
  return { image, tiles };
}

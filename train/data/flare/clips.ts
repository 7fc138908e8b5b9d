/**
 * The data set `flare`: people of the free game Flare, running, fighting, casting and dying on tiled ground, with captions. Composed from
 * the game's sprites, part by part, so that outfit, action, direction and ground
 * combine freely; clip i of (split, seed) is a pure function.
 *
 * Where someone runs, the camera follows, and ground comes into view that no earlier frame showed. An eighth of the outfits is held out.
 */
import { Stream } from '../../loop/rng.ts';
import { areaResize } from '../resize.ts';
import type { Clip, Split } from '../sets.ts';
import {
  captionOf,
  FACINGS,
  garmentOf,
  sceneOf,
  type Action,
  type Facing,
  type Garment,
  type Ground,
  type Scene,
} from './outfits.ts';
import { openSprites, type Sprite, type Sprites } from './sprites.ts';

export interface FlareSettings {
  /** Height and width, px: the view of 64 px at the game's own size is shrunk to it. */
  readonly size: number;
  readonly frames: number;
}

/** What the classifier reads from a clip. */
export interface FlareClip extends Clip {
  readonly action: Action;
  readonly facing: Facing;
  readonly garment: Garment;
}

const VIEW = 64;
/** Where someone stands in it, px: a figure is 45 px high. */
const STAND = { x: 32, y: 51, around: 3 };

const FRAME_MS = 50;
/** Frames that each of the game's is held for: the nearest whole number, so that nothing judders. */
const holdOf = (frames: number, milliseconds: number): number =>
  Math.max(1, Math.round(milliseconds / frames / FRAME_MS));

/**
 * A stride of two steps, 8 frames, covers 64 px of ground to the side: 1.4 times a
 * figure's height. Half of that towards us, as the game's view has it.
 */
const PACE = 8;
const DIAGONAL = Math.SQRT1_2;
const HEADINGS: Record<Facing, readonly [number, number]> = {
  west: [-1, 0],
  'north-west': [-DIAGONAL, -DIAGONAL / 2],
  north: [0, -0.5],
  'north-east': [DIAGONAL, -DIAGONAL / 2],
  east: [1, 0],
  'south-east': [DIAGONAL, DIAGONAL / 2],
  south: [0, 0.5],
  'south-west': [-DIAGONAL, DIAGONAL / 2],
};

/** Clips of a split: `clip(i)` is defined for every i ≥ 0. @throws one line when the set was not fetched */
export function flare(split: Split, seed: number, { size, frames }: FlareSettings): { clip: (i: number) => FlareClip } {
  if (size > VIEW) throw new Error(`[flare] data.size must be at most ${VIEW}, got ${size}`);
  const sprites = openSprites();
  const clip = (i: number): FlareClip => {
    const random = new Stream(seed, i, `flare.${split}.clip`);
    const scene = sceneOf(i, random, split);
    const view = new Uint8ClampedArray(3 * VIEW * VIEW);
    const plane = new Float32Array(VIEW * VIEW);
    const video = new Float32Array(3 * frames * size * size);
    const stand = [STAND.x, STAND.y].map((at) => at + random.int(2 * STAND.around + 1) - STAND.around) as [
      number,
      number,
    ];
    const origin = [random.int(4096), random.int(4096)] as const;
    const paving = random.u32();
    const poses = posesOf(scene, sprites, random);
    for (let t = 0; t < frames; t++) {
      const [dx, dy] = scene.action === 'run' ? HEADINGS[scene.facing] : [0, 0];
      pave(
        view,
        sprites.tiles(scene.ground),
        paving,
        origin[0] + Math.round(t * PACE * dx),
        origin[1] + Math.round(t * PACE * dy),
      );
      const direction = FACINGS.indexOf(scene.facing);
      const { action, frame } = poses(t);
      for (const slot of sprites.index.layers[direction]!) {
        const item = scene.wears[slot];
        const sprite = item === undefined ? undefined : sprites.item(scene.sex, item, action, frame, direction);
        if (sprite) paste(view, sprite, stand[0] - sprite.originX, stand[1] - sprite.originY);
      }
      for (let c = 0; c < 3; c++) {
        for (let p = 0; p < plane.length; p++) plane[p] = view[3 * p + c]! / 127.5 - 1;
        video.set(areaResize(plane, VIEW, size), (c * frames + t) * size * size);
      }
    }
    return { video, caption: captionOf(scene), action: scene.action, facing: scene.facing, garment: garmentOf(scene) };
  };
  return { clip };
}

/** Which of the game's frames is seen at time t. Loops begin anywhere; a deed begins within two frames, before and after it they stand. */
function posesOf(
  { action }: Scene,
  { index }: Sprites,
  random: Stream,
): (t: number) => { action: Action; frame: number } {
  const { frames, milliseconds, type } = index.motions[action];
  const hold = holdOf(frames, milliseconds);
  const length = frames * hold;
  if (type === 'looped' || type === 'back_forth') {
    const cycle = type === 'looped' ? frames : 2 * frames - 2;
    const from = random.int(cycle * hold);
    return (t) => {
      const at = Math.floor((t + from) / hold) % cycle;
      return { action, frame: at < frames ? at : cycle - at };
    };
  }
  const falls = action === 'die'; // and stays as they fell
  const from = falls ? random.int(length / 2) : random.int(5) - 2;
  return (t) => {
    const at = Math.floor((t + from) / hold);
    if (at >= 0 && at < frames) return { action, frame: at };
    return falls ? { action, frame: frames - 1 } : { action: 'stance', frame: 0 };
  };
}

/** Covers the view, whose corner is at (x, y) of the world, with a floor of diamonds; which tile lies where is decided by `paving`. */
function pave(view: Uint8ClampedArray, tiles: readonly Sprite[], paving: number, x: number, y: number): void {
  const { width, height } = tiles[0]!;
  // Row r of diamonds begins half a width further right than row r - 1, and half a height lower.
  for (let r = Math.floor((2 * y) / height) - 1; (r * height) / 2 < y + VIEW; r++) {
    const shift = r % 2 ? width / 2 : 0;
    for (let c = Math.floor((x - shift) / width); c * width + shift < x + VIEW; c++) {
      const chosen = tiles[mix(paving, r, c) % tiles.length]!;
      paste(view, chosen, c * width + shift - x, (r * height) / 2 - y);
    }
  }
}

/** A number of 32 bits for a place. */
function mix(seed: number, r: number, c: number): number {
  let h = seed ^ Math.imul(r, 0x9e3779b1) ^ Math.imul(c, 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 15), 0x2c1b3c6d);
  h = Math.imul(h ^ (h >>> 12), 0x297a2d39);
  return (h ^ (h >>> 15)) >>> 0;
}

/** Lays a sprite over the view [64, 64, 3] with its corner at (left, top). */
function paste(view: Uint8ClampedArray, { width, height, rgba }: Sprite, left: number, top: number): void {
  for (let j = Math.max(0, -top); j < Math.min(height, VIEW - top); j++) {
    for (let i = Math.max(0, -left); i < Math.min(width, VIEW - left); i++) {
      const from = 4 * (j * width + i);
      const alpha = rgba[from + 3]!;
      if (alpha === 0) continue;
      const to = 3 * ((top + j) * VIEW + left + i);
      const over = alpha / 255;
      for (let c = 0; c < 3; c++)
        view[to + c] = alpha === 255 ? rgba[from + c]! : over * rgba[from + c]! + (1 - over) * view[to + c]!;
    }
  }
}

export type { Action, Facing, Garment, Ground };

/** Pictures that people bring, of any kind: upright, and what is transparent in them is white. */
import { readFile } from 'node:fs/promises';
import sharp, { type OutputInfo, type Sharp } from 'sharp';
import { Unusable } from '../../train/data/videoindex.ts';
import type { Frame } from '../../train/vbench/footage.ts';
import { isBmp, readBmp } from './bmp.ts';

/** What stands behind transparent parts of a picture, wherever one is read. */
const BEHIND = '#ffffff';

/** A file's pixels, still to be sized. @throws Unusable where it is no picture, another error where it cannot be opened */
export async function openStill(path: string, animated = false): Promise<Sharp> {
  const bytes = await readFile(path);
  if (!isBmp(bytes))
    return sharp(bytes, { animated, limitInputPixels: !animated, autoOrient: !animated }).flatten({
      background: BEHIND,
    });
  try {
    const { width, height, rgba } = readBmp(bytes);
    return sharp(rgba, { raw: { width, height, channels: 4 } }).flatten({ background: BEHIND });
  } catch (error) {
    throw new Unusable((error as Error).message, { cause: error });
  }
}

/** Its pixels, red, green, blue, or their brightness. @throws Unusable where the file is damaged */
export async function pixelsOf(
  image: Sharp,
  space: 'srgb' | 'b-w' = 'srgb',
): Promise<{ data: Uint8Array; info: OutputInfo }> {
  try {
    return await image.toColourspace(space).removeAlpha().raw().toBuffer({ resolveWithObject: true });
  } catch (error) {
    const why = (error as Error).message.split('\n')[0]!;
    if (/memory/i.test(why)) throw error;
    throw new Unusable(`it is no picture that can be read: ${why}`, { cause: error });
  }
}

export async function readStill(path: string): Promise<Frame> {
  const { data, info } = await pixelsOf(await openStill(path)).catch((error: Error) => {
    throw error instanceof Unusable ? new Unusable(`[read] ${path}: ${error.message}`, { cause: error }) : error;
  });
  return { width: info.width, height: info.height, data: new Uint8Array(data) };
}

/** Pictures that people bring, of any kind: upright, and what is transparent in them is white. */
import sharp, { type OutputInfo, type Sharp } from 'sharp';
import { readPlain } from '../../engine/host/plain.ts';
import { standIn } from '../../model/files/standin.ts';
import { Unusable } from '../../train/data/videoindex.ts';
import type { Frame } from '../../train/vbench/footage.ts';
import { isBmp, readBmp } from './bmp.ts';

/** What stands behind transparent parts of a picture, wherever one is read. */
const BEHIND = '#ffffff';

/** A few kilobytes can say that they are gigabytes of pixels: what is beyond these is none of a clip's. */
const [MOST_BYTES, MOST_PIXELS, MOST_FRAMES] = [2 ** 29, { still: 2 ** 26, animation: 2 ** 28 }, 10_000];

/** @throws Unusable, with the limit */
function refuseGiants(width: number, height: number, frames: number, kind: keyof typeof MOST_PIXELS): void {
  const size = `it is ${width}x${height} pixels${kind === 'still' ? '' : `, ${frames} frames`}`;
  if (frames > MOST_FRAMES) throw new Unusable(`${size}: at most ${MOST_FRAMES} frames are read, cut it into parts`);
  if (width * height * frames > MOST_PIXELS[kind])
    throw new Unusable(`${size}: at most ${MOST_PIXELS[kind] / 2 ** 20} million pixels are read, make it smaller`);
}

/** A file's pixels, still to be sized. @throws Unusable where it is no picture or too large, another error where it cannot be opened */
export async function openStill(path: string, animated = false): Promise<Sharp> {
  const bytes = readPlain(path, MOST_BYTES);
  const other = standIn(bytes);
  if (other !== undefined) throw new Unusable(other);
  if (!isBmp(bytes)) {
    const input = { animated, autoOrient: !animated };
    const {
      width,
      height,
      pages = 1,
      pageHeight = height,
    } = await sharp(bytes, { ...input, limitInputPixels: false })
      .metadata()
      .catch(unreadable);
    refuseGiants(width, pageHeight, animated ? pages : 1, animated ? 'animation' : 'still');
    return sharp(bytes, { ...input, limitInputPixels: false }).flatten({ background: BEHIND });
  }
  try {
    const { width, height, rgba } = readBmp(bytes);
    refuseGiants(width, height, 1, 'still');
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
    return unreadable(error as Error);
  }
}

function unreadable(error: Error): never {
  const why = error.message.split('\n')[0]!;
  if (/memory/i.test(why)) throw error;
  throw new Unusable(`it is no picture that can be read: ${why}`, { cause: error });
}

export async function readStill(path: string): Promise<Frame> {
  const { data, info } = await openStill(path)
    .then((image) => pixelsOf(image))
    .catch((error: Error) => {
      throw error instanceof Unusable ? new Unusable(`[read] ${path}: ${error.message}`, { cause: error }) : error;
    });
  return { width: info.width, height: info.height, data: new Uint8Array(data) };
}

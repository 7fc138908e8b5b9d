/** Video frames and drawings on one RGBA picture, and its way into a file through sharp. */
import sharp from 'sharp';
import type { ClipShape } from '../../train/data/frames.ts';

const LOSSY_QUALITY = 92; // of 100

/** A clip [channels, frames, height, width] in [-1, 1]; one channel is grey, three are RGB. */
export interface Video {
  readonly data: Float32Array;
  readonly shape: ClipShape;
}

/** Pages of equal size below one another: a still picture has one, an animation one a frame. */
export class Picture {
  readonly pixels: Uint8Array;
  readonly width: number;
  readonly height: number;
  readonly pages: number;

  /** @param background RGBA of every pixel; fully transparent unless given */
  constructor(
    width: number,
    height: number,
    pages = 1,
    background: readonly [number, number, number, number] = [0, 0, 0, 0],
  ) {
    this.width = width;
    this.height = height;
    this.pages = pages;
    this.pixels = new Uint8Array(width * height * pages * 4);
    for (let i = 0; i < this.pixels.length; i++) this.pixels[i] = background[i % 4]!;
  }

  /** Puts frame t of a clip on a page with its corner at (left, top), every pixel as a square of `scale` px. */
  frame(
    { data, shape: [channels, frames, height, width] }: Video,
    t: number,
    { left, top, scale, page = 0 }: { left: number; top: number; scale: number; page?: number },
  ): void {
    for (let y = 0; y < Math.floor(height * scale); y++) {
      for (let x = 0; x < Math.floor(width * scale); x++) {
        const to = 4 * ((page * this.height + top + y) * this.width + left + x);
        for (let k = 0; k < 3; k++) {
          const v =
            data[
              (((channels === 3 ? k : 0) * frames + t) * height + Math.floor(y / scale)) * width + Math.floor(x / scale)
            ]!;
          this.pixels[to + k] = Math.round(255 * Math.min(1, Math.max(0, (v + 1) / 2)));
        }
        this.pixels[to + 3] = 255;
      }
    }
  }

  /** Draws SVG elements over every page; units are px. */
  async draw(elements: string): Promise<void> {
    const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="${this.width}" height="${this.height}">${elements}</svg>`;
    const ink = await sharp(Buffer.from(svg)).ensureAlpha().raw().toBuffer();
    for (let i = 0; i < this.pixels.length; i += 4) {
      const from = i % ink.length;
      const over = ink[from + 3]! / 255;
      if (over === 0) continue;
      const under = (this.pixels[i + 3]! / 255) * (1 - over);
      for (let k = 0; k < 3; k++)
        this.pixels[i + k] = Math.round((ink[from + k]! * over + this.pixels[i + k]! * under) / (over + under));
      this.pixels[i + 3] = Math.round(255 * (over + under));
    }
  }

  /**
   * The file's bytes, without loss where the format can (GIF has 256 colours).
   * @param delays ms a page, for more than one
   * @param lossless WebP only: false takes its lossy form, as photographs want it
   */
  async encode(format: 'png' | 'webp' | 'gif', delays: number[] = [], lossless = true): Promise<Buffer> {
    const image = sharp(this.pixels, {
      raw: {
        width: this.width,
        height: this.height * this.pages,
        channels: 4,
        ...(this.pages > 1 && { pageHeight: this.height }),
      },
      limitInputPixels: false,
    });
    if (format === 'png') return image.png({ compressionLevel: 9 }).toBuffer();
    if (format === 'gif') return image.gif({ loop: 0, delay: delays }).toBuffer();
    return image.webp({ ...(lossless ? { lossless } : { quality: LOSSY_QUALITY }), loop: 0, delay: delays }).toBuffer();
  }
}

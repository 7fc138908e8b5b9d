/** Windows bitmaps, which sharp does not read: uncompressed, of 1, 4, 8, 16, 24 or 32 bits a pixel. */

interface Bitmap {
  width: number;
  height: number;
  /** [height, width, 4], red first. */
  rgba: Uint8Array;
}

const LARGEST = 2 ** 28; // pixels

export const isBmp = (bytes: Uint8Array): boolean => bytes[0] === 0x42 && bytes[1] === 0x4d; // "BM"

const RGB = 0;
const BITFIELDS = [3, 6];
/** Of 16 bits five each, of 32 eight each; without alpha. */
const USUAL: Record<number, readonly number[]> = { 16: [0x7c00, 0x3e0, 0x1f, 0], 32: [0xff0000, 0xff00, 0xff, 0] };

/** The bits of a mask as 0 to 255. */
function channel(mask: number): (pixel: number) => number {
  if (!mask) return () => 255;
  const shift = 31 - Math.clz32(mask & -mask);
  const most = mask >>> shift;
  return (pixel) => Math.round((255 * ((pixel & mask) >>> shift)) / most);
}

/** Source: BITMAPFILEHEADER, BITMAPINFOHEADER and BITMAPV4HEADER of the Windows SDK. @throws why it cannot be read */
export function readBmp(bytes: Uint8Array): Bitmap {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < 54) throw new Error(`has ${bytes.length} bytes, a bitmap's headers take 54`);
  const [start, header] = [view.getUint32(10, true), view.getUint32(14, true)];
  const [width, tall] = [view.getInt32(18, true), view.getInt32(22, true)];
  const [bits, compression] = [view.getUint16(28, true), view.getUint32(30, true)];
  const height = Math.abs(tall);
  if (header < 40 || width <= 0 || !height || width * height > LARGEST)
    throw new Error(`is a bitmap of ${width}x${height} with a header of ${header} bytes: convert it to .png`);
  if (![1, 4, 8, 16, 24, 32].includes(bits) || (compression !== RGB && !BITFIELDS.includes(compression)))
    throw new Error(`is a compressed bitmap (${bits} bits, method ${compression}): convert it to .png`);
  const row = Math.ceil((width * bits) / 32) * 4;
  if (start + row * height > bytes.length)
    throw new Error(
      `is cut short: its ${width}x${height} pixels end at byte ${start + row * height} of ${bytes.length}`,
    );
  const given = BITFIELDS.includes(compression);
  const masks = given
    ? [54, 58, 62, 66].map((at, i) => (i < 3 || header >= 56 ? view.getUint32(at, true) : 0))
    : (USUAL[bits] ?? []);
  const channels = masks.map(channel);
  const palette = 14 + header;
  const rgba = new Uint8Array(4 * width * height).fill(255);
  for (let y = 0; y < height; y++) {
    const line = start + row * (tall < 0 ? y : height - 1 - y); // bottom up, unless the height is negative
    for (let x = 0; x < width; x++) {
      const to = 4 * (y * width + x);
      if (bits <= 8) {
        const per = 8 / bits;
        const byte = bytes[line + Math.floor(x / per)]!;
        const index = (byte >> (8 - bits * ((x % per) + 1))) & (2 ** bits - 1);
        for (let k = 0; k < 3; k++) rgba[to + k] = bytes[palette + 4 * index + 2 - k]!;
      } else if (bits === 24) for (let k = 0; k < 3; k++) rgba[to + k] = bytes[line + 3 * x + 2 - k]!;
      else {
        const pixel = bits === 16 ? view.getUint16(line + 2 * x, true) : view.getUint32(line + 4 * x, true);
        channels.forEach((of, k) => (rgba[to + k] = of(pixel)));
      }
    }
  }
  return { width, height, rgba };
}

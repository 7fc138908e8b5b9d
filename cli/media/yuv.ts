/** RGBA frames as I420 of BT.709 in its limited range: a plane of brightness, and two of colour at half its size. */

/** ITU-R BT.709 §3.3; brightness is 16 to 235, colour 16 to 240. */
const [RED, GREEN, BLUE] = [0.2126, 0.7152, 0.0722];

/** @param rgba [height, width, 4]. Colour is the mean of each square of four pixels */
export function toI420(rgba: Uint8Array, width: number, height: number): Uint8Array {
  const [w, h] = [Math.ceil(width / 2), Math.ceil(height / 2)];
  const out = new Uint8Array(width * height + 2 * w * h);
  const mean = (k: number, x: number, y: number): number => {
    const at = (i: number, j: number) =>
      rgba[4 * (Math.min(y + j, height - 1) * width + Math.min(x + i, width - 1)) + k]!;
    return (at(0, 0) + at(1, 0) + at(0, 1) + at(1, 1)) / 4;
  };
  const bright = (r: number, g: number, b: number): number => RED * r + GREEN * g + BLUE * b;
  for (let i = 0; i < width * height; i++)
    out[i] = Math.round(16 + (219 / 255) * bright(rgba[4 * i]!, rgba[4 * i + 1]!, rgba[4 * i + 2]!));
  for (let y = 0; y < h; y++) {
    for (let x = 0; x < w; x++) {
      const [r, g, b] = [mean(0, 2 * x, 2 * y), mean(1, 2 * x, 2 * y), mean(2, 2 * x, 2 * y)];
      const to = width * height + y * w + x;
      out[to] = Math.round(128 + (112 / 255) * ((b - bright(r, g, b)) / (1 - BLUE)));
      out[to + w * h] = Math.round(128 + (112 / 255) * ((r - bright(r, g, b)) / (1 - RED)));
    }
  }
  return out;
}

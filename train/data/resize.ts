/** Square pictures made smaller. */

/**
 * Area-averaged resize of one plane [from, from] to [to, to]; values are divided by `range`. Separable: each pixel covers from/to pixels
 * along an axis.
 */
export function areaResize(plane: ArrayLike<number>, from: number, to: number, range = 1): Float32Array {
  const cover = (o: number, i: number): number =>
    Math.max(0, Math.min((o + 1) * (from / to), i + 1) - Math.max(o * (from / to), i));
  const rows = new Float32Array(from * to);
  for (let y = 0; y < from; y++) {
    for (let o = 0; o < to; o++) {
      for (let x = Math.floor((o * from) / to); x < Math.min(from, ((o + 1) * from) / to); x++)
        rows[y * to + o]! += cover(o, x) * plane[y * from + x]!;
    }
  }
  const out = new Float32Array(to * to);
  const area = range * (from / to) ** 2;
  for (let o = 0; o < to; o++) {
    for (let y = Math.floor((o * from) / to); y < Math.min(from, ((o + 1) * from) / to); y++) {
      for (let x = 0; x < to; x++) out[o * to + x]! += (cover(o, y) * rows[y * to + x]!) / area;
    }
  }
  return out;
}

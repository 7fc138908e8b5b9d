/** Overlapping windows over the height and width of [C,T,H,W], and how they are cut out and blended together again. */
import { host, type HostTensor } from '../../engine/frontend/tree.ts';

/** Of its edge, how much of a tile its neighbour repeats at least. Diffusers' tiles of 256 pixels overlap by 64. */
const OVERLAP = 1 / 4;

/** One window: its corner, and for each of its rows and columns the share that it has in the whole. */
export interface Tile {
  readonly top: number;
  readonly left: number;
  readonly rows: Float32Array;
  readonly columns: Float32Array;
}

interface Window {
  readonly start: number;
  readonly shares: Float32Array;
}

/**
 * Windows of equal length over 0 … length-1, evenly spread. Where two meet, over the first quarter of the later one, its share rises
 * linearly from 0 and the other's falls; the shares of all windows add up to 1 everywhere.
 */
function windows(length: number, edge: number, scale: number): Window[] {
  if (edge >= length) return [{ start: 0, shares: new Float32Array(length * scale).fill(1) }];
  const ramp = Math.max(1, Math.floor(edge * OVERLAP));
  const count = Math.ceil((length - ramp) / (edge - ramp));
  const starts = Array.from({ length: count }, (_, i) => scale * Math.round((i * (length - edge)) / (count - 1)));
  const rise = (i: number, at: number): number =>
    i === 0 ? 1 : i === count ? 0 : Math.min(1, Math.max(0, (at - starts[i]!) / (ramp * scale)));
  return starts.map((start, i) => ({
    start,
    shares: Float32Array.from({ length: edge * scale }, (_, j) => rise(i, start + j) * (1 - rise(i + 1, start + j))),
  }));
}

/**
 * Square tiles with an edge of `edge` cells over height x width; one tile when it covers all. A share is a row's times a column's.
 * @param scale the same tiles over a grid that is so many times as fine
 */
export const layTiles = (height: number, width: number, edge: number, scale = 1): Tile[] =>
  windows(height, edge, scale).flatMap((v) =>
    windows(width, edge, scale).map((h) => ({ top: v.start, left: h.start, rows: v.shares, columns: h.shares })),
  );

/** The tile's window of x [C,T,H,W]. */
export function cut(x: HostTensor, { top, left, rows, columns }: Tile): HostTensor {
  const [c, t, h, w] = x.shape as [number, number, number, number];
  if (rows.length === h && columns.length === w) return x;
  const out = new Float32Array(c * t * rows.length * columns.length);
  for (let i = 0, to = 0; i < c * t; i++) {
    for (let y = 0; y < rows.length; y++, to += columns.length) {
      const from = (i * h + top + y) * w + left;
      out.set((x.data as Float32Array).subarray(from, from + columns.length), to);
    }
  }
  return host(out, [c, t, rows.length, columns.length]);
}

/** Adds a tile's values [C,T,rows,columns], by their shares, to `whole` [C,T,H,W] from frame `first` on. */
export function blend(whole: HostTensor, part: HostTensor, { top, left, rows, columns }: Tile, first = 0): void {
  const [, frames, h, w] = whole.shape as [number, number, number, number];
  const [c, t] = part.shape as [number, number];
  let from = 0;
  for (let i = 0; i < c * t; i++) {
    const frame = Math.floor(i / t) * frames + first + (i % t);
    for (let y = 0; y < rows.length; y++) {
      const to = (frame * h + top + y) * w + left;
      for (let x = 0; x < columns.length; x++) whole.data[to + x]! += rows[y]! * columns[x]! * part.data[from++]!;
    }
  }
}

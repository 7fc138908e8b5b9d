/** A video as it is judged: RGB bytes, as any file is decoded; and its resizing as torchvision does it. */
import { cubic } from '../../model/clip/resize.ts';
import type { ClipShape } from '../data/frames.ts';

export interface Footage {
  width: number;
  height: number;
  /** Frames a second. */
  fps: number;
  /** [height, width, 3] each, red first. */
  frames: readonly Uint8Array[];
}

export type Frame = Pick<Footage, 'width' | 'height'> & { data: Uint8Array };

export const frameAt = ({ width, height, frames }: Footage, t: number): Frame => ({ width, height, data: frames[t]! });

/** A clip [channels, frames, height, width] in [-1, 1] as it would be written to a file. */
export function footageOf(video: Float32Array, [channels, count, height, width]: ClipShape, fps: number): Footage {
  const plane = height * width;
  const frames = Array.from({ length: count }, (_, t) => {
    const data = new Uint8Array(3 * plane);
    for (let i = 0; i < plane; i++) {
      for (let k = 0; k < 3; k++)
        data[3 * i + k] = Math.round(
          127.5 * (1 + Math.min(1, Math.max(-1, video[((channels === 3 ? k : 0) * count + t) * plane + i]!))),
        );
    }
    return data;
  });
  return { width, height, fps, frames };
}

/** Interpolation kernels: value at distance d, and how far they reach. `cubic` has PyTorch's coefficient for tensors, `pillow` Pillow's. */
const KERNELS = {
  linear: { reach: 1, at: (d: number) => Math.max(0, 1 - d) },
  cubic: { reach: 2, at: (d: number) => cubic(d) },
  pillow: { reach: 2, at: (d: number) => cubic(d, -0.5) },
};
export type Kernel = keyof typeof KERNELS;

/**
 * Sources and weights of each of `to` results from `from` sources.
 * @param antialias widens the kernel where it shrinks, as Pillow does; sources beyond an edge are left out then, else they fall on it
 */
function taps(from: number, to: number, kernel: Kernel, antialias: boolean): [source: number, weight: number][][] {
  const scale = from / to;
  const { reach, at } = KERNELS[kernel];
  const wide = antialias ? Math.max(1, scale) : 1;
  return Array.from({ length: to }, (_, i) => {
    const centre = (i + 0.5) * scale - 0.5;
    const found: [number, number][] = [];
    for (let s = Math.ceil(centre - reach * wide); s <= Math.floor(centre + reach * wide); s++) {
      if (antialias && (s < 0 || s >= from)) continue;
      const weight = at(Math.abs(s - centre) / wide);
      if (weight !== 0) found.push([Math.min(from - 1, Math.max(0, s)), weight]);
    }
    const sum = found.reduce((a, [, w]) => a + w, 0);
    return found.map(([s, w]) => [s, w / sum]);
  });
}

/** Resizes to bytes again, rounded, as torchvision does with byte tensors. */
export function resize(
  { width, height, data }: Frame,
  toWidth: number,
  toHeight: number,
  kernel: Kernel,
  antialias: boolean,
): Frame {
  const columns = taps(width, toWidth, kernel, antialias);
  const rows = taps(height, toHeight, kernel, antialias);
  const narrow = new Float32Array(height * toWidth * 3);
  for (let y = 0; y < height; y++) {
    columns.forEach((some, x) => {
      for (const [s, w] of some)
        for (let k = 0; k < 3; k++) narrow[(y * toWidth + x) * 3 + k]! += w * data[(y * width + s) * 3 + k]!;
    });
  }
  const out = new Uint8Array(toHeight * toWidth * 3);
  const line = new Float32Array(toWidth * 3);
  rows.forEach((some, y) => {
    line.fill(0);
    for (const [s, w] of some) for (let i = 0; i < line.length; i++) line[i]! += w * narrow[s * line.length + i]!;
    for (let i = 0; i < line.length; i++) out[y * line.length + i] = Math.min(255, Math.max(0, Math.round(line[i]!)));
  });
  return { width: toWidth, height: toHeight, data: out };
}

/** Shorter side to `size`, the other in proportion (cut to whole pixels). */
export function resizeShorter(frame: Frame, size: number, kernel: Kernel, antialias: boolean): Frame {
  const { width, height } = frame;
  const longer = Math.trunc((size * Math.max(width, height)) / Math.min(width, height));
  return width <= height
    ? resize(frame, size, longer, kernel, antialias)
    : resize(frame, longer, size, kernel, antialias);
}

/** The middle of a frame. */
export function centreCrop({ width, height, data }: Frame, size: number): Frame {
  const [left, top] = [Math.round((width - size) / 2), Math.round((height - size) / 2)];
  const out = new Uint8Array(size * size * 3);
  for (let y = 0; y < size; y++)
    out.set(data.subarray(3 * ((top + y) * width + left), 3 * ((top + y) * width + left + size)), 3 * y * size);
  return { width: size, height: size, data: out };
}

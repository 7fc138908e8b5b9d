/** Follows the bright thing in a clip by its centroid: which of the eight directions it moves in, how fast, how evenly. */
import { DIRECTIONS, type Direction } from '../data/digits.ts';
import type { ClipShape } from '../data/frames.ts';

const FLOOR = 0.2; // brightness (0…1) below which a pixel counts as background, so that a grey haze doesn't pull the centroid
const STILL = 0.3; // px a frame

interface Track {
  /** Centroid (x, y) of each frame, px; undefined where nothing is brighter than the background. */
  readonly centroids: readonly (readonly [number, number] | undefined)[];
  /** Least-squares (x, y) velocity, px a frame; y points down. */
  readonly velocity: readonly [number, number];
  readonly direction: Direction | 'still';
  /** |velocity|, px a frame. */
  readonly speed: number;
  /** Root mean square distance of the centroids from the straight, even path, px. */
  readonly jitter: number;
}

/** Tracks a clip [channels, frames, height, width] in [-1, 1]; brightness is the mean over channels. */
export function track(video: Float32Array, [channels, frames, height, width]: ClipShape): Track {
  const plane = height * width;
  const centroids = Array.from({ length: frames }, (_, t): readonly [number, number] | undefined => {
    let mass = 0;
    let mx = 0;
    let my = 0;
    for (let i = 0; i < plane; i++) {
      let v = 0;
      for (let c = 0; c < channels; c++) v += video[(c * frames + t) * plane + i]!;
      const light = (v / channels + 1) / 2;
      if (!(light > FLOOR)) continue;
      mass += light;
      mx += light * (i % width);
      my += light * Math.floor(i / width);
    }
    return mass > 0 ? [mx / mass, my / mass] : undefined;
  });

  const seen = centroids.flatMap((p, t) => (p ? [[t, p[0], p[1]] as const] : []));
  const mean = (k: 0 | 1 | 2): number => seen.reduce((s, p) => s + p[k], 0) / Math.max(1, seen.length);
  const [t0, x0, y0] = [mean(0), mean(1), mean(2)];
  const spread = seen.reduce((s, p) => s + (p[0] - t0) ** 2, 0);
  const slope = (k: 1 | 2, centre: number): number =>
    spread > 0 ? seen.reduce((s, p) => s + (p[0] - t0) * (p[k] - centre), 0) / spread : 0;
  const [vx, vy] = [slope(1, x0), slope(2, y0)];
  const residual = seen.reduce((s, [t, x, y]) => s + (x - x0 - vx * (t - t0)) ** 2 + (y - y0 - vy * (t - t0)) ** 2, 0);

  const speed = Math.hypot(vx, vy);
  const eighth = Math.round(Math.atan2(vy, vx) / (Math.PI / 4));
  return {
    centroids,
    velocity: [vx, vy],
    direction: speed < STILL ? 'still' : DIRECTIONS[(eighth + 8) % 8]!,
    speed,
    jitter: Math.sqrt(residual / Math.max(1, seen.length)),
  };
}

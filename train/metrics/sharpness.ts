/** How sharp clips are: the energy of the Laplacian, which seams and noise raise and blur lowers. Told over real clips' as a ratio. */
import type { ClipShape } from '../data/frames.ts';

/** Mean over channels, frames and inner pixels of (4 x - its four neighbours)², for a clip in [-1, 1]. */
export function laplacianEnergy(video: Float32Array, [channels, frames, height, width]: ClipShape): number {
  let sum = 0;
  for (let plane = 0; plane < channels * frames; plane++) {
    for (let y = 1; y < height - 1; y++) {
      for (let x = 1; x < width - 1; x++) {
        const i = (plane * height + y) * width + x;
        sum += (4 * video[i]! - video[i - 1]! - video[i + 1]! - video[i - width]! - video[i + width]!) ** 2;
      }
    }
  }
  return sum / (channels * frames * (height - 2) * (width - 2));
}

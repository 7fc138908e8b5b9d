/** Single frames out of clips, cut to a square: what a video VAE learns on before it sees motion. */
import { Stream } from '../loop/rng.ts';
import type { ClipShape } from './frames.ts';

/** A random frame of a clip at a random place. @returns [channels, 1, size, size] */
export function still(video: Float32Array, [channels, frames, height, width]: ClipShape, size: number, random: Stream) {
  const [t, top, left] = [random.int(frames), random.int(height - size + 1), random.int(width - size + 1)];
  const out = new Float32Array(channels * size * size);
  for (let c = 0; c < channels; c++)
    for (let y = 0; y < size; y++) {
      const from = ((c * frames + t) * height + top + y) * width + left;
      out.set(video.subarray(from, from + size), (c * size + y) * size);
    }
  return out;
}

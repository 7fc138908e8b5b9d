/** Squares cut out of clips, and out of single frames of them: what a video VAE learns on at less cost than whole clips. */
import type { Stream } from '../loop/rng.ts';
import type { ClipShape } from './frames.ts';

/**
 * The same random square of each of a clip's frames, or of a random one alone.
 * @returns [channels, frames or 1, size, size]
 */
export function crop(
  video: Float32Array,
  [channels, frames, height, width]: ClipShape,
  { size, still = false }: { size: number; still?: boolean },
  random: Stream,
): Float32Array {
  const first = still ? random.int(frames) : 0;
  const count = still ? 1 : frames;
  const [top, left] = [random.int(height - size + 1), random.int(width - size + 1)];
  const out = new Float32Array(channels * count * size * size);
  for (let c = 0; c < channels; c++)
    for (let t = 0; t < count; t++)
      for (let y = 0; y < size; y++) {
        const from = ((c * frames + first + t) * height + top + y) * width + left;
        out.set(video.subarray(from, from + size), ((c * count + t) * size + y) * size);
      }
  return out;
}

/**
 * A space of textures: what fixed random filters answer at places of two consecutive frames, positive answers only. Nothing of it was
 * trained, so it prefers no content; a Fréchet distance in it sees blur, seams, wrong colours and flicker.
 */
import type { ClipShape } from '../data/frames.ts';
import { Stream } from '../loop/rng.ts';

export const TEXTURE_FEATURES = 48;
const SIDE = 5; // px of a filter
const TIME = 2; // frames
const APART = 3; // px between places: no divisor of a latent's grid of 4, so that its seams meet the filters everywhere

/** [48][channels · 2 · 5 · 5]: normal, of mean 0 and length 1. */
function filters(channels: number): Float32Array[] {
  return Array.from({ length: TEXTURE_FEATURES }, (_, k) => {
    const random = new Stream(0, k, 'texture.filters');
    const taps = Array.from({ length: channels * TIME * SIDE * SIDE }, () => random.normal());
    const mean = taps.reduce((a, b) => a + b, 0) / taps.length;
    const length = Math.sqrt(taps.reduce((s, v) => s + (v - mean) ** 2, 0));
    return Float32Array.from(taps, (v) => (v - mean) / length);
  });
}
const known = new Map<number, Float32Array[]>();

/** Rows [places, 48] of a clip [channels, frames, height, width] in [-1, 1]. */
export function textureFeatures(video: Float32Array, [channels, frames, height, width]: ClipShape): Float32Array {
  const bank = known.get(channels) ?? filters(channels);
  known.set(channels, bank);
  const rows: number[] = [];
  const patch = new Float32Array(channels * TIME * SIDE * SIDE);
  for (let t = 0; t + TIME <= frames; t++) {
    for (let y = 0; y + SIDE <= height; y += APART) {
      for (let x = 0; x + SIDE <= width; x += APART) {
        let at = 0;
        for (let c = 0; c < channels; c++)
          for (let dt = 0; dt < TIME; dt++)
            for (let dy = 0; dy < SIDE; dy++) {
              const from = ((c * frames + t + dt) * height + y + dy) * width + x;
              for (let dx = 0; dx < SIDE; dx++) patch[at++] = video[from + dx]!;
            }
        for (const filter of bank) {
          let sum = 0;
          for (let i = 0; i < patch.length; i++) sum += filter[i]! * patch[i]!;
          rows.push(Math.max(0, sum));
        }
      }
    }
  }
  return Float32Array.from(rows);
}

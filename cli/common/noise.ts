/** Made-up data in place of a data set, for what counts and times training steps. */
import { host, type HostTensor } from '../../engine/tree.ts';
import { numel } from '../../kernels/kernel.ts';
import { latentShape } from '../../train/conditions.ts';
import { DIRECTIONS, captionOf } from '../../train/data/digits.ts';
import type { Shards } from '../../train/data/shards.ts';
import type { Preset } from '../../train/presets/index.ts';
import { Stream } from '../../train/rng.ts';

/** Standard normals. */
export function noise(shape: readonly number[], seed = 0): HostTensor {
  const random = new Stream(seed, 0, 'noise');
  return host(Float32Array.from({ length: numel(shape) }, () => random.normal()), shape);
}

const caption = (i: number): string => captionOf(i % 10, DIRECTIONS[i % 8]!);

/** Latents of noise in place of a data set. */
export function noiseShards(p: Preset): Shards {
  const records = (numbers: ArrayLike<number>) => ({
    latent: noise([numbers.length, ...latentShape(p)], 1), imageLatent: noise([numbers.length, ...latentShape(p)], 2),
    firstFrame: noise([numbers.length, p.vae.channels, p.data.size, p.data.size], 3),
    captions: Array.from(numbers, caption), meta: [],
  });
  return { count: p.data.trainClips, made: 'noise', records, batch: (_seed, step, size) => records(Array.from({ length: size }, (_, i) => step + i)) };
}

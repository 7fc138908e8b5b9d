/** Made-up data in place of a data set, for what counts and times training steps. */
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { numel } from '../../kernels/kernel.ts';
import { latentShape } from '../../train/methods/conditions.ts';
import { DIRECTIONS, captionOf } from '../../train/data/digits.ts';
import type { Shards } from '../../train/data/shards.ts';
import type { Preset } from '../../train/presets/index.ts';
import { Stream } from '../../train/loop/rng.ts';

/** Standard normals. */
export function noise(shape: readonly number[], seed = 0): HostTensor {
  const random = new Stream(seed, 0, 'noise');
  return host(
    Float32Array.from({ length: numel(shape) }, () => random.normal()),
    shape,
  );
}

const caption = (i: number): string => captionOf(i % 10, DIRECTIONS[i % 8]!);

/** Latents of noise in place of a data set, drawn once a batch size: drawing takes longer than reading records would. */
export function noiseShards(p: Preset): Shards {
  const draw = (count: number) => ({
    latent: noise([count, ...latentShape(p)], 1),
    imageLatent: noise([count, ...latentShape(p)], 2),
    firstFrame: noise([count, p.vae.channels, p.data.size, p.data.size], 3),
  });
  const drawn = new Map<number, ReturnType<typeof draw>>();
  const records = (numbers: ArrayLike<number>) => {
    const { length } = numbers;
    if (!drawn.has(length)) drawn.set(length, draw(length));
    return { ...drawn.get(length)!, captions: Array.from(numbers, caption), meta: [] };
  };
  return {
    count: p.data.trainClips,
    made: 'noise',
    records,
    batch: (_seed, step, size) => records(Array.from({ length: size }, (_, i) => step + i)),
  };
}

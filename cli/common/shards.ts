/** Precomputes a run's latents under a progress bar; what is there already stays. */
import type { Shards } from '../../train/data/shards.ts';
import { precompute } from '../../train/pipeline.ts';
import type { Work } from '../../train/work.ts';
import { meter, type Meter } from './progress.ts';

export async function makeShards(work: Work & { vae: string }): Promise<Shards> {
  let shown: Meter | undefined;
  try {
    return await precompute({
      ...work,
      onClips(done, total) {
        shown ??= meter('latents', { unit: 'clips', total, from: done, memory: () => work.device.allocated });
        shown.at(done);
      },
    });
  } finally {
    shown?.end();
  }
}

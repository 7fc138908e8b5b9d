/**
 * First frames for who gives none: eight of held-out digits for every caption, in a file beside the bundle, so that sampling needs no
 * MNIST. They are the data set's own, bit for bit. One tensor a caption: [8, channels, height, width] in [-1, 1].
 */
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { openWeights } from '../../model/files/open.ts';
import { canonical } from '../loop/canonical.ts';
import type { Preset } from '../presets/index.ts';

/** Handwritings of each caption. */
export const FRAMES_EACH = 8;

/** What the frames depend on, as it stands in the file's metadata; undefined for another data set. */
export function originOf({ seed, data }: Preset): string | undefined {
  if (data.set !== undefined && data.set !== 'digits') return undefined;
  const { size, frames, sprite, speed } = data;
  return canonical({ seed, size, frames, sprite, speed });
}

/** Other handwriting for each seed, eight in turn. undefined where the file was made for another data set, or has no such caption. */
export async function firstFrame(
  path: string,
  preset: Preset,
  caption: string,
  seed: number,
): Promise<HostTensor | undefined> {
  const file = await openWeights(path);
  try {
    if (file.metadata['origin'] !== originOf(preset) || !file.entries.has(caption)) return undefined;
    const { data, shape } = await file.rows(caption, [seed % FRAMES_EACH]);
    return host(data, shape.slice(1));
  } finally {
    await file.close();
  }
}

/** Shards of a preset's latents as items of a farm: an item is a shard's number. */
import { z } from 'zod';
import { checkPreset, type Preset } from '../../train/presets/index.ts';
import { loadVAE } from '../../train/loop/models.ts';
import { makeShard } from '../../train/data/shards.ts';
import { clipEncoder, collectShards } from '../../train/pipeline.ts';
import { here } from '../../train/spread.ts';
import { fileSchema } from '../farm/files.ts';
import type { Farm } from '../farm/farm.ts';
import { kindOf } from '../farm/kinds.ts';

export const LATENTS = kindOf({
  settings: z.strictObject({ preset: z.unknown().transform((p): Preset => checkPreset(p)), vae: fileSchema }),
  item: z.int().nonnegative().max(1e6),
  together: 1,
  async open({ preset, vae }, { device, signal, inputs, scratch }) {
    const model = await loadVAE(await inputs.file(vae));
    const { recipe, close } = clipEncoder({ device, preset, out: scratch, signal }, model);
    return { spread: here((shard: number) => makeShard(recipe, shard)), close };
  },
});

/** Has the missing shards of a run made by a farm. @returns how many clips there are, and what made them */
export async function farmShards(farm: Farm, { preset, out, vae }: { preset: Preset; out: string; vae: string }) {
  const settings = { preset, vae: await farm.files.file(vae) };
  return collectShards(
    { preset, out, vae: await loadVAE(vae) },
    farm.spread({ kind: 'latents', settings, unit: 'shards', name: (shard: number) => `shard ${shard}` }),
  );
}

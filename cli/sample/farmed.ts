/** Clips as items of a farm: an item is what one is made of, its result the file. */
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { extname, join } from 'node:path';
import { z } from 'zod';
import { fileSchema, folderSchema, type FolderRef } from '../farm/files.ts';
import type { Farm } from '../farm/farm.ts';
import { kindOf } from '../farm/kinds.ts';
import { loraParts } from '../common/lora.ts';
import { MOST_SEED } from '../common/options.ts';
import { PRECISIONS } from '../../model/pipeline/precision.ts';
import { makeClips, prepareClips, type How } from './clips.ts';
import type { Wanted } from './jobs.ts';
import { openSource, type Source, type Which } from './wan.ts';

const TOGETHER = 16; // clips that share one reading of the model
const text = z.string().max(20_000);
const number = z.number().optional();

const settingsSchema = z.strictObject({
  model: folderSchema,
  lora: z.array(
    z.strictObject({
      expert: z.enum(['high', 'low', 'both']).optional(),
      file: fileSchema,
      strength: z.string().max(40).optional(),
    }),
  ),
  weights: z.array(text),
  teacher: z.boolean(),
  student: z.boolean(),
  dtype: z.enum(['f32', 'f16', 'bf16']).optional(),
  precision: z.enum(PRECISIONS).optional(),
  offload: z.boolean().optional(),
  memory: text.optional(),
  size: text.optional(),
  frames: number,
  steps: number,
  sampler: z.enum(['unipc', 'dpm++', 'euler']).optional(),
  shift: number,
  'guidance-scale': number,
  'guidance-scale-2': number,
  fps: number,
  tile: number,
});

const itemSchema = z.strictObject({
  prompt: text,
  negative: text.optional(),
  seed: z.int().nonnegative().max(MOST_SEED),
  image: fileSchema.optional(),
  lastImage: fileSchema.optional(),
  ending: z.string().regex(/^\.\w{1,8}$/),
});
type Item = z.infer<typeof itemSchema>;

export const CLIPS = kindOf({
  settings: settingsSchema,
  item: itemSchema,
  together: TOGETHER,
  async open({ model, lora, ...rest }, { device, signal, inputs, scratch }) {
    const asked: string[] = [];
    for (const { expert, file, strength } of lora)
      asked.push([expert, await inputs.file(file), strength].filter(Boolean).join(':'));
    const which = { ...rest, model: await inputs.folder(model), lora: asked, tune: false };
    const source = await openSource(which);
    return {
      async spread(items: readonly Item[], keep) {
        const todo: Wanted[] = [];
        for (const [i, { ending, image, lastImage, ...item }] of items.entries())
          todo.push({
            ...item,
            image: image && (await inputs.file(image)),
            lastImage: lastImage && (await inputs.file(lastImage)),
            out: join(scratch, `${i}${ending}`),
          });
        await makeClips(
          await prepareClips(which, source, todo),
          todo.map((_, i) => i),
          {
            device,
            signal,
            progress: () => {},
            async made(wanted) {
              const bytes = readFileSync(wanted.out);
              rmSync(wanted.out);
              await keep(todo.indexOf(wanted), new Uint8Array(bytes));
            },
          },
        );
      },
      close: () => Promise.resolve(),
    };
  },
});

/** The parts of a folder that clips are made by. */
function partsOf(farm: Farm, { model, teacher }: Which, { released }: Source): Promise<FolderRef> {
  if (released) return farm.files.folder(model);
  const names = [`${teacher ? 'teacher' : 'student'}.safetensors`, 'vae.safetensors'];
  return farm.files.folder(
    model,
    names.filter((name) => existsSync(join(model, name))),
  );
}

/** Has clips made by a farm. @param place told of every clip's file as it comes */
export async function farmClips(
  farm: Farm,
  { args, source, todo }: { args: How & Which; source: Source; todo: readonly Wanted[] },
  place: (wanted: Wanted, file: Uint8Array) => void,
): Promise<void> {
  const lora = [];
  for (const asked of args.lora) {
    const { file, ...rest } = loraParts(asked);
    lora.push({ ...rest, file: await farm.files.file(file) });
  }
  const known = Object.keys(settingsSchema.shape).filter((name) => Object.hasOwn(args, name));
  const plain = Object.fromEntries(known.map((name) => [name, args[name as keyof typeof args]]));
  const items: Item[] = [];
  for (const { prompt, negative, seed, image, lastImage, out } of todo)
    items.push({
      prompt,
      negative,
      seed,
      image: image === undefined ? undefined : await farm.files.file(image),
      lastImage: lastImage === undefined ? undefined : await farm.files.file(lastImage),
      ending: extname(out).toLowerCase(),
    });
  const settings = { ...plain, model: await partsOf(farm, args, source), lora };
  const spread = farm.spread({ kind: 'clips', settings, unit: 'clips', name: (item: Item) => `"${item.prompt}"` });
  await spread(items, (at, bytes) => place(todo[at]!, bytes));
}

/**
 * A folder with a whole model of Wan's, as downloaded: in the layout of its own releases, or in Diffusers'. Every part's numbers are known
 * at once; its weights are opened when asked for, under Wan's names.
 */
import { basename, dirname, exists, isFolder, join, list, readTextFile } from '../../engine/host/files.ts';
import { clipShapes, usedClipShapes } from '../clip/clip.ts';
import type { CLIPConfig } from '../clip/config.ts';
import { hasBeside, readsImages, type DiTConfig, type VAEConfig } from '../config.ts';
import { FAMILIES, familyOf, type Family } from '../families/index.ts';
import type { Layout } from '../schedulers/index.ts';
import type { UMT5Config } from '../umt5/config.ts';
import { umt5Shapes } from '../umt5/umt5.ts';
import { ditShapes } from '../wan/dit.ts';
import { vaeShapes } from '../wan/vae.ts';
import {
  clipConfigOf,
  diffusersDiTConfig,
  diffusersVAEConfig,
  imagesOf,
  transformersCLIPConfig,
  transformersUMT5Config,
  umt5ConfigOf,
  vaeConfigOf,
  wanDiT,
  type Json,
} from './configs.ts';
import { checkFit, type Shapes } from './load.ts';
import {
  diffusersDiT,
  diffusersVAE,
  inOwnNames,
  llamaUMT5,
  OWN,
  prefixed,
  transformersCLIP,
  transformersUMT5,
  transformersUMT5Tied,
  wanCLIP,
  type Naming,
} from './names.ts';
import { openWeights } from './open.ts';
import { few, isObject, WeightsError, type Entry } from './stored.ts';
import { parseJson } from './json.ts';
import type { Weights } from './weights.ts';

/** One network of a checkpoint. */
export interface Part<C> {
  readonly config: C;
  /** Of the tensors it needs. */
  readonly shapes: Shapes;
  /** Its weights under Wan's names, checked against `shapes`; for the caller to close. */
  readonly open: () => Promise<Weights>;
}

export interface Checkpoint {
  readonly path: string;
  readonly layout: Layout;
  /** `dit.config.model_type` says whether it makes video of text, of a first, or of a first and a last frame. */
  readonly dit: Part<DiTConfig>;
  /** Of two experts the one for low noise, of the same numbers; `dit` is then the one for high noise. */
  readonly low?: Part<DiTConfig>;
  readonly family: Family;
  readonly vae: Part<VAEConfig>;
  readonly text: Part<UMT5Config>;
  /** Where the DiT takes images. */
  readonly image?: Part<CLIPConfig>;
  /** The text encoder's tokenizer.json. */
  readonly tokenizer: string;
  /** Shift of the time schedule, where the folder names one. */
  readonly flowShift?: number;
  /** Share of the timesteps below which the low-noise expert answers, where the folder names one. */
  readonly boundary?: number;
}

/** ComfyUI keeps Wan's names behind a prefix. */
export const DIT_NAMES: readonly Naming[] = [
  OWN,
  diffusersDiT,
  prefixed('model.diffusion_model.'),
  prefixed('diffusion_model.'),
];

function part<C>(
  path: string,
  stem: string,
  config: C,
  namings: readonly Naming[],
  { all: shapesOf, used = shapesOf }: { all: (config: C) => Shapes; used?: (config: C) => Shapes },
): Part<C> {
  const shapes = used(config);
  const open = async () => {
    const weights = inOwnNames(await openWeights(path, stem), shapesOf(config), namings);
    try {
      const needed = weights.with(
        (own) =>
          new Map([...own].filter(([name]) => Object.hasOwn(shapes, name) || !Object.hasOwn(shapesOf(config), name))),
      );
      checkFit(needed, shapes);
      return needed;
    } catch (error) {
      await weights.close();
      throw error;
    }
  };
  return { config, shapes, open };
}

async function readConfig<C>(path: string, parse: (json: Json) => C): Promise<C> {
  try {
    const json = parseJson(await readTextFile(path));
    if (!isObject(json)) throw new Error('is not an object');
    return parse(json);
  } catch (error) {
    throw new WeightsError('checkpoint', path, (error as Error).message, error);
  }
}

/** Of a file that comes without a config. */
async function configOf<C>(path: string, stem: string, parse: (entries: ReadonlyMap<string, Entry>) => C): Promise<C> {
  const weights = await openWeights(path, stem);
  try {
    return parse(weights.entries);
  } catch (error) {
    throw new WeightsError('checkpoint', weights.path, (error as Error).message, error);
  } finally {
    await weights.close();
  }
}

const WEIGHTS = /\.(safetensors|pth|pt|bin|gguf|ckpt|onnx)$/;

/** @throws one line that lists what the folder lacks, and the weights that it has */
async function demand(path: string, layout: string, found: Readonly<Record<string, boolean>>): Promise<void> {
  const missing = Object.keys(found).filter((what) => !found[what]);
  if (!missing.length) return;
  const there = (await list(path)).filter((name) => WEIGHTS.test(name)).sort();
  const beside = there.length ? `; of weights it holds ${there.join(', ')}` : '';
  throw new WeightsError('checkpoint', path, `lacks ${missing.join(', ')} of ${layout}${beside}`);
}

/** Text encoders come in their own names, in transformers' or in llama.cpp's. */
const TEXT_NAMES: readonly Naming[] = [OWN, transformersUMT5, transformersUMT5Tied, llamaUMT5];

/**
 * Files of Wan's own releases, by how their names begin, and those that ComfyUI's users have in their
 * place; the encoder's and the VAE's numbers stand in no file but in their shapes.
 */
const WAN = {
  dit: 'diffusion_pytorch_model',
  texts: ['models_t5', 'umt5'],
  image: 'models_clip',
  tokenizer: 'google/umt5-xxl/tokenizer.json',
};

/** Where weights of a folder's part lie: the file that was named, else the folder. */
type Pick = (folder: string, stem?: string) => string;

/** @param named files as seen from the checkpoint's folder; each is taken out when it is picked */
const picking =
  (path: string, named: Set<string>): Pick =>
  (folder, stem = '') => {
    const found = [...named].find(
      (name) => join(path, dirname(name), '_') === join(folder, '_') && basename(name).startsWith(stem),
    );
    if (found === undefined) return folder;
    named.delete(found);
    return join(path, found);
  };

/**
 * The file of a folder's DiT where it has not the name of a release: the only weights that are of no other part, as quantised ones come.
 * @param others how the names of the other parts' files begin
 */
async function quantisedDiT(folder: string, others: readonly string[]): Promise<string | undefined> {
  const names = (await isFolder(folder)) ? await list(folder) : [];
  if (names.some((n) => n.startsWith(WAN.dit))) return undefined;
  const own = names.filter((n) => /\.(safetensors|gguf)$/.test(n) && !others.some((stem) => n.startsWith(stem)));
  if (own.length > 1)
    throw new WeightsError(
      'checkpoint',
      folder,
      `holds several checkpoints, name one of ${own.join(', ')} as its weights (--weights)`,
    );
  return own[0] && join(folder, own[0]);
}

/** Names of tensors in a folder, whoever gave them. */
const namesIn = (path: string, stem: string): Promise<string[]> =>
  configOf(path, stem, (entries) => [...entries.keys()]);

/** @param experts folders of two networks, that for high noise first */
async function openOriginal(path: string, pick: Pick, experts?: readonly [string, string]): Promise<Checkpoint> {
  const folders = experts?.map((folder) => join(path, folder)) ?? [path];
  const read = await readConfig(join(folders[0]!, 'config.json'), wanDiT);
  const family = familyOf(read, experts !== undefined);
  const names = await list(path);
  const vae = family.vaeFiles.find((stem) => names.some((n) => n.startsWith(stem))) ?? family.vaeFiles[0]!;
  const text = WAN.texts.find((stem) => names.some((n) => n.startsWith(stem))) ?? WAN.texts[0]!;
  const own = { vae: pick(path, vae), text: pick(path, text), image: pick(path, WAN.image) };
  const others = [...family.vaeFiles, ...WAN.texts, WAN.image];
  const dits: string[] = [];
  for (const folder of folders) {
    const picked = pick(folder); // whatever it is called
    dits.push(picked === folder ? ((await quantisedDiT(folder, others)) ?? folder) : picked);
  }
  const named = dits.some((dit, i) => dit !== folders[i]);
  const has = (stem: string): boolean => names.some((n) => n.startsWith(stem));
  const told =
    hasBeside(read) && (named || experts || has(WAN.dit)) ? imagesOf(read, await namesIn(dits[0]!, WAN.dit)) : read;
  const needed = [...(named || experts ? [] : [WAN.dit]), vae, text, ...(readsImages(told) ? [WAN.image] : [])];
  const tokenizer = join(path, WAN.tokenizer);
  await demand(path, "Wan's own layout", {
    ...Object.fromEntries(needed.map((stem) => [`${stem}*.safetensors, .gguf or .pth`, has(stem)])),
    [WAN.tokenizer]: await exists(tokenizer),
    ...(experts && { [experts[1]]: names.includes(experts[1]) }),
  });
  const image = readsImages(told) ? await configOf(own.image, WAN.image, clipConfigOf) : undefined;
  const config = image ? { ...told, clip_dim: image.dim } : told;
  const [dit, low] = dits.map((at) => part(at, WAN.dit, config, DIT_NAMES, { all: ditShapes }));
  return {
    path,
    family,
    layout: 'original',
    tokenizer,
    dit: dit!,
    ...(low && { low }),
    vae: part(own.vae, vae, await configOf(own.vae, vae, vaeConfigOf), [OWN], { all: vaeShapes }),
    text: part(own.text, text, await configOf(own.text, text, (e) => umt5ConfigOf(e, TEXT_NAMES)), TEXT_NAMES, {
      all: umt5Shapes,
    }),
    ...(image && { image: part(own.image, WAN.image, image, [wanCLIP], { all: clipShapes, used: usedClipShapes }) }),
  };
}

/** A component of a pipeline; one that is left out stands as a pair of nulls. */
const isThere = (component: unknown): boolean => Array.isArray(component) && component.some((part) => part !== null);

async function openDiffusers(path: string, pick: Pick): Promise<Checkpoint> {
  const inside = (name: string) => join(path, name);
  const read = <C>(name: string, parse: (json: Json) => C) => readConfig(join(path, name, 'config.json'), parse);
  const index = await readConfig(inside('model_index.json'), (json) => json);
  const two = isThere(index['transformer_2']);
  const files = async (names: readonly string[]) => {
    const found = await Promise.all(names.map(async (name) => [name, await exists(inside(name))] as const));
    await demand(path, "Diffusers' layout", Object.fromEntries(found));
  };
  await files(['transformer/config.json', 'vae/config.json', 'text_encoder/config.json', 'tokenizer/tokenizer.json']);
  if (two) await files(['transformer_2/config.json']);
  const dit = await read('transformer', (json) => diffusersDiTConfig(json, index['expand_timesteps'] === true));
  const images = readsImages(dit);
  if (images) await files(['image_encoder/config.json']);
  const vae = await read('vae', diffusersVAEConfig);
  const scheduler = inside('scheduler/scheduler_config.json');
  const shift = (await exists(scheduler))
    ? await readConfig(scheduler, (json) => json['flow_shift'] ?? json['shift'])
    : undefined;
  const { boundary_ratio: boundary } = index;
  return {
    path,
    family: familyOf(dit, two),
    layout: 'diffusers',
    tokenizer: inside('tokenizer/tokenizer.json'),
    dit: part(pick(inside('transformer')), '', dit, DIT_NAMES, { all: ditShapes }),
    ...(two && { low: part(pick(inside('transformer_2')), '', dit, DIT_NAMES, { all: ditShapes }) }),
    vae: part(pick(inside('vae')), '', vae, [OWN, diffusersVAE(vae)], { all: vaeShapes }),
    text: part(pick(inside('text_encoder')), '', await read('text_encoder', transformersUMT5Config), TEXT_NAMES, {
      all: umt5Shapes,
    }),
    ...(images && {
      image: part(
        pick(inside('image_encoder')),
        '',
        await read('image_encoder', transformersCLIPConfig),
        [transformersCLIP],
        { all: clipShapes, used: usedClipShapes },
      ),
    }),
    ...(typeof shift === 'number' && { flowShift: shift }),
    ...(typeof boundary === 'number' && { boundary }),
  };
}

/** What stands where a checkpoint should, and what to do. */
async function whatInstead(path: string): Promise<string> {
  if (!(await exists(path)))
    return /^[\w.-]+\/[\w.-]+$/.test(path)
      ? `there is no such folder; a model of the Hugging Face hub is downloaded first: hf download ${path} --local-dir ${basename(path)}`
      : 'there is no such folder';
  if (!(await isFolder(path))) return 'is a file: name the folder that holds all parts of a model';
  const names = (await list(path)).filter((name) => !name.startsWith('.')).sort();
  const holds = names.length ? few('files', names) : 'nothing';
  return `is no checkpoint of ${FAMILIES.map((f) => f.title).join(', ')}: it has neither config.json (Wan's own layout, of two experts one in each folder) nor model_index.json (Diffusers); it holds ${holds}`;
}

async function openLayout(path: string, pick: Pick): Promise<Checkpoint> {
  if (await exists(join(path, 'model_index.json'))) return openDiffusers(path, pick);
  for (const { experts } of FAMILIES)
    if (experts && (await exists(join(path, experts.folders[0], 'config.json'))))
      return openOriginal(path, pick, experts.folders);
  if (await exists(join(path, 'config.json'))) return openOriginal(path, pick);
  throw new WeightsError('checkpoint', path, await whatInstead(path));
}

/**
 * Every name and shape in the folder is checked, no weights are read.
 * @param weights the files to take where a part has several, as seen from the folder: `transformer/model.fp16.safetensors`
 * @throws WeightsError: what is missing or wrong
 */
export async function openCheckpoint(path: string, weights: readonly string[] = []): Promise<Checkpoint> {
  const named = new Set(weights);
  const checkpoint = await openLayout(path, picking(path, named));
  if (named.size)
    throw new WeightsError(
      'checkpoint',
      path,
      `${[...named].join(', ')} (--weights): no part has its weights there, or another file was named for it; name it as seen from the folder`,
    );
  for (const { open } of [
    checkpoint.dit,
    ...(checkpoint.low ? [checkpoint.low] : []),
    checkpoint.vae,
    checkpoint.text,
    ...(checkpoint.image ? [checkpoint.image] : []),
  ])
    await (await open()).close();
  return checkpoint;
}

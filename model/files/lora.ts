/**
 * LoRA files under the names of Diffusers (PEFT), ComfyUI and kohya, read into adapters under Wan's names and written from them.
 *
 *     diffusers  transformer.blocks.0.attn1.to_q.lora_A.weight           lora_B.weight
 *     comfyui    diffusion_model.blocks.0.self_attn.q.lora_down.weight   lora_up.weight    alpha
 *     kohya      lora_unet_blocks_0_self_attn_q.lora_down.weight         lora_up.weight    alpha
 */
import { printShapes } from '../../engine/host/errors.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { addLowRank } from '../lora.ts';
import type { HostParams } from '../params.ts';
import type { Shapes } from './load.ts';
import { diffusersDiT } from './names.ts';
import { openWeights } from './open.ts';
import { saveTensors } from './safetensors.ts';
import { few, isObject, WeightsError } from './stored.ts';
import { parseJson } from './json.ts';
import type { Weights } from './weights.ts';

/** What a file adds to a model. */
export interface LoraFile {
  /** `module.lora_A.weight` [rank, in] and `module.lora_B.weight` [out, rank]; alpha / rank is part of B. */
  readonly adapters: HostParams;
  /** Whole differences of some weights, mostly biases and gains, under the weights' names. */
  readonly differences: HostParams;
  readonly metadata: Readonly<Record<string, string>>;
}

/** A file and its strength, 1 as its maker meant it. */
export interface Lora {
  readonly file: LoraFile;
  readonly scale: number;
}

/** Ends of a name, and what stands there. */
const PARTS: readonly (readonly [end: RegExp, part: Part])[] = [
  [/\.(lora_A(\.default)?|lora_down)\.weight$/, 'a'],
  [/\.(lora_B(\.default)?|lora_up)\.weight$/, 'b'],
  [/\.alpha$/, 'alpha'],
  [/\.diff$/, 'weight'],
  [/\.diff_b$/, 'bias'],
];
type Part = 'a' | 'b' | 'alpha' | 'weight' | 'bias';

const PREFIXES = ['', 'transformer.', 'diffusion_model.', 'model.diffusion_model.', 'base_model.model.', 'unet.'];
const FLAT_PREFIXES = ['lora_unet_', 'lora_transformer_'];

/** As a module of Diffusers. */
const inDiffusers = (module: string): string => diffusersDiT.theirs(`${module}.weight`)[0]!.slice(0, -'.weight'.length);
const flat = (module: string): string => module.replaceAll('.', '_');

/** Every name a module, or a tensor that is none's weight or bias, may have in a file → its own. */
function aliases(shapes: Shapes): Map<string, string> {
  const modules = Object.keys(shapes)
    .filter((name) => !name.endsWith('.bias'))
    .map((name) => name.replace(/\.weight$/, ''));
  return new Map(
    modules.flatMap((own) =>
      [own, inDiffusers(own)].flatMap((name) =>
        [...PREFIXES.map((p) => p + name), ...FLAT_PREFIXES.map((p) => p + flat(name))].map(
          (alias): [string, string] => [alias, own],
        ),
      ),
    ),
  );
}

/** Alpha of all modules, where it stands in the metadata: Diffusers keeps PEFT's settings there. */
function commonAlpha({ metadata, path }: Weights): number | undefined {
  const text = metadata['lora_adapter_metadata'];
  if (text === undefined) return undefined;
  const fail = (why: string) => new WeightsError('lora', path, `its lora_adapter_metadata ${why}`);
  let json: unknown;
  try {
    json = parseJson(text);
  } catch (error) {
    throw fail((error as Error).message);
  }
  if (!isObject(json)) throw fail('is not an object');
  const pattern = json['transformer.alpha_pattern'];
  if (isObject(pattern) && Object.keys(pattern).length)
    throw fail('has an alpha_pattern: one alpha for all modules is read');
  return typeof json['transformer.lora_alpha'] === 'number' ? json['transformer.lora_alpha'] : undefined;
}

type Module = Partial<Record<Part, HostTensor>>;

/** Tensors by module of the model. @throws one line that lists the names that are no part of it */
async function readModules(weights: Weights, shapes: Shapes): Promise<Map<string, Module>> {
  const known = aliases(shapes);
  const modules = new Map<string, Module>();
  const unknown: string[] = [];
  for (const name of weights.entries.keys()) {
    const [end, part] = PARTS.find(([e]) => e.test(name)) ?? [];
    const own = end && known.get(name.replace(end, ''));
    if (!own || !part) unknown.push(name);
    else modules.set(own, { ...modules.get(own), [part]: await weights.tensor(name) });
  }
  if (unknown.length)
    throw new WeightsError('lora', weights.path, `is no LoRA of this model: ${few('names unknown', unknown)}`);
  if (!modules.size) throw new WeightsError('lora', weights.path, 'has no tensors');
  return modules;
}

/** @param shapes of the model it is for, as `ditShapes` gives them. @throws WeightsError, one line with all that does not fit */
export async function loadLora(path: string, shapes: Shapes): Promise<LoraFile> {
  const weights = await openWeights(path);
  try {
    const adapters: HostParams = {},
      differences: HostParams = {};
    const wrong: string[] = [];
    const all = commonAlpha(weights);
    for (const [module, { a, b, alpha, weight, bias }] of await readModules(weights, shapes)) {
      const whole = module in shapes ? module : `${module}.weight`;
      const shape = shapes[whole]!;
      for (const [name, given] of [
        [whole, weight],
        [`${module}.bias`, bias],
      ] as const) {
        if (given && String(given.shape) !== String(shapes[name]))
          wrong.push(`${name} ${printShapes(given.shape)}, expected ${printShapes(shapes[name] ?? [])}`);
        if (given) differences[name] = given;
      }
      if (!a && !b && !alpha) continue;
      const fits =
        a &&
        b &&
        shape.length === 2 &&
        String([b.shape[0], a.shape[1]]) === String(shape) &&
        a.shape.length === 2 &&
        String(b.shape) === String([shape[0], a.shape[0]]);
      if (!fits) {
        wrong.push(
          `${module} A ${a ? printShapes(a.shape) : 'missing'} B ${b ? printShapes(b.shape) : 'missing'}, the weight is ${printShapes(shape)}`,
        );
        continue;
      }
      const rank = a.shape[0]!;
      const scale = (alpha?.data[0] ?? all ?? rank) / rank;
      adapters[`${module}.lora_A.weight`] = a;
      adapters[`${module}.lora_B.weight`] = scale === 1 ? b : scaled(b, scale);
    }
    if (wrong.length)
      throw new WeightsError('lora', path, `does not fit the model: ${few('modules of other shapes', wrong)}`);
    return { adapters, differences, metadata: weights.metadata };
  } finally {
    await weights.close();
  }
}

const scaled = (t: HostTensor, scale: number): HostTensor =>
  host(
    Float32Array.from(t.data, (x) => scale * x),
    t.shape,
  );

/** The weight `name` with the LoRAs' additions, each in its strength; the same tensor where they have none. */
export function mergeFiles(name: string, weight: HostTensor, loras: readonly Lora[]): HostTensor {
  const module = name.replace(/\.weight$/, '');
  const own = loras.map(({ file: { adapters, differences }, scale }) => ({
    scale,
    a: adapters[`${module}.lora_A.weight`],
    b: adapters[`${module}.lora_B.weight`],
    difference: differences[name],
  }));
  if (own.every(({ a, difference }) => !a && !difference)) return weight;
  const sum = Float32Array.from(weight.data);
  for (const { a, b, scale, difference } of own) {
    if (a && b) addLowRank(sum, { a, b }, scale);
    difference?.data.forEach((d, i) => {
      sum[i]! += scale * d;
    });
  }
  return host(sum, weight.shape);
}

export type LoraNaming = 'diffusers' | 'comfyui' | 'kohya';

const WRITTEN: Record<LoraNaming, { module: (own: string) => string; a: string; b: string; alpha: boolean }> = {
  diffusers: { module: (own) => `transformer.${inDiffusers(own)}`, a: 'lora_A', b: 'lora_B', alpha: false },
  comfyui: { module: (own) => `diffusion_model.${own}`, a: 'lora_down', b: 'lora_up', alpha: true },
  kohya: { module: (own) => `lora_unet_${flat(own)}`, a: 'lora_down', b: 'lora_up', alpha: true },
};

export interface SaveLoraOptions {
  naming: LoraNaming;
  /** Of the adapters; becomes part of B, so that every reader's scale is 1. */
  scale?: number;
  dtype?: 'F32' | 'F16' | 'BF16';
  /** Of whole weights, in ComfyUI's naming only: no other has names for them. */
  differences?: HostParams;
  metadata?: Readonly<Record<string, string>>;
}

/**
 * Writes adapters, all or nothing.
 * @param adapters `module.lora_A.weight` and `module.lora_B.weight`
 */
export async function saveLora(
  path: string,
  adapters: HostParams,
  { naming, scale = 1, dtype = 'F32', differences = {}, metadata = {} }: SaveLoraOptions,
): Promise<void> {
  const { module, a, b, alpha } = WRITTEN[naming];
  if (naming !== 'comfyui' && Object.keys(differences).length)
    throw new Error(`[lora] ${naming} has no names for whole differences`);
  const tensors = Object.entries(adapters).flatMap(([name, t]): [string, HostTensor][] => {
    const [, own, half] = /^(.*)\.lora_([AB])\.weight$/.exec(name)!;
    if (half === 'B') return [[`${module(own!)}.${b}.weight`, scaled(t, scale)]];
    return [
      [`${module(own!)}.${a}.weight`, t],
      ...(alpha ? [[`${module(own!)}.alpha`, host([t.shape[0]!], [])] as [string, HostTensor]] : []),
    ];
  });
  const whole = Object.entries(differences).map(([name, t]): [string, HostTensor] => [
    `${module(name.replace(/\.(weight|bias)$/, ''))}.${name.endsWith('.bias') ? 'diff_b' : 'diff'}`,
    scaled(t, scale),
  ]);
  await saveTensors(path, Object.fromEntries([...tensors, ...whole]), { dtype, metadata });
}

/**
 * LoRA files under the names of Diffusers (PEFT), ComfyUI and kohya, read into adapters under Wan's names and written from them.
 * DiffSynth and VideoX-Fun put other words in front, which `loranames.ts` knows.
 *
 *     diffusers  transformer.blocks.0.attn1.to_q.lora_A.weight           lora_B.weight
 *     comfyui    diffusion_model.blocks.0.self_attn.q.lora_down.weight   lora_up.weight    alpha
 *     kohya      lora_unet_blocks_0_self_attn_q.lora_down.weight         lora_up.weight    alpha
 */
import { numel } from '../../kernels/kernel.ts';
import { printShapes } from '../../engine/host/errors.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { addLowRank } from '../lora.ts';
import type { HostParams } from '../params.ts';
import { encoded } from './encode.ts';
import type { Shapes } from './load.ts';
import { scaleOf } from './loraalpha.ts';
import { flat, inDiffusers, kindOf, nameReader, type Part } from './loranames.ts';
import { sameButOnes } from './names.ts';
import { openWeights } from './open.ts';
import { saveTensors } from './safetensors.ts';
import { few, WeightsError } from './stored.ts';
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

type Module = Partial<Record<Part, HostTensor>> & { name?: string };

/** Tensors by module of the model. @throws one line that says what the file is instead, and lists the names that are no part of it */
async function readModules(weights: Weights, shapes: Shapes): Promise<Map<string, Module>> {
  const read = nameReader(shapes);
  const modules = new Map<string, Module>();
  const unknown: string[] = [];
  const adapters = new Set<string>();
  for (const name of weights.entries.keys()) {
    const named = read(name);
    if (!named) unknown.push(name);
    else {
      if (named.adapter !== undefined) adapters.add(named.adapter);
      const { own, part, module } = named;
      if (modules.get(own)?.[part])
        throw new WeightsError('lora', weights.path, `has ${own} ${part} under two names, one of them ${name}`);
      modules.set(own, { ...modules.get(own), name: module, [part]: await weights.finiteTensor(name) });
    }
  }
  if (unknown.length) {
    const kind = kindOf(unknown, shapes);
    throw new WeightsError(
      'lora',
      weights.path,
      `is no LoRA of this model: ${kind ? `${kind}; ` : ''}${few('names unknown', unknown)}`,
    );
  }
  if (adapters.size > 1)
    throw new WeightsError(
      'lora',
      weights.path,
      `holds several adapters: ${[...adapters].join(', ')}; save one of them`,
    );
  if (!modules.size) throw new WeightsError('lora', weights.path, 'has no tensors');
  return modules;
}

/** What a difference in shapes says of the model that a LoRA is for. */
function otherModel(module: string, { a, b, weight }: Module, shape: readonly number[]): string | undefined {
  if (module === 'patch_embedding' && weight && weight.shape[0] === shape[0] && weight.shape[1] !== shape[1])
    return `it is for ${weight.shape[1]! > shape[1]! ? 'image-to-video (I2V)' : 'text-to-video (T2V)'}, whose input has ${weight.shape[1]} channels: this model's has ${shape[1]}`;
  const width = /^blocks\.\d+\.self_attn\.[qkvo]$/.test(module) ? (a?.shape[1] ?? b?.shape[0]) : undefined;
  return a && b && width !== undefined && a.shape[0] === b.shape[1] && width !== shape[1]
    ? `it is of a model of width ${width}, this one's is ${shape[1]}`
    : undefined;
}

/** A convolution that spans its patches is a linear: axes behind the first are one. @returns what has none but those as it is */
const asMatrix = (t: HostTensor): HostTensor =>
  t.shape.length > 2 ? { ...t, shape: [t.shape[0]!, numel(t.shape.slice(1))] } : t;

/** @param shapes of the model it is for, as `ditShapes` gives them. @throws WeightsError, one line with all that does not fit */
export async function loadLora(path: string, shapes: Shapes): Promise<LoraFile> {
  const weights = await openWeights(path);
  try {
    const adapters: HostParams = {},
      differences: HostParams = {};
    const wrong: string[] = [];
    const scaling = await scaleOf(weights);
    let other: string | undefined;
    for (const [module, parts] of await readModules(weights, shapes)) {
      const { name, biasB, alpha, weight, bias, modulation } = parts;
      const [a, b] = [parts.a && asMatrix(parts.a), parts.b && asMatrix(parts.b)];
      const whole = modulation ? `${module}.modulation` : module in shapes ? module : `${module}.weight`;
      const shape = shapes[whole]!;
      for (const [named, given] of [
        [whole, weight ?? modulation],
        [`${module}.bias`, bias],
      ] as const) {
        if (!given) continue;
        const expected = shapes[named] ?? [];
        if (!sameButOnes(given.shape, expected)) {
          wrong.push(`${named} ${printShapes(given.shape)}, expected ${printShapes(expected)}`);
          other ??= otherModel(module, parts, shape);
        }
        differences[named] = { ...given, shape: expected };
      }
      if (!a && !b && !alpha && !biasB) continue;
      const fits =
        a &&
        b &&
        shape.length > 1 &&
        String([b.shape[0], a.shape[1]]) === String([shape[0], numel(shape.slice(1))]) &&
        a.shape.length === 2 &&
        String(b.shape) === String([shape[0], a.shape[0]]) &&
        (!biasB || String(biasB.shape) === String(shapes[`${module}.bias`]));
      if (!fits) {
        wrong.push(
          `${module} A ${a ? printShapes(a.shape) : 'missing'} B ${b ? printShapes(b.shape) : 'missing'}${biasB ? ` bias ${printShapes(biasB.shape)}` : ''}, the weight is ${printShapes(shape)}`,
        );
        other ??= otherModel(module, parts, shape);
        continue;
      }
      const scale = scaling(name!, a.shape[0]!, alpha?.data[0]);
      adapters[`${module}.lora_A.weight`] = a;
      adapters[`${module}.lora_B.weight`] = scale === 1 ? b : scaled(b, scale);
      if (biasB) differences[`${module}.bias`] = sum(scaled(biasB, scale), differences[`${module}.bias`]);
    }
    if (wrong.length)
      throw new WeightsError(
        'lora',
        path,
        `does not fit the model: ${other ? `${other}; ` : ''}${few('modules of other shapes', wrong)}`,
      );
    return { adapters, differences, metadata: weights.metadata };
  } finally {
    await weights.close();
  }
}

const sum = (a: HostTensor, b: HostTensor | undefined): HostTensor =>
  b
    ? host(
        Float32Array.from(a.data, (x, i) => x + b.data[i]!),
        a.shape,
      )
    : a;

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
  const merged = Float32Array.from(weight.data);
  for (const { a, b, scale, difference } of own) {
    if (a && b) addLowRank(merged, { a, b }, scale);
    difference?.data.forEach((d, i) => {
      merged[i]! += scale * d;
    });
  }
  return host(merged, weight.shape);
}

export type LoraNaming = 'diffusers' | 'comfyui' | 'kohya';

const WRITTEN: Record<LoraNaming, { module: (own: string) => string; a: string; b: string; alpha: boolean }> = {
  diffusers: { module: (own) => `transformer.${inDiffusers(own)}`, a: 'lora_A', b: 'lora_B', alpha: false },
  comfyui: { module: (own) => `diffusion_model.${own}`, a: 'lora_down', b: 'lora_up', alpha: true },
  kohya: { module: (own) => `lora_unet_${flat(own)}`, a: 'lora_down', b: 'lora_up', alpha: true },
};

interface SaveLoraOptions {
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
  for (const [name, t] of [...tensors, ...whole]) encoded(name, Float32Array.from(t.data), dtype); // or it throws
  await saveTensors(path, Object.fromEntries([...tensors, ...whole]), { dtype, metadata });
}

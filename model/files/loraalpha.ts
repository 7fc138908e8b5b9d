/**
 * How strongly a LoRA is meant, where its modules do not say it themselves: in settings of PEFT beside it or within, or in its metadata.
 */
import { basename, dirname, exists, join, list, readTextFile } from '../../engine/host/files.ts';
import { parseJson } from './json.ts';
import { isObject, WeightsError } from './stored.ts';
import type { Weights } from './weights.ts';

const CONFIG = 'adapter_config.json';
const WEIGHTS = /\.(safetensors|bin|pth|pt)$/;

/** Of a module by its name in the file, and its rank. */
type ScaleOf = (module: string, rank: number, own?: number) => number;

/** Settings of PEFT, from wherever they stand. @param at keys' prefix */
function ofPeft(path: string, where: string, text: string, at = ''): ScaleOf {
  const fail = (why: string) => new WeightsError('lora', path, `${where} ${why}`);
  let json: unknown;
  try {
    json = parseJson(text);
  } catch (error) {
    throw fail((error as Error).message);
  }
  if (!isObject(json)) throw fail('is not an object');
  const settings = json;
  const of = (key: string): unknown => settings[at + key] ?? settings[key];
  if (of('use_dora') === true) throw fail('says it is a DoRA: only plain LoRAs are read');
  const kind = of('peft_type');
  if (typeof kind === 'string' && kind.toUpperCase() !== 'LORA')
    throw fail(`says it is a ${kind}: only plain LoRAs are read`);
  const alpha = of('lora_alpha') ?? undefined;
  if (alpha !== undefined && !Number.isFinite(alpha))
    throw fail(`has lora_alpha ${JSON.stringify(alpha)}, not a number`);
  const pattern = of('alpha_pattern');
  const own = isObject(pattern) ? Object.entries(pattern) : [];
  const odd = own.find(([name, a]) => !/^[\w.]+$/.test(name) || !Number.isFinite(a));
  if (odd) throw fail(`has an alpha_pattern ${JSON.stringify(odd)}, expected the end of a module's name and a number`);
  const root = of('use_rslora') === true;
  return (module, rank, given) => {
    const named = own.find(([name]) => module === name || module.endsWith(`.${name}`))?.[1];
    return (given ?? ((named ?? alpha ?? rank) as number)) / (root && given === undefined ? Math.sqrt(rank) : rank);
  };
}

/** Of a trainer that writes one alpha for all modules. */
function ofMetadata({ metadata, path }: Weights): ScaleOf | undefined {
  const key = ['lora_alpha', 'ss_network_alpha'].find((k) => metadata[k] !== undefined && metadata[k] !== 'None');
  if (key === undefined) return undefined;
  const alpha = Number(metadata[key]);
  if (!metadata[key]!.trim() || !Number.isFinite(alpha))
    throw new WeightsError('lora', path, `its metadata has ${key} ${JSON.stringify(metadata[key])}, not a number`);
  return (_, rank, own) => (own ?? alpha) / rank;
}

/** PEFT's settings lie beside the one file that they are of. */
async function configBeside(path: string): Promise<string | undefined> {
  const folder = dirname(path);
  const config = join(folder, CONFIG);
  if (!(await exists(config))) return undefined;
  const alone = (await list(folder)).filter((name) => WEIGHTS.test(name)).length === 1;
  return alone || basename(path).startsWith('adapter_model.') ? config : undefined;
}

/**
 * Alpha over rank: a module's own alpha before PEFT's settings, these before the metadata; 1 where nothing is said.
 * @throws WeightsError
 */
export async function scaleOf(weights: Weights): Promise<ScaleOf> {
  const { metadata, path } = weights;
  const inside = metadata['lora_adapter_metadata'];
  if (inside !== undefined) return ofPeft(path, 'its lora_adapter_metadata', inside, 'transformer.');
  const config = await configBeside(path);
  if (config) return ofPeft(path, `its ${CONFIG}`, await readTextFile(config));
  return ofMetadata(weights) ?? ((_, rank, own) => (own ?? rank) / rank);
}

/** Trained models as files: weights under Wan's names, with their config and how they were made in the metadata. */
import { mkdir } from 'node:fs/promises';
import { dirname, exists, readBytes } from '../../engine/host/files.ts';
import { ditConfig, vaeConfig, type DiTConfig, type VAEConfig } from '../../model/config.ts';
import type { HostParams } from '../../model/params.ts';
import { DIT_NAMES } from '../../model/files/checkpoint.ts';
import { hashBytes } from '../../model/files/fingerprint.ts';
import { loadParams, type Shapes } from '../../model/files/load.ts';
import { diffusersVAE, inOwnNames, OWN, type Naming } from '../../model/files/names.ts';
import { openWeights } from '../../model/files/open.ts';
import { saveTensors } from '../../model/files/safetensors.ts';
import type { Weights } from '../../model/files/weights.ts';
import { ditShapes } from '../../model/wan/dit.ts';
import { vaeShapes } from '../../model/wan/vae.ts';
import { writeError } from './files.ts';
import { checkPreset, type Preset } from '../presets/index.ts';
import { canonical } from './canonical.ts';

/** `student` needs one evaluation, `teacher` many with guidance. */
export type Kind = 'vae' | 'teacher' | 'student';

/** How a model was made. */
export interface About {
  preset: Preset;
  steps: number;
  /** What else its maker measured or used, for people. */
  [note: string]: unknown;
}

export interface Model<C> {
  kind: Kind;
  path: string;
  /** 16 hex digits of the file's content. */
  hash: string;
  config: C;
  params: HostParams;
  about: About;
}

/** Writes a model whole or not at all. @throws one line */
export async function saveModel(
  path: string,
  { kind, config, params, about }: Omit<Model<DiTConfig | VAEConfig>, 'path' | 'hash'>,
  dtype: 'F32' | 'F16' = 'F32',
): Promise<void> {
  try {
    await mkdir(dirname(path), { recursive: true });
    await saveTensors(path, params, {
      dtype,
      metadata: { kind, config: JSON.stringify(config), about: JSON.stringify(about) },
    });
  } catch (error) {
    throw writeError('model', path, error);
  }
}

/** Of a model's metadata. @throws one line */
function parseJson(path: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`[model] ${path} is damaged: its metadata ${(error as Error).message}`, { cause: error });
  }
}

async function load<C>(
  path: string,
  kinds: readonly Kind[],
  parse: (json: unknown) => C,
  shapes: (config: C) => Shapes,
  namings: (config: C) => readonly Naming[],
): Promise<Model<C>> {
  if (!(await exists(path))) throw new Error(`[model] there is no file ${path}: train it, or name another`);
  const weights = await openWeights(path);
  const { kind, config: text, about } = weights.metadata;
  await weights.close();
  if (!kind || !text || !about)
    throw new Error(`[model] ${path} has no config in its metadata: it was not written by this program`);
  if (!kinds.includes(kind as Kind))
    throw new Error(`[model] ${path} is a ${kind}, expected a ${kinds.join(' or a ')}`);
  const config = parse(parseJson(path, text));
  const made = parseJson(path, about) as About;
  return {
    kind: kind as Kind,
    path,
    config,
    params: await loadParams(path, shapes(config), namings(config)),
    about: { ...made, preset: checkPreset(made.preset) },
    hash: await hashBytes(await readBytes(path)),
  };
}

export const loadVAE = (path: string): Promise<Model<VAEConfig>> =>
  load(path, ['vae'], vaeConfig, vaeShapes, (config) => [OWN, diffusersVAE(config)]);
export const loadDiT = (path: string): Promise<Model<DiTConfig>> =>
  load(path, ['teacher', 'student'], ditConfig, ditShapes, () => DIT_NAMES);

/** A network's file under our names, for the caller to close: what it packs can stay packed. */
export const openDiT = async ({ path, config }: Model<DiTConfig>): Promise<Weights> =>
  inOwnNames(await openWeights(path), ditShapes(config), DIT_NAMES);

/** A network must have been trained on the latents of the VAE that decodes them. */
export function checkPair(vae: Model<VAEConfig>, net: Model<DiTConfig>): void {
  const made = net.about['vae'];
  if (made !== vae.hash)
    throw new Error(
      `[model] ${net.path} was trained with another VAE than ${vae.path} (it names ${String(made)}, this one is ${vae.hash})`,
    );
}

/** A model must have the numbers that the preset says; how blocks are computed does not matter to its weights. */
export function checkFit(model: Model<DiTConfig> | Model<VAEConfig>, preset: Partial<DiTConfig> | Preset['vae']): void {
  const has = model.config as unknown as Record<string, unknown>;
  for (const [name, expected] of Object.entries(preset)) {
    if (name === 'checkpoint' || name === 'ffn_parts' || canonical(has[name]) === canonical(expected)) continue;
    throw new Error(
      `[model] ${model.path} has ${name} ${canonical(has[name])}, the preset says ${canonical(expected)}; train one for this preset, or take the one it was made for`,
    );
  }
}

/** Where the models of a folder lie (a bundle and a run have the same names in them), and whether a place can be written. */
import { accessSync, constants, existsSync, mkdirSync, statSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import type { DiTConfig } from '../../model/config.ts';
import { writeError } from '../../train/loop/files.ts';
import { loadDiT, type Model } from '../../train/loop/models.ts';
import type { Preset } from '../../train/presets/index.ts';
import { UsageError } from './errors.ts';
import { ownFile } from './root.ts';

/** The weights that come with this program, from wherever it is started. */
export const BUNDLE = relative('.', ownFile('bundle/digits'));
/** The frozen judge of `digits`. */
export const CLASSIFIER = relative('.', ownFile('bundle/classifier.safetensors'));

/** What judges a preset's clips: the digits' comes along, another set's is trained into the run. */
export const classifierOf = ({ data }: Preset, run: string): string =>
  data.set === 'flare' ? join(run, 'classifier.safetensors') : CLASSIFIER;

export const modelFile = (dir: string, kind: 'vae' | 'teacher' | 'student' | 'frames'): string =>
  join(dir, `${kind}.safetensors`);

/** The file of a run, or the bundle's where the run has none: it was trained with that one, or loading it tells. */
export const ownOr = (run: string, bundle: string, kind: 'vae' | 'teacher'): string =>
  existsSync(modelFile(run, kind)) ? modelFile(run, kind) : modelFile(bundle, kind);

/** Reads a network and checks that it is what the file's name says. @throws one line */
export async function loadNet(dir: string, kind: 'teacher' | 'student'): Promise<Model<DiTConfig>> {
  const model = await loadDiT(modelFile(dir, kind));
  if (model.kind !== kind) throw new Error(`[model] ${model.path} is a ${model.kind}, expected a ${kind}`);
  return model;
}

/** Makes the folder of a file that is to be written. @throws one line before any work is done for nothing */
export function willWrite(path: string): void {
  if (existsSync(resolve(path)) && statSync(resolve(path)).isDirectory())
    throw new UsageError(`--out "${path}" is a folder: name a file`);
  try {
    makeFolder(dirname(resolve(path)));
    accessSync(dirname(path), constants.W_OK);
  } catch (error) {
    throw writeError('out', path, error);
  }
}

/** Step by step: Node's own `recursive` never ends where a folder cannot be made below one that is there, as in /proc. */
function makeFolder(dir: string): void {
  if (existsSync(dir)) return;
  makeFolder(dirname(dir));
  mkdirSync(dir);
}

/** Where the models of a folder lie (a bundle and a run have the same names in them), and whether a place can be written. */
import { accessSync, constants, existsSync, mkdirSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { writeError } from '../train/checkpoint.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));

/** The weights that come with this program, from wherever it is started. */
export const BUNDLE = relative('.', join(ROOT, 'bundle/digits'));
/** The frozen judge of `digits`. */
export const CLASSIFIER = relative('.', join(ROOT, 'bundle/classifier.safetensors'));

export const modelFile = (dir: string, kind: 'vae' | 'teacher' | 'student'): string => join(dir, `${kind}.safetensors`);

/** The file of a run, or the bundle's where the run has none. */
export const ownOr = (run: string, bundle: string, kind: 'vae' | 'teacher'): string =>
  existsSync(modelFile(run, kind)) ? modelFile(run, kind) : modelFile(bundle, kind);

/** Makes the folder of a file that is to be written. @throws one line before any work is done for nothing */
export function willWrite(path: string): void {
  try {
    mkdirSync(dirname(path), { recursive: true });
    accessSync(dirname(path), constants.W_OK);
  } catch (error) {
    throw writeError('out', path, error);
  }
}

/** Where the models of a folder lie: a bundle and a run have the same names in them. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';

export const modelFile = (dir: string, kind: 'vae' | 'teacher' | 'student' | 'classifier'): string => join(dir, `${kind}.safetensors`);

/** The file of a run, or the bundle's where the run has none. */
export const ownOr = (run: string, bundle: string, kind: 'vae' | 'teacher'): string =>
  existsSync(modelFile(run, kind)) ? modelFile(run, kind) : modelFile(bundle, kind);

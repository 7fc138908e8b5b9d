/** `vpae export`: a model file in another precision, for other programs or a smaller download. */
import { basename } from 'node:path';
import type { CommandModule } from 'yargs';
import { statSync } from 'node:fs';
import { openWeights } from '../model/files/open.ts';
import { loadDiT, loadVAE, saveModel } from '../train/models.ts';
import { willWrite } from './files.ts';
import { bytes } from './progress.ts';

interface ExportArgs { model: string; out: string; dtype: 'f16' | 'f32' }

async function exportModel({ model: path, out, dtype }: ExportArgs): Promise<void> {
  willWrite(out);
  const model = await kindOf(path) === 'vae' ? await loadVAE(path) : await loadDiT(path);
  await saveModel(out, model.kind, model.config, model.params, { ...model.about, exportedFrom: basename(path) }, dtype.toUpperCase() as 'F16' | 'F32');
  console.log(`${out}: ${Object.keys(model.params).length} tensors in ${dtype}, ${bytes(statSync(out).size)}`);
}

async function kindOf(path: string): Promise<string | undefined> {
  const weights = await openWeights(path).catch(() => undefined); // the loader says what is wrong
  await weights?.close();
  return weights?.metadata['kind'];
}

const command: CommandModule<object, ExportArgs> = {
  command: 'export <model>',
  describe: 'write a model\'s weights under Wan\'s names as safetensors of f16 or f32',
  builder: (y) => y
    .positional('model', { type: 'string', demandOption: true, describe: 'a model file, as runs/digits/student.safetensors' })
    .options({
      out: { type: 'string', demandOption: true, describe: 'the file to write' },
      dtype: { choices: ['f16', 'f32'] as const, default: 'f16' as const, describe: 'of every tensor' },
    })
    .example('$0 export runs/digits/student.safetensors --out student-f16.safetensors', 'half the size'),
  handler: exportModel,
};
export default command;

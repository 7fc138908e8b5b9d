/**
 * `vpae export`: a model for other programs: its weights in another precision or under
 * other names, LoRAs merged, or its change from a base as a LoRA.
 */
import { statSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { basename } from 'node:path';
import Table from 'cli-table3';
import type { CommandModule } from 'yargs';
import { ditConfig, vaeConfig, type DiTConfig, type VAEConfig } from '../model/config.ts';
import { DIT_NAMES, openCheckpoint } from '../model/files/checkpoint.ts';
import type { FloatType } from '../model/files/encode.ts';
import { exportPacked, PACKED_EXPORTS, type LayerError, type PackedExport } from '../model/files/packedexport.ts';
import { changeOf, exportWeights } from '../model/files/export.ts';
import { checkFit, type Shapes } from '../model/files/load.ts';
import { saveLora, type LoraNaming } from '../model/files/lora.ts';
import { diffusersDiT, diffusersVAE, inOwnNames, OWN, prefixed, type Naming } from '../model/files/names.ts';
import { openWeights } from '../model/files/open.ts';
import type { Weights } from '../model/files/weights.ts';
import { ditShapes } from '../model/wan/dit.ts';
import { vaeShapes } from '../model/wan/vae.ts';
import { writeError } from '../train/loop/files.ts';
import type { Expert } from '../model/pipeline/diffuse.ts';
import { UsageError } from './common/errors.ts';
import { willWrite } from './common/files.ts';
import { readLora } from './common/lora.ts';
import { count, weights } from './common/options.ts';
import { bytes, meter } from './common/progress.ts';

const NAMES = ['wan', 'comfyui', 'diffusers', 'kohya'] as const;
interface ExportArgs {
  model: string;
  out: string;
  dtype: 'f16' | 'bf16' | 'f32' | PackedExport;
  names: (typeof NAMES)[number];
  lora: string[];
  weights: string[];
  expert: Expert | undefined;
  base: string | undefined;
  rank: number;
}

type Source = { weights: Weights; shapes: Shapes } & (
  { kind: 'vae'; config: VAEConfig } | { kind: 'dit'; config: DiTConfig }
);

/** A model file of this program, or the transformer of a Wan2.1 folder. */
async function openModel(path: string, named: readonly string[], expert: Expert | undefined): Promise<Source> {
  if (
    await stat(path).then(
      (s) => s.isDirectory(),
      () => false,
    )
  ) {
    const { dit, low } = await openCheckpoint(path, named);
    if (low && !expert)
      throw new UsageError(`${path} holds two transformers: --expert high or --expert low says which is meant`);
    if (!low && expert) throw new UsageError(`--expert is for two transformers, ${path} holds one`);
    const part = expert === 'low' ? low! : dit;
    return { kind: 'dit', config: part.config, shapes: part.shapes, weights: await part.open() };
  }
  if (named.length) throw new UsageError(`--weights goes with a downloaded folder, ${path} is none`);
  const weights = await openWeights(path);
  try {
    const { kind, config } = weights.metadata;
    if (config === undefined)
      throw new Error(
        `[export] ${path} has no config in its metadata: it was not written by this program; of a downloaded model, name the folder`,
      );
    if (kind === 'vae') {
      const vae = vaeConfig(JSON.parse(config));
      return checked({
        kind,
        config: vae,
        shapes: vaeShapes(vae),
        weights: inOwnNames(weights, vaeShapes(vae), [OWN, diffusersVAE(vae)]),
      });
    }
    const dit = ditConfig(JSON.parse(config));
    return checked({
      kind: 'dit',
      config: dit,
      shapes: ditShapes(dit),
      weights: inOwnNames(weights, ditShapes(dit), DIT_NAMES),
    });
  } catch (error) {
    await weights.close();
    throw error;
  }
}

function checked(source: Source): Source {
  checkFit(source.weights, source.shapes);
  return source;
}

function namingOf(source: Source, names: ExportArgs['names']): Naming {
  if (names === 'kohya') throw new UsageError('--names kohya is for LoRAs: add --base');
  if (names === 'diffusers') return source.kind === 'vae' ? diffusersVAE(source.config) : diffusersDiT;
  return names === 'comfyui' && source.kind === 'dit' ? prefixed('model.diffusion_model.') : OWN;
}

/** What the file is and how it was made, for people and for the way back. */
const card = (source: Source, { model, names, lora, base }: ExportArgs): Record<string, string> => ({
  ...source.weights.metadata,
  format: 'pt',
  config: JSON.stringify(source.config),
  names,
  exportedFrom: basename(model),
  ...(lora.length && { merged: lora.map((l) => basename(l)).join(', ') }),
  ...(base !== undefined && { changeFrom: basename(base) }),
});

/** ‖w - q‖ / ‖w‖ by kind of layer: over all blocks, and of the worst. */
function errorTable(errors: readonly LayerError[]): string {
  const kinds = new Map<string, LayerError[]>();
  for (const e of errors) {
    const kind = e.name.replace(/^blocks\.\d+\.|\.weight$/g, '');
    kinds.set(kind, [...(kinds.get(kind) ?? []), e]);
  }
  const table = new Table({ head: ['layer', 'as', 'error', 'worst block', ''], style: { head: [], border: [] } });
  const relative = (some: readonly LayerError[]): number => {
    const sum = (key: 'difference' | 'norm') => some.reduce((n, e) => n + e[key], 0);
    return Math.sqrt(sum('difference') / (sum('norm') || 1));
  };
  const percent = (x: number): string => `${(100 * x).toPrecision(3)} %`;
  for (const [kind, all] of kinds) {
    const worst = all.reduce((a, b) => (relative([b]) > relative([a]) ? b : a));
    const types = [...new Set(all.map((e) => e.dtype))].join(', ');
    table.push([kind, types, percent(relative(all)), worst.name.split('.')[1]!, percent(relative([worst]))]);
  }
  table.push(['all', '', percent(relative(errors)), '', '']);
  return table.toString();
}

const isPackedExport = (dtype: ExportArgs['dtype']): dtype is PackedExport =>
  PACKED_EXPORTS.some((packed) => packed === dtype);

async function exportFull(source: Source, args: ExportArgs, dtype: FloatType): Promise<string> {
  const naming = namingOf(source, args.names);
  if (args.lora.length && source.kind === 'vae') throw new UsageError('--lora adds to a transformer, this is a VAE');
  const loras = await Promise.all(args.lora.map((l) => readLora(l, source.shapes)));
  const progress = meter('export', { unit: 'tensors', total: source.weights.entries.size });
  try {
    const options = { naming, loras, metadata: card(source, args), onTensor: (done: number) => progress.at(done) };
    if (isPackedExport(args.dtype)) {
      if (source.kind === 'vae') throw new UsageError(`--dtype ${args.dtype} is for transformers, this is a VAE`);
      const errors = await exportPacked(args.out, source.weights, { ...options, dtype: args.dtype });
      progress.end();
      console.log(errorTable(errors));
    } else await exportWeights(args.out, source.weights, { ...options, dtype });
  } finally {
    progress.end();
  }
  return `${source.weights.entries.size} tensors in ${args.dtype}`;
}

async function exportChange(source: Source, args: ExportArgs, dtype: FloatType): Promise<string> {
  if (args.lora.length) throw new UsageError('--lora cannot be joined with --base');
  if (isPackedExport(args.dtype))
    throw new UsageError(`--dtype ${args.dtype} is for whole models, a LoRA is f16, bf16 or f32`);
  const base = await openModel(args.base!, [], args.expert);
  try {
    if (source.kind === 'vae' || base.kind === 'vae')
      throw new UsageError('a LoRA is of a transformer, one of these is a VAE');
    checkFit(base.weights, source.shapes);
    const naming: LoraNaming = args.names === 'wan' ? 'comfyui' : args.names;
    const progress = meter('export', { unit: 'tensors', total: source.weights.entries.size });
    const { adapters, differences, kept } = await changeOf(
      source.weights,
      base.weights,
      count('rank', args.rank, 1, 1024),
      (done) => progress.at(done),
    ).finally(progress.end);
    const others = Object.keys(differences).length;
    await saveLora(args.out, adapters, {
      naming,
      dtype,
      metadata: card(source, args),
      ...(naming === 'comfyui' && { differences }),
    });
    const rest =
      others && naming !== 'comfyui'
        ? `; ${others} other weights have changed, of which only ComfyUI's names can tell`
        : '';
    return `${Object.keys(adapters).length / 2} linears, rank ${args.rank} keeps ${(100 * kept).toFixed(1)} % of their squared change${rest}`;
  } finally {
    await base.weights.close();
  }
}

async function exportModel(args: ExportArgs): Promise<void> {
  willWrite(args.out);
  const source = await openModel(args.model, args.weights, args.expert);
  try {
    const dtype = args.dtype.toUpperCase() as FloatType;
    const what = await (args.base === undefined ? exportFull : exportChange)(source, args, dtype).catch(
      (error: NodeJS.ErrnoException) => {
        throw error.syscall ? writeError('export', args.out, error) : error;
      },
    );
    console.log(`${args.out}: ${what}, ${bytes(statSync(args.out).size)}`);
  } finally {
    await source.weights.close();
  }
}

const command: CommandModule<object, ExportArgs> = {
  command: 'export <model>',
  describe: "write a model's weights as safetensors or GGUF for other programs, or its change from a base as a LoRA",
  builder: (y) =>
    y
      .positional('model', {
        type: 'string',
        demandOption: true,
        describe: 'a model file, as runs/digits/student.safetensors, or a folder of Wan2.1 or Wan2.2',
      })
      .options({
        out: { type: 'string', demandOption: true, describe: 'the file to write' },
        dtype: {
          choices: ['f16', 'bf16', 'f32', ...PACKED_EXPORTS] as const,
          default: 'f16' as const,
          describe:
            'of every tensor; q8_0 and q4_k write a GGUF, fp8_scaled what ComfyUI reads: packed linears of the blocks',
        },
        names: {
          choices: NAMES,
          default: 'wan' as const,
          describe: "whose names the tensors have; kohya's are for LoRAs",
        },
        lora: {
          type: 'string',
          array: true,
          nargs: 1,
          default: [] as string[],
          describe: 'merge a LoRA, as style.safetensors or style.safetensors:0.8; may be given again',
        },
        ...weights,
        base: {
          type: 'string',
          describe: 'write a LoRA: what makes this model of that one, as runs/digits/teacher.safetensors',
        },
        expert: {
          choices: ['high', 'low'] as const,
          describe: 'of a folder with two transformers (Wan2.2 A14B): which',
        },
        rank: { type: 'number', default: 32, describe: 'of that LoRA' },
      })
      .example('$0 export runs/digits/student.safetensors --out student-f16.safetensors', 'half the size')
      .example(
        '$0 export runs/digits/student.safetensors --base bundle/digits/teacher.safetensors --rank 16 --names comfyui --out student-lora.safetensors',
        'a LoRA that makes the teacher a student',
      ),
  handler: exportModel,
};
export default command;

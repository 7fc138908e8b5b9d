/**
 * Opening weights, whatever they are kept in: a safetensors file, a GGUF, a PyTorch
 * file, the index of a sharded checkpoint, or a folder of these.
 */
import { basename, dirname, isFolder, join, list, readTextFile } from '../../engine/host/files.ts';
import { readGguf } from './gguf.ts';
import { readPth } from './pth.ts';
import { readSafetensors } from './safetensors.ts';
import { withScales } from './scaled.ts';
import { parseJson } from './json.ts';
import { standIn, TELLING } from './standin.ts';
import { DataFile, few, isObject, WeightsError, type Archive } from './stored.ts';
import { Weights } from './weights.ts';

const FORMATS: { name: string; begins: readonly number[]; read: (file: DataFile) => Promise<Archive> }[] = [
  { name: 'pth', begins: [0x50, 0x4b], read: readPth }, // "PK"
  {
    name: 'pth',
    begins: [0x80, 0x02, 0x8a, 0x0a],
    read: async () => {
      throw new Error('was written by a PyTorch before 1.6: load it there and torch.save it again');
    },
  },
  { name: 'gguf', begins: [0x47, 0x47, 0x55, 0x46], read: readGguf },
  { name: 'safetensors', begins: [], read: readSafetensors },
];

/**
 * @param path a file, told by its content; a .index.json; or a folder that holds one checkpoint
 * @param stem of the files that count in a folder: how their names begin
 * @throws WeightsError
 */
export async function openWeights(path: string, stem = ''): Promise<Weights> {
  const folder = await isFolder(path);
  const source = folder ? await inFolder(path, stem) : path;
  const shards = Array.isArray(source)
    ? source
    : source.endsWith('.json')
      ? await readIndex(source)
      : [{ path: source }];
  return openShards(Array.isArray(source) ? path : source, shards);
}

/** `names`: the tensors that an index says it holds. */
interface Shard {
  path: string;
  names?: ReadonlySet<string>;
}

async function openShards(path: string, shards: readonly Shard[]): Promise<Weights> {
  const files: DataFile[] = [];
  try {
    const archives: Archive[] = [];
    for (const shard of shards) {
      const file = await DataFile.open(shard.path);
      files.push(file);
      archives.push(await readFormat(file));
    }
    checkShards(path, shards, archives);
    const metadata = Object.assign({}, ...archives.map((a) => a.metadata)) as Record<string, string>;
    const tensors = new Map(archives.flatMap((a) => [...a.tensors]));
    return new Weights(path, files, withScales(path, tensors), metadata);
  } catch (error) {
    for (const file of files) await file.close();
    throw error;
  }
}

async function readFormat(file: DataFile): Promise<Archive> {
  const begin = await file.read(0, Math.min(TELLING, file.size));
  const other = standIn(begin);
  if (other !== undefined) throw new WeightsError('weights', file.path, other);
  const format = FORMATS.find((f) => f.begins.every((byte, i) => begin[i] === byte))!;
  return format.read(file).catch((e: Error) => {
    throw new WeightsError(format.name, file.path, `${misnamed(file.path, format.name)}${e.message}`, e);
  });
}

/** What a file that cannot be read is, where its name says another thing. */
function misnamed(path: string, format: string): string {
  const [, ending = ''] = /\.(safetensors|gguf)$/.exec(path) ?? [];
  if (!ending || ending === format) return '';
  return format === 'safetensors'
    ? 'is named .gguf, but does not begin with GGUF, and read as safetensors it '
    : `is a ${format.toUpperCase()}, named .${ending}, and `;
}

async function readIndex(path: string): Promise<Shard[]> {
  const fail = (why: string, cause?: unknown) => new WeightsError('weights', path, why, cause);
  const text = await readTextFile(path).catch((e: Error & { code?: string }) => {
    throw fail(e.code === 'ENOENT' ? 'there is no such file' : e.message, e);
  });
  let json: unknown;
  try {
    json = parseJson(text);
  } catch (error) {
    throw fail((error as Error).message, error);
  }
  const map = isObject(json) ? json['weight_map'] : undefined;
  if (
    !isObject(map) ||
    Object.values(map).some((v) => typeof v !== 'string' || v.length > 255 || /[\\/]|^\.{0,2}$/.test(v))
  ) {
    throw fail('weight_map must give the name of a file beside the index for each tensor');
  }
  const files = new Map<string, Set<string>>();
  for (const [name, file] of Object.entries(map as Record<string, string>))
    files.set(file, (files.get(file) ?? new Set()).add(name));
  return [...files].map(([file, names]) => ({ path: join(dirname(path), file), names }));
}

/** Every tensor must stand where the index says, and nowhere else. */
function checkShards(path: string, shards: readonly Shard[], archives: readonly Archive[]): void {
  const seen = new Map<string, string>();
  const unknown: string[] = [],
    absent: string[] = [],
    twice: string[] = [];
  archives.forEach(({ tensors }, i) => {
    const { path: shard, names } = shards[i]!;
    const file = basename(shard);
    for (const name of tensors.keys()) {
      if (names && !names.has(name)) unknown.push(`${name} in ${file}`);
      if (seen.has(name)) twice.push(`${name} in ${seen.get(name)} and ${file}`);
      seen.set(name, file);
    }
    for (const name of names ?? []) if (!tensors.has(name)) absent.push(`${name} in ${file}`);
  });
  const kinds: [string, string[]][] = [
    ['tensors the index does not know', unknown],
    ['missing', absent],
    ['that stand twice', twice],
  ];
  const wrong = kinds.filter(([, all]) => all.length).map(([what, all]) => few(what, all));
  if (wrong.length) throw new WeightsError('weights', path, `does not fit its files:\n  ${wrong.join('\n  ')}`);
}

const SHARD = /^(.*)-(\d{5})-of-(\d{5})(?:\.\w+)?\.(safetensors|bin|pth|pt)$/;

/** What Diffusers, transformers and PEFT write: beside others, as variants of half the size, it is this that counts. */
const USUAL =
  /^(diffusion_pytorch_model|model|pytorch_model|pytorch_lora_weights|adapter_model)\.(safetensors|bin)(\.index\.json)?$/;

/** The one checkpoint of a folder: an index, shards without one, or a file; safetensors before PyTorch's. */
async function inFolder(folder: string, stem: string): Promise<string | Shard[]> {
  const names = (await list(folder)).filter((n) => n.startsWith(stem)).sort();
  for (const extension of ['safetensors', '(bin|pth|pt)', 'gguf']) {
    const indexes = names.filter((n) => new RegExp(`\\.${extension}\\.index(\\.\\w+)?\\.json$`).test(n));
    const whole = names.filter((n) => new RegExp(`\\.${extension}$`).test(n) && !SHARD.test(n));
    const parts = names.filter((n) => SHARD.test(n) && new RegExp(`\\.${extension}$`).test(n));
    const all = [...indexes, ...whole];
    const usual = all.filter((n) => USUAL.test(n));
    const [own, more] = all.length > 1 && usual.length ? usual : all;
    if (more !== undefined)
      throw new WeightsError(
        'weights',
        folder,
        `holds several checkpoints, name one of ${all.join(', ')} as its weights (--weights), or move the others elsewhere`,
      );
    if (own !== undefined) return join(folder, own);
    if (!parts.length) continue;
    const total = Number(SHARD.exec(parts[0]!)![3]);
    if (parts.length !== total) throw new WeightsError('weights', folder, `holds ${parts.length} of ${total} shards`);
    return parts.map((n) => ({ path: join(folder, n) }));
  }
  throw new WeightsError('weights', folder, `has no file ${stem}*.safetensors, .gguf, .bin, .pth or .pt`);
}

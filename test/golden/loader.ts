/** Reference files for the weights loader: what must be read to the bit, what must be refused, and the real checkpoints' tables. */
import { readFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { clipShapes } from '../../model/clip/clip.ts';
import { clipConfig, type CLIPConfig } from '../../model/clip/config.ts';
import { WAN22_VAE, WAN_VAE, type VAEConfig } from '../../model/config.ts';
import { imagesOf, vaeConfigOf, wanDiT } from '../../model/files/configs.ts';
import { fromBF16, fromF16, toBF16, toF16 } from '../../model/halves.ts';
import { diffusersDiT, diffusersVAE, transformersUMT5 } from '../../model/files/names.ts';
import { openWeights } from '../../model/files/open.ts';
import { FLOATS, WeightsError, type Entry, type StoredData, type StoredType } from '../../model/files/stored.ts';
import type { Weights } from '../../model/files/weights.ts';
import { umt5Config } from '../../model/umt5/config.ts';
import { umt5Shapes } from '../../model/umt5/umt5.ts';
import { ditShapes } from '../../model/wan/dit.ts';
import { vaeShapes } from '../../model/wan/vae.ts';
import type { Attrs, FileEntry, Manifest, Verdict } from './format.ts';

const pass = (note: string): Verdict => ({ status: 'pass', note });
const fail = (note: string): Verdict => ({ status: 'fail', note });
const skip = (note: string): Verdict => ({ status: 'skip', note });

async function withWeights<T>(path: string, use: (w: Weights) => Promise<T>): Promise<T> {
  const weights = await openWeights(path);
  try {
    return await use(weights);
  } finally {
    await weights.close();
  }
}

/** Equal as JSON has them: whole numbers as decimal strings, booleans as such. */
function sameValues(dtype: StoredType, data: StoredData, values: readonly (number | string | boolean)[]): boolean {
  const floats = dtype === 'F64' ? data : (FLOATS[dtype]?.(data) ?? data);
  return (
    floats.length === values.length &&
    values.every((v, i) => (typeof v === 'boolean' ? Number(v) === floats[i] : String(floats[i]) === String(v)))
  );
}

async function accepted(path: string, entry: Attrs): Promise<Verdict> {
  return withWeights(path, async (w) => {
    const tensors = Object.entries(
      entry['tensors'] as Record<string, { dtype: StoredType; shape: number[]; values: (number | string | boolean)[] }>,
    );
    if (w.entries.size !== tensors.length) return fail(`${w.entries.size} tensors, expected ${tensors.length}`);
    if (entry['metadata'] && JSON.stringify(w.metadata) !== JSON.stringify(entry['metadata']))
      return fail(`metadata ${JSON.stringify(w.metadata)}`);
    for (const [name, { dtype, shape, values }] of tensors) {
      const got = w.entries.get(name);
      if (got?.dtype !== dtype || String(got.shape) !== String(shape))
        return fail(`${name}: ${got?.dtype} [${String(got?.shape)}], expected ${dtype} [${String(shape)}]`);
      if (!sameValues(dtype, await w.read(name), values)) return fail(`${name}: values differ`);
    }
    return pass(`${tensors.length} tensors to the bit`);
  });
}

/** Quantised weights: names, types, shapes and metadata; what scales and markers say is judged with the values they are for. */
async function quantised(path: string, { tensors, metadata = {} }: Attrs): Promise<Verdict> {
  return withWeights(path, async (w) => {
    const all = Object.entries(tensors as Record<string, { dtype: StoredType; shape: number[] }>);
    const beside = /(^|\.)(scale_weight|weight_scale|scale_input|input_scale|scaled_fp8|comfy_quant)$/;
    const named = all.filter(([name]) => !beside.test(name) || w.entries.has(name));
    if (w.entries.size !== named.length) return fail(`${w.entries.size} tensors, expected ${named.length}`);
    const bad = Object.entries(metadata as Attrs).find(
      ([key, x]) => w.metadata[key] !== (typeof x === 'string' ? x : JSON.stringify(x)),
    );
    if (bad) return fail(`metadata ${bad[0]} is ${w.metadata[bad[0]]}`);
    for (const [name, { dtype, shape }] of named) {
      const got = w.entries.get(name);
      const noted = metadata[`comfy.gguf.orig_shape.${name}`] as number[] | undefined;
      if (got?.dtype !== dtype || String(got.shape) !== String(noted ?? shape))
        return fail(`${name}: ${got?.dtype} [${String(got?.shape)}], expected ${dtype} [${String(shape)}]`);
    }
    return pass(`${named.length} tensors, ${Object.keys(metadata as Attrs).length} keys`);
  });
}

const refused = (path: string): Promise<Verdict> =>
  withWeights(path, async () => fail('it was read')).catch((error: Error) =>
    error instanceof WeightsError
      ? pass(error.message.slice(error.message.indexOf(path) + path.length + 2))
      : fail(error.message),
  );

/** Shards hold the f32 weights of another file of the folder, rounded to bf16. */
async function sharded(folder: string, path: string, manifest: Manifest): Promise<Verdict> {
  const original = Object.values(manifest.files).find((f) => f.kind === 'umt5_encoder');
  if (!original) return skip('the file it was made from is not here');
  return withWeights(join(folder, original.file), async (source) =>
    withWeights(path, async (w) => {
      for (const [name, { dtype }] of w.entries) {
        const bits = toBF16((await source.read(name)) as Float32Array);
        const got = (await w.read(name)) as Uint16Array;
        if (dtype !== 'BF16' || bits.some((b, i) => b !== got[i])) return fail(`${name} differs`);
      }
      return pass(`${w.entries.size} tensors to the bit`);
    }),
  );
}

/** A PyTorch archive holds what a safetensors file beside it does. */
async function pytorch(path: string, expected: string): Promise<Verdict> {
  return withWeights(expected, async (source) =>
    withWeights(path, async (w) => {
      const types = (of: Weights) =>
        [...of.entries]
          .map(([n, { dtype, shape }]) => `${n}: ${dtype} [${String(shape)}]`)
          .sort()
          .join();
      if (types(w) !== types(source)) return fail(`${types(w)}, expected ${types(source)}`);
      for (const name of w.entries.keys())
        if (String(await w.read(name)) !== String(await source.read(name))) return fail(`${name} differs`);
      return pass(`${w.entries.size} tensors to the bit`);
    }),
  );
}

/** Every entry of the manifest's loader section, by file name. */
export async function* loaderCases(folder: string, manifest: Manifest): AsyncGenerator<[string, Verdict]> {
  for (const entry of manifest.loader?.entries ?? []) {
    const name = entry['file'] as string,
      path = join(folder, name);
    const check = entry['must_be_rejected']
      ? refused(path)
      : name.endsWith('.json')
        ? sharded(folder, path, manifest)
        : /^(quant|wild)\//.test(name)
          ? quantised(path, entry)
          : name.endsWith('.safetensors')
            ? accepted(path, entry)
            : pytorch(path, join(folder, entry['expected'] as string));
    yield [name, await check.catch((e: Error) => fail(e.message))];
  }
}

/** The tables of names and shapes of released checkpoints against what the models declare. */
export async function* keyCases(folder: string): AsyncGenerator<[string, Verdict]> {
  const names = await readdir(join(folder, 'wan-keys')).catch(() => []);
  for (const name of names.filter((n) => n.endsWith('.json')).sort()) {
    const table = JSON.parse(await readFile(join(folder, 'wan-keys', name), 'utf8')) as Attrs;
    const check = async () => (table['mapping'] ? renames(table) : keys(table));
    yield [`wan-keys/${name}`, await check().catch((e: Error) => fail(e.message))];
  }
}

const VAES: Readonly<Record<string, VAEConfig>> = { 'wan2.1-vae': WAN_VAE, 'wan2.2-vae': WAN22_VAE };

const entriesOf = (tensors: Readonly<Record<string, number[]>>): ReadonlyMap<string, Entry> =>
  new Map(Object.entries(tensors).map(([name, shape]) => [name, { dtype: 'F32', shape } satisfies Entry]));

/** Name → name in another project, for a checkpoint's every tensor. */
function renames({ model, mapping, tensor_count }: Attrs): Verdict {
  const { theirs } =
    model === 'umt5-xxl-encoder' ? transformersUMT5 : VAES[model] ? diffusersVAE(VAES[model]) : diffusersDiT;
  const wrong = Object.entries(mapping as Record<string, string>).filter(
    ([own, other]) => String(theirs(own)) !== other,
  );
  if (wrong.length || Object.keys(mapping as object).length !== tensor_count)
    return fail(
      wrong
        .slice(0, 5)
        .map(([own, other]) => `${own}: ours ${String(theirs(own))}, theirs ${other}`)
        .join('\n    '),
    );
  return pass(`${tensor_count} names`);
}

/** The numbers of a whole CLIP → those of its visual tower. */
const visualTower = ({
  embed_dim,
  image_size,
  patch_size,
  vision_dim,
  vision_mlp_ratio,
  vision_heads,
  vision_layers,
  activation,
}: Attrs): CLIPConfig =>
  clipConfig({
    image_size,
    patch_size,
    activation,
    dim: vision_dim,
    mlp_ratio: vision_mlp_ratio,
    out_dim: embed_dim,
    num_heads: vision_heads,
    num_layers: vision_layers,
  });

function keys({ config, tensors }: Attrs): Verdict {
  const shapes = config.model_type
    ? ditShapes(imagesOf(wanDiT(config), Object.keys(tensors)))
    : config.dim_mult
      ? vaeShapes(vaeConfigOf(entriesOf(tensors)))
      : config.vocab
        ? umt5Shapes(umt5Config(config))
        : clipShapes(visualTower(config));
  const wrong = [
    ...Object.keys(tensors)
      .filter((n) => String(shapes[n]) !== String(tensors[n]))
      .map((n) => `${n}: ours [${String(shapes[n])}], theirs [${String(tensors[n])}]`),
    ...Object.keys(shapes)
      .filter((n) => !(n in tensors))
      .map((n) => `${n}: theirs has none`),
  ];
  return wrong.length ? fail(wrong.slice(0, 5).join('\n    ')) : pass(`${Object.keys(shapes).length} names and shapes`);
}

const sameBits = (got: Uint16Array, expected: Uint16Array, quiet: (bits: number) => boolean): boolean =>
  got.every((b, i) => b === expected[i] || (quiet(b) && quiet(expected[i]!)));
const sameFloats = (got: Float32Array, expected: Float32Array): boolean =>
  got.every((x, i) => Object.is(x, expected[i]));

/** f16 and bf16 conversions, exhaustive; every NaN equals every other. */
export async function* halfCases(folder: string, entry: FileEntry): AsyncGenerator<[string, Verdict]> {
  const read = (name: string) => withWeights(join(folder, entry.file), (w) => w.read(name));
  const bits = async (name: string) => (await read(name)) as Uint16Array;
  const floats = async (name: string) => (await read(name)) as Float32Array;
  const nan16 = (b: number) => (b & 0x7fff) > 0x7c00,
    nanB = (b: number) => (b & 0x7fff) > 0x7f80;
  const result = (ok: boolean, n: number): Verdict => (ok ? pass(`${n} values to the bit`) : fail('bits differ'));
  const f16 = await floats('f16_to_f32/value');
  yield [
    'f16_to_f32',
    result(
      sameFloats(fromF16(await bits('f16_to_f32/bits')), f16) &&
        sameFloats(fromF16(await bits('f16_to_f32/tensor')), f16),
      f16.length,
    ),
  ];
  const given = await floats('f32_to_f16/value'),
    half = toF16(given);
  yield [
    'f32_to_f16',
    result(
      sameBits(half, await bits('f32_to_f16/bits'), nan16) &&
        sameFloats(fromF16(half), await floats('f32_to_f16/roundtrip')),
      given.length,
    ),
  ];
  const wide = await floats('f32_to_bf16/value');
  yield ['f32_to_bf16', result(sameBits(toBF16(wide), await bits('f32_to_bf16/bits'), nanB), wide.length)];
  const brain = await floats('bf16_to_f32/value');
  yield [
    'bf16_to_f32',
    result(
      sameFloats(fromBF16(await bits('bf16_to_f32/tensor')), brain) &&
        sameFloats(fromBF16(await bits('bf16_to_f32/bits')), brain),
      brain.length,
    ),
  ];
}

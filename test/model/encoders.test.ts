/** Text and image encoders: properties in the float64 oracle, and block by block from files on a device. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { open } from '../../engine/runtime/device.ts';
import { gather } from '../../engine/frontend/functional.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { clip, clipPixels, clipSpecs, clipTables, type CLIPTables } from '../../model/clip/clip.ts';
import { clipConfig } from '../../model/clip/config.ts';
import { encodeImage } from '../../model/clip/encode.ts';
import { OWN } from '../../model/files/names.ts';
import { openWeights } from '../../model/files/open.ts';
import { exportPacked, type PackedExport } from '../../model/files/packedexport.ts';
import { saveTensors } from '../../model/files/safetensors.ts';
import type { Weights } from '../../model/files/weights.ts';
import type { HostParams } from '../../model/params.ts';
import { Tokenizer } from '../../model/tokenizer.ts';
import { umt5Config } from '../../model/umt5/config.ts';
import { encodeText } from '../../model/umt5/encode.ts';
import { relativeBucket, relativeBuckets, umt5, umt5Specs, type UMT5Context } from '../../model/umt5/umt5.ts';
import { oracle } from '../golden/executor.ts';
import { largest, noise, scrambled, tinyTokenizer } from './tiny.ts';
import { held } from '../held.ts';

const json = tinyTokenizer();
const tokenizer = new Tokenizer(json);
const textConfig = umt5Config({
  vocab: json.model.vocab.length,
  dim: 16,
  dim_attn: 24,
  dim_ffn: 20,
  num_heads: 2,
  num_layers: 3,
});
const textParams = scrambled(umt5Specs(textConfig));
const imageConfig = clipConfig({ image_size: 8, patch_size: 4, dim: 16, out_dim: 4, num_heads: 2, num_layers: 3 });

/** Hidden states of texts padded to `length`. */
async function hidden(params: HostParams, texts: readonly number[][], length: number): Promise<HostTensor> {
  const ids = host(
    texts.flatMap((t) => [...t, ...Array.from({ length: length - t.length }, () => 0)]),
    [texts.length, length],
    'u32',
  );
  const context: UMT5Context<HostTensor> = {
    lengths: host(
      texts.map((t) => t.length),
      [texts.length],
      'u32',
    ),
    buckets: relativeBuckets(length, textConfig),
  };
  const { y } = await oracle.run(
    ({ p, ids, context }: { p: Record<string, Tensor>; ids: Tensor; context: UMT5Context }) => ({
      y: umt5(p, textConfig, gather(p['token_embedding.weight']!, ids), context),
    }),
    { p: params, ids, context },
  );
  return y!;
}

const BLOCKS = 'visual.transformer.';

/** Writes the tower with its blocks' linears packed. */
async function packTower(path: string, params: HostParams, dtype: PackedExport): Promise<void> {
  const short = (name: string): string => name.replace(BLOCKS, 'blocks.'); // what is packed of a DiT
  await saveTensors(`${path}.f32`, Object.fromEntries(Object.entries(params).map(([name, t]) => [short(name), t])));
  const weights = await openWeights(`${path}.f32`);
  const naming = { ...OWN, theirs: (name: string) => [name.replace(/^blocks\./, BLOCKS)] };
  await exportPacked(path, weights, { naming, dtype, metadata: {} }).finally(() => weights.close());
}

/** Stores weights in `dtype`, and hands on the file and what reading it gives. */
async function stored<T>(
  params: HostParams,
  dtype: 'F32' | 'F16' | 'BF16' | PackedExport,
  use: (weights: Weights, rounded: HostParams) => Promise<T>,
): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), 'vpae-encoders-'));
  try {
    const path = join(folder, 'weights.safetensors');
    if (dtype === 'F32' || dtype === 'F16' || dtype === 'BF16') await saveTensors(path, params, { dtype });
    else await packTower(path, params, dtype);
    const weights = await openWeights(path);
    const rounded: HostParams = {};
    for (const name of Object.keys(params)) rounded[name] = await weights.tensor(name);
    return await use(weights, rounded).finally(() => weights.close());
  } finally {
    await rm(folder, { recursive: true });
  }
}

test('distances before and after a token have tables of their own, and far ones one row', () => {
  const bucket = (d: number) => relativeBucket(d, textConfig);
  assert.equal(
    [-1000, -128, -127, -8, -7, -1, 0, 1, 7, 8, 128, 1000].map(bucket),
    [15, 15, 15, 8, 7, 1, 0, 17, 23, 24, 31, 31],
  );
});

test('padding does not change a text, and the order of its words does', async () => {
  const [a, b] = [
    [5, 9, 4, 1],
    [7, 1],
  ];
  const padded = await hidden(textParams, [a, b], 7);
  const rows = (from: number, count: number) =>
    host(Float64Array.from(padded.data.slice(16 * from, 16 * (from + count))), [1, count, 16]);
  assert.ok(largest(rows(0, 4), await hidden(textParams, [a], 4)) < 1e-12);
  assert.ok(largest(rows(7, 2), await hidden(textParams, [b], 2)) < 1e-12);
  assert.ok(largest(await hidden(textParams, [[9, 5, 4, 1]], 4), await hidden(textParams, [a], 4)) > 0.1);
});

for (const dtype of ['BF16', 'F32'] as const) {
  test(`prompts from a ${dtype} file, block by block, are what the whole encoder gives`, async () => {
    const device = await open();
    const before = await held(device);
    const prompts = ['Two cats in the snow', '', 'a red dog runs'];
    await stored(textParams, dtype, async (weights, rounded) => {
      const seen: number[] = [];
      const { text, lengths } = await encodeText(device, weights, tokenizer, prompts, {
        config: textConfig,
        textLen: 9,
        onProgress: (done) => seen.push(done),
      });
      assert.equal(text.shape, [3, 9, 16]);
      assert.equal(
        lengths,
        prompts.map((p) => tokenizer.encode(p).length),
      );
      assert.equal(seen, [3, 6, 9]);
      for (const [b, prompt] of prompts.entries()) {
        const alone = await hidden(rounded, [tokenizer.encode(prompt)], lengths[b]!);
        const row = text.data.slice(b * 9 * 16, (b + 1) * 9 * 16);
        assert.ok(largest(alone, host(row.slice(0, 16 * lengths[b]!), alone.shape)) < 2e-4, prompt);
        assert.ok(row.subarray(16 * lengths[b]!).every((v) => v === 0));
      }
    });
    assert.is(device.allocated, before);
  });
}

for (const dtype of ['F16', 'BF16', 'q8_0', 'fp8_scaled'] as const)
  test(`a picture from a file in ${dtype}, block by block, gives the features of the whole tower`, async () => {
    const device = await open();
    const before = await held(device);
    const images = noise('pictures', [2, 3, 10, 6]);
    await stored(
      { ...scrambled(clipSpecs(imageConfig)), 'textual.head': noise('other', [2]) },
      dtype,
      async (weights, rounded) => {
        const { dtype: kept } = weights.entries.get(`${BLOCKS}0.mlp.2.weight`)!;
        assert.is(kept, { F16: 'F16', BF16: 'BF16', q8_0: 'Q8_0', fp8_scaled: 'F8_E4M3' }[dtype]);
        const tables = clipTables(imageConfig, [10, 6]);
        const { y } = await oracle.run(
          ({ p, images, tables }: { p: Record<string, Tensor>; images: Tensor; tables: CLIPTables<Tensor> }) => ({
            y: clip(p, imageConfig, clipPixels(images, tables)),
          }),
          { p: rounded, images, tables },
        );
        const got = await encodeImage(device, weights, images, { config: imageConfig });
        assert.equal(got.shape, [2, 5, 16]);
        assert.ok(largest(y!, got) < 2e-4);
      },
    );
    assert.is(device.allocated, before);
  });

test('a stopped encoder gives its memory back', async () => {
  const device = await open();
  const before = await held(device);
  const stop = new AbortController();
  const message = await stored(textParams, 'F32', (weights) =>
    encodeText(device, weights, tokenizer, ['a cat'], {
      config: textConfig,
      signal: stop.signal,
      onProgress: () => stop.abort(new Error('enough')),
    }).then(
      () => 'it went on',
      (e: Error) => e.message,
    ),
  );
  assert.is(message, 'enough');
  assert.is(device.allocated, before);
});

test('numbers that do not fit are refused', () => {
  assert.throws(() => umt5Config({ ...textConfig, num_heads: 5, num_buckets: 6 }), /num_buckets: .*multiple of 4/);
  assert.throws(
    () => umt5Config({ ...textConfig, num_heads: 5 }),
    /dim_attn: must be a multiple of num_heads 5, got 24/,
  );
  assert.throws(() => umt5Config({ ...textConfig, shared_pos: true }), /shared_pos/);
  assert.throws(() => clipConfig({ ...imageConfig, patch_size: 3, num_layers: 1 }), /num_layers: needs two blocks/);
  assert.throws(() => clipConfig({ ...imageConfig, activation: 'quick_gelu' }), /activation/);
});

test.run();

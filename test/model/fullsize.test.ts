/**
 * A checkpoint folder of Wan2.1 I2V-14B with every released name, shape and type, as sparse
 * files of 80 GB: it opens at once, and values far inside are found.
 */
import { Buffer } from 'node:buffer';
import { mkdir, mkdtemp, open, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import process from 'node:process';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { numel } from '../../kernels/kernel.ts';
import { clipShapes } from '../../model/clip/clip.ts';
import { CLIP_VIT_H } from '../../model/clip/config.ts';
import { ditConfig, WAN_VAE } from '../../model/config.ts';
import { openCheckpoint } from '../../model/files/checkpoint.ts';
import type { Shapes } from '../../model/files/load.ts';
import { UMT5_XXL } from '../../model/umt5/config.ts';
import { umt5Shapes } from '../../model/umt5/umt5.ts';
import { ditShapes } from '../../model/wan/dit.ts';
import { vaeShapes } from '../../model/wan/vae.ts';
import { sparsePth, type PthTensor, type Sparse } from './pthfile.ts';
import { tinyTokenizer } from './tiny.ts';

/** config.json of the release, word for word. */
const CONFIG = {
  _class_name: 'WanModel',
  _diffusers_version: '0.30.0',
  dim: 5120,
  eps: 1e-6,
  ffn_dim: 13824,
  freq_dim: 256,
  in_dim: 36,
  model_type: 'i2v',
  num_heads: 40,
  num_layers: 40,
  out_dim: 16,
  text_len: 512,
};
const dit = ditShapes(ditConfig({ ...CONFIG, patch_size: [1, 2, 2], text_dim: 4096 }));
const SHARDS = 7;

async function write(path: string, { size, pieces }: Sparse): Promise<void> {
  const file = await open(path, 'w');
  await file.truncate(size);
  for (const { at, bytes } of pieces) await file.write(bytes, 0, bytes.length, at);
  await file.close();
}

/** f32 shards of an equal number of tensors; the last value of each is its shard's number. */
async function writeShards(folder: string): Promise<void> {
  const names = Object.keys(dit),
    each = Math.ceil(names.length / SHARDS);
  const map: Record<string, string> = {};
  for (let i = 0; i < SHARDS; i++) {
    const file = `diffusion_pytorch_model-0000${i + 1}-of-0000${SHARDS}.safetensors`;
    const header: Record<string, object> = {};
    let at = 0;
    for (const name of names.slice(i * each, (i + 1) * each)) {
      const end = at + 4 * numel(dit[name]!);
      header[name] = { dtype: 'F32', shape: dit[name], data_offsets: [at, end] };
      map[name] = file;
      at = end;
    }
    const text = Buffer.from(JSON.stringify(header));
    const size = 8 + text.length + at;
    await write(join(folder, file), {
      size,
      pieces: [
        { at: 0, bytes: Buffer.from(BigUint64Array.of(BigInt(text.length)).buffer) },
        { at: 8, bytes: text },
        { at: size - 4, bytes: Buffer.from(Float32Array.of(i + 1).buffer) },
      ],
    });
  }
  await writeFile(
    join(folder, 'diffusion_pytorch_model.safetensors.index.json'),
    JSON.stringify({ metadata: {}, weight_map: map }),
  );
}

/** All zero, but the tensor `last`, which is one everywhere. */
const state = (shapes: Shapes, dtype: 'F32' | 'F16' | 'BF16', last: string): Record<string, PthTensor> =>
  Object.fromEntries(
    Object.entries(shapes).map(([name, shape]) => {
      const n = numel(shape);
      const one = {
        F32: () => new Float32Array(n).fill(1),
        F16: () => new Uint16Array(n).fill(0x3c00),
        BF16: () => new Uint16Array(n).fill(0x3f80),
      };
      return [
        name,
        { dtype, shape, storage: name === last ? one[dtype]() : { byteLength: n * (dtype === 'F32' ? 4 : 2) } },
      ];
    }),
  );

const test = suite('full size');
let folder = '';
test.before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'full-'));
});
test.after(() => rm(folder, { recursive: true }));

async function check(): Promise<void> {
  await writeFile(join(folder, 'config.json'), JSON.stringify(CONFIG));
  await writeShards(folder);
  await write(join(folder, 'Wan2.1_VAE.pth'), sparsePth(state(vaeShapes(WAN_VAE), 'F32', 'decoder.head.2.bias')));
  await write(
    join(folder, 'models_t5_umt5-xxl-enc-bf16.pth'),
    sparsePth(state(umt5Shapes(UMT5_XXL), 'BF16', 'norm.weight')),
  );
  await write(
    join(folder, 'models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth'),
    sparsePth(state(clipShapes(CLIP_VIT_H), 'F16', 'visual.transformer.30.mlp.2.bias')),
  );
  await mkdir(join(folder, 'google/umt5-xxl'), { recursive: true });
  await writeFile(join(folder, 'google/umt5-xxl/tokenizer.json'), JSON.stringify(tinyTokenizer()));

  const before = process.memoryUsage.rss();
  const { dit: net, vae, text, image } = await openCheckpoint(folder);
  const parameters = (shapes: Shapes) => Object.values(shapes).reduce((n, s) => n + numel(s), 0);
  assert.equal(
    [net, vae, text, image!].map((p) => parameters(p.shapes)),
    [16_394_878_784, 126_892_531, 5_680_910_336, 611_086_080],
  );
  assert.is(net.config.clip_dim, 1280);
  assert.equal([vae.config, text.config, image!.config], [WAN_VAE, UMT5_XXL, CLIP_VIT_H]);

  const last = async ({ open }: { open: typeof net.open }, name: string) => {
    const weights = await open();
    const end = numel(weights.entries.get(name)!.shape);
    const value = (await weights.read(name, end - 1))[0];
    await weights.close();
    return value;
  };
  const names = Object.keys(dit),
    each = Math.ceil(names.length / SHARDS);
  for (let i = 0; i < SHARDS; i++)
    assert.is(await last(net, names[Math.min((i + 1) * each, names.length) - 1]!), i + 1);
  assert.equal([await last(vae, 'decoder.head.2.bias'), await last(vae, 'conv2.bias')], [1, 0]);
  assert.equal([await last(text, 'norm.weight'), await last(text, 'token_embedding.weight')], [0x3f80, 0]);
  assert.is(await last(image!, 'visual.transformer.30.mlp.2.bias'), 0x3c00);
  assert.ok(process.memoryUsage.rss() - before < 2 ** 27, 'only what is asked for is read');
}

const name = 'Wan2.1 I2V-14B in its own layout';
if (process.platform === 'win32')
  test.skip(name, check); // NTFS fills files that others leave sparse
else test(name, check);

test.run();

/** The vision transformers against a forward written out in float64, and their files under both names. */
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { HostTensor } from '../../engine/frontend/tree.ts';
import { saveTensors } from '../../model/files/safetensors.ts';
import { loadViT } from '../../model/vit/load.ts';
import { initViT, positionsFor, vit, vitShapes, type ViTConfig } from '../../model/vit/vit.ts';
import { draw, onHost } from '../train/onhost.ts';

const DINO: ViTConfig = {
  image_size: 8,
  patch_size: 4,
  dim: 8,
  num_heads: 2,
  num_layers: 2,
  eps: 1e-6,
  mean: [0, 0, 0],
  std: [1, 1, 1],
};
const CLIP: ViTConfig = { ...DINO, clip: { out_dim: 6 } };
/** Every weight away from 0 and 1, so that each shows. */
const weightsOf = (c: ViTConfig) =>
  Object.fromEntries(Object.entries(initViT(c, 1)).map(([name, t]) => [name, draw(t.shape, name, 0.4)]));

type Rows = number[][];
const rowsOf = (t: HostTensor, width: number): Rows =>
  Array.from({ length: t.data.length / width }, (_, i) => Array.from(t.data.slice(i * width, (i + 1) * width)));

/** One picture through the network, loop by loop. */
function forward(p: Record<string, HostTensor>, c: ViTConfig, picture: HostTensor): number[] {
  const [size, patch, dim] = [c.image_size, c.patch_size, c.dim];
  const linear = (name: string, x: Rows): Rows =>
    x.map((row) =>
      rowsOf(p[`${name}.weight`]!, row.length).map((w, o) =>
        w.reduce((s, v, i) => s + v * row[i]!, p[`${name}.bias`]?.data[o] ?? 0),
      ),
    );
  const norm = (name: string, x: Rows): Rows =>
    x.map((row) => {
      const mean = row.reduce((a, b) => a + b) / dim;
      const variance = row.reduce((s, v) => s + (v - mean) ** 2, 0) / dim;
      return row.map(
        (v, i) =>
          ((v - mean) / Math.sqrt(variance + c.eps)) * p[`${name}.weight`]!.data[i]! + p[`${name}.bias`]!.data[i]!,
      );
    });
  const erf = (z: number): number => {
    let [sum, term] = [z, z];
    for (let n = 1; n < 60; n++) {
      term *= (-z * z) / n;
      sum += term / (2 * n + 1);
    }
    return (2 / Math.sqrt(Math.PI)) * sum;
  };
  const act = (v: number) => (c.clip ? v / (1 + Math.exp(-1.702 * v)) : 0.5 * v * (1 + erf(v / Math.SQRT2)));
  const patches: Rows = [];
  for (let y = 0; y < size; y += patch)
    for (let x = 0; x < size; x += patch) {
      patches.push(
        Array.from(
          { length: 3 * patch * patch },
          (_, i) =>
            picture.data[
              (Math.floor(i / patch ** 2) * size + y + Math.floor((i % patch ** 2) / patch)) * size + x + (i % patch)
            ]!,
        ),
      );
    }
  let x: Rows = [Array.from(p['cls_token']!.data), ...linear('patch_embed.proj', patches)].map((row, n) =>
    row.map((v, i) => v + p['pos_embed']!.data[n * dim + i]!),
  );
  if (c.clip) x = norm('norm_pre', x);
  for (let b = 0; b < c.num_layers; b++) {
    const at = `blocks.${b}`;
    const qkv = linear(`${at}.attn.qkv`, norm(`${at}.norm1`, x));
    const width = dim / c.num_heads;
    const mixed = x.map((_, i) =>
      Array.from({ length: dim }, (__, k) => {
        const h = Math.floor(k / width) * width;
        const scores = qkv.map((row) =>
          Math.exp(
            Array.from({ length: width }, (___, d) => qkv[i]![h + d]! * row[dim + h + d]!).reduce((a, v) => a + v) /
              Math.sqrt(width),
          ),
        );
        return qkv.reduce((s, row, j) => s + scores[j]! * row[2 * dim + k]!, 0) / scores.reduce((a, v) => a + v);
      }),
    );
    x = linear(`${at}.attn.proj`, mixed).map((row, i) => row.map((v, k) => v + x[i]![k]!));
    x = linear(
      `${at}.mlp.fc2`,
      linear(`${at}.mlp.fc1`, norm(`${at}.norm2`, x)).map((row) => row.map(act)),
    ).map((row, i) => row.map((v, k) => v + x[i]![k]!));
  }
  const token = norm('norm', [x[0]!]);
  return (c.clip ? linear('head', token) : token)[0]!;
}

for (const [name, c] of [
  ['DINO', DINO],
  ['CLIP', CLIP],
] as const) {
  test(`${name}'s class token is that of the plain forward`, () => {
    const p = weightsOf(c);
    const picture = draw([1, 3, 8, 8], 'picture');
    const want = forward(p, c, picture);
    const got = onHost([p, picture, p['pos_embed']!], (params, pixels, positions) =>
      vit(params as never, c, pixels, positions),
    );
    assert.ok(
      want.every((v, i) => Math.abs(v - got.data[i]!) < 1e-9),
      JSON.stringify([want, [...got.data]]),
    );
  });
}

test('positions for another grid: the same at the trained size, smooth elsewhere', () => {
  const p = weightsOf(DINO)['pos_embed']!;
  assert.is(positionsFor(DINO, p, 2, 2), p);
  const wide = positionsFor(DINO, { ...p, data: p.data.map((_, i) => (i < 8 ? 7 : 3)) as Float32Array }, 3, 5);
  assert.equal([...wide.shape], [1, 16, 8]);
  assert.ok(wide.data.every((v, i) => Math.abs(v - (i < 8 ? 7 : 3)) < 1e-5));
});

test('files: DINO under its own names, CLIP under those of transformers; another network is one clear line', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'vpae-'));
  const own = weightsOf(DINO);
  await saveTensors(join(dir, 'dino.safetensors'), own);
  assert.equal(
    (await loadViT(join(dir, 'dino.safetensors'), DINO))['blocks.1.attn.qkv.weight']!.data,
    own['blocks.1.attn.qkv.weight']!.data,
  );

  const p = weightsOf(CLIP);
  const third = (t: HostTensor, i: number) => ({
    ...t,
    shape: [t.shape[0]! / 3, ...t.shape.slice(1)],
    data: t.data.slice((i * t.data.length) / 3, ((i + 1) * t.data.length) / 3) as Float32Array,
  });
  const theirs: Record<string, HostTensor> = {};
  const v = 'vision_model.';
  for (const [name, t] of Object.entries(p)) {
    const inner = name
      .replace(/^blocks\.(\d+)\./, `${v}encoder.layers.$1.`)
      .replace('norm1', 'layer_norm1')
      .replace('norm2', 'layer_norm2')
      .replace('attn.proj', 'self_attn.out_proj');
    if (name.includes('qkv'))
      ['q', 'k', 'v'].forEach((q, i) => {
        theirs[inner.replace('attn.qkv', `self_attn.${q}_proj`)] = third(t, i);
      });
    else
      theirs[
        {
          cls_token: `${v}embeddings.class_embedding`,
          pos_embed: `${v}embeddings.position_embedding.weight`,
          'patch_embed.proj.weight': `${v}embeddings.patch_embedding.weight`,
          'norm_pre.weight': `${v}pre_layrnorm.weight`,
          'norm_pre.bias': `${v}pre_layrnorm.bias`,
          'norm.weight': `${v}post_layernorm.weight`,
          'norm.bias': `${v}post_layernorm.bias`,
          'head.weight': 'visual_projection.weight',
        }[name] ?? inner
      ] = t;
  }
  await saveTensors(join(dir, 'clip.safetensors'), theirs);
  const read = await loadViT(join(dir, 'clip.safetensors'), CLIP);
  assert.equal(Object.keys(read), Object.keys(vitShapes(CLIP)));
  for (const [name, t] of Object.entries(p)) assert.equal(read[name]!.data, t.data, name);

  const refused = (path: string, c: ViTConfig) =>
    loadViT(join(dir, path), c).then(
      () => 'read',
      (e: Error) => e.message,
    );
  assert.match(await refused('clip.safetensors', DINO), /^\[vit\] .* has no tensor cls_token: expected DINO/);
  assert.match(
    await refused('dino.safetensors', { ...DINO, dim: 16 }),
    /^\[vit\] cls_token .* another size of network$/,
  );
});

test.run();

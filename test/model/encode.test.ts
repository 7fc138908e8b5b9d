/** What files cannot hold is refused by the tensor's name: infinities of half precision, NaN, scaled 8-bit weights. */
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { host } from '../../engine/frontend/tree.ts';
import { encoded } from '../../model/files/encode.ts';
import { exportWeights } from '../../model/files/export.ts';
import { checkFit } from '../../model/files/load.ts';
import { saveLora } from '../../model/files/lora.ts';
import { OWN } from '../../model/files/names.ts';
import { openWeights } from '../../model/files/open.ts';
import { saveTensors } from '../../model/files/safetensors.ts';

const dir = await mkdtemp(join(tmpdir(), 'encode-'));
test.after(() => rm(dir, { recursive: true }));

test('values that a type holds are written, others are named with what holds them', () => {
  const say = (value: number, dtype: 'F32' | 'F16' | 'BF16') => () =>
    encoded('a.weight', Float32Array.of(0, value), dtype);
  assert.equal([...encoded('a', Float32Array.of(65504, -65519), 'F16')], [0x7bff, 0xfbff]);
  assert.throws(say(-65520, 'F16'), /^tensor a\.weight reaches 65520, f16 ends at 65504: write it as bf16 or f32$/);
  assert.throws(say(3.4e38, 'BF16'), /reaches 3\.4e\+38, bf16 ends at 3\.38953e\+38: write it as f32$/);
  assert.equal([...encoded('a', Float32Array.of(3.39e38), 'BF16')], [0x7f7f]);
  for (const dtype of ['F32', 'F16', 'BF16'] as const)
    assert.throws(
      say(NaN, dtype),
      /^tensor a\.weight: 1 of 2 values are not finite, the first is NaN: the weights are/,
    );
  assert.throws(say(-Infinity, 'F32'), /the first is -Infinity/);
});

test('export and LoRAs of half precision are written whole or not at all', async () => {
  const from = join(dir, 'from.safetensors');
  await saveTensors(from, { 'a.weight': host([1, 2], [1, 2]), 'b.weight': host([1, 1e5], [1, 2]) });
  const weights = await openWeights(from);
  const write = (dtype: 'F16' | 'BF16') =>
    exportWeights(join(dir, `${dtype}.safetensors`), weights, { naming: OWN, dtype, metadata: {} });
  await write('BF16');
  const error = await write('F16').catch((e: Error) => e);
  assert.match((error as Error).message, /^\[export\] .*from\.safetensors: tensor b\.weight reaches 100000, f16 ends/);
  assert.not(existsSync(join(dir, 'F16.safetensors')));
  await weights.close();
  const q = 'blocks.0.self_attn.q';
  const adapters = { [`${q}.lora_A.weight`]: host([1, 1], [1, 2]), [`${q}.lora_B.weight`]: host([1, 7e4], [2, 1]) };
  const lora = await saveLora(join(dir, 'x'), adapters, { naming: 'comfyui', dtype: 'F16' }).catch((e: Error) => e);
  assert.match(
    (lora as Error).message,
    /tensor diffusion_model\.blocks\.0\.self_attn\.q\.lora_up\.weight reaches 70000/,
  );
  assert.not(existsSync(join(dir, 'x')));
});

test('scaled 8-bit weights are named as such', async () => {
  const path = join(dir, 'fp8.safetensors');
  await saveTensors(path, { 'a.weight': host([1], [1]), 'a.scale_weight': host([1], [1]) });
  const weights = await openWeights(path);
  assert.throws(() => checkFit(weights, { 'a.weight': [1] }), /holds 8-bit weights of a kind that is not read/);
  await weights.close();
});

test.run();

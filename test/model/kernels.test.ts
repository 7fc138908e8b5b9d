/** How many kernels a block of the Wan DiT takes on a GPU: the fewest that the rules of fusion allow, counted so that it can't rot. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { vjp } from '../../engine/frontend/autodiff.ts';
import { planFunction } from '../../engine/compiler/stages.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import type { Caps } from '../../kernels/kernel.ts';
import type { DiTConfig } from '../../model/config.ts';
import { initLora, withLora } from '../../model/lora.ts';
import { shapesOf, Scope, type Params } from '../../model/params.ts';
import { block, blockSpecs, type BlockInput } from '../../model/wan/block.ts';

const caps: Caps = {
  tier: 'tiled',
  f16: false,
  subgroup: 32,
  maxInvocations: 256,
  maxWorkgroupBytes: 32768,
  maxStorageBuffers: 10,
  maxBindingBytes: 2 ** 31,
};
const dit = { model_type: 't2v', dim: 1536, num_heads: 12, ffn_dim: 8960, eps: 1e-6, ffn_parts: 1 } as DiTConfig;
const tokens = 32760; // 81 frames of 480 x 832

type Fn = (params: Params, x: Tensor, given: BlockInput, dy: Tensor, lora: Params) => unknown;

function kernels(config: DiTConfig, fn: Fn): number {
  const f32 = (...shape: number[]) => ({ shape, dtype: 'f32' });
  const x = f32(1, tokens, config.dim),
    table = f32(1, tokens, 128);
  const net = Object.fromEntries(
    Object.entries(shapesOf(blockSpecs(config))).map(([name, shape]) => [name, f32(...shape)]),
  );
  const named = Object.fromEntries(
    Object.entries(shapesOf(blockSpecs(config))).map(([name, shape]) => [`blocks.0.${name}`, shape]),
  );
  const lora = Object.fromEntries(
    Object.entries(initLora(named, 16, 1)).map(([name, t]) => [name.replace('blocks.0.', ''), f32(...t.shape)]),
  );
  const given = {
    e0: f32(1, 6, config.dim),
    text: f32(1, 512, config.dim),
    tables: { cos: table, sin: table },
    ...(config.model_type !== 't2v' && { pictures: f32(1, 257, config.dim) }),
  };
  return planFunction(fn as never, [net, x, given, x, lora], new Set([0, 1, 2, 3, 4]), {
    caps,
    maxBufferBytes: 2 ** 32,
  }).kernels;
}

const forward = (config: DiTConfig) => (params: Params | Scope, x: Tensor, given: BlockInput) =>
  block(Scope.of(params), config, x, given, () => {});

// The text's keys and values are small products: each is split along K and takes a second kernel that adds the parts.

test('forward: ten linears with their epilogues, two attentions, seven norms (two with their rotation), two sums of parts', () => {
  assert.is(
    kernels(dit, (params, x, given) => forward(dit)(params, x, given)),
    21,
  );
});

test('forward with image tokens: keys, values and their norm, an attention, a sum, two sums of parts', () => {
  const i2v = { ...dit, model_type: 'i2v', clip_dim: 1280 } as const;
  assert.is(
    kernels(i2v, (params, x, given) => forward(i2v)(params, x, given)),
    28,
  );
});

test('forward with an adapter on every linear: one kernel more where there are tokens enough to merge it, three for the text', () => {
  assert.is(
    kernels(dit, (params, x, given, _dy, lora) => forward(dit)(withLora(params, lora, 0.5), x, given)),
    35,
  );
});

test('forward and gradient of everything', () => {
  assert.is(
    kernels(dit, (params, x, given, dy) => vjp(forward(dit)(params, x, given), dy, { params, x, e0: given.e0 })),
    106,
  );
});

test.run();

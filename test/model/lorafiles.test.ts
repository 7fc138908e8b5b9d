/** LoRA files: through every naming and back to the bit, alpha, merging, and what does not fit a model. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { host } from '../../engine/frontend/tree.ts';
import { loadLora, mergeFiles, saveLora } from '../../model/files/lora.ts';
import { openWeights } from '../../model/files/open.ts';
import { saveTensors } from '../../model/files/safetensors.ts';
import { loraSpecs, mergeLora, withLora } from '../../model/lora.ts';
import { Scope } from '../../model/params.ts';
import { ditShapes } from '../../model/wan/dit.ts';
import { oracle } from '../golden/executor.ts';
import { largest, noise, scrambled, scrambledDiT, tinyDiT } from './tiny.ts';

const test = suite('LoRA files');
let folder = '';
test.before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'lora-'));
});
test.after(() => rm(folder, { recursive: true }));

const config = tinyDiT();
const shapes = ditShapes(config);
const base = scrambledDiT(config);
const everything = /./;
const adapters = scrambled(loraSpecs(shapes, 3, everything));
const file = () => join(folder, 'lora.safetensors');

const FIRST = {
  diffusers: [
    'transformer.blocks.0.attn1.to_out.0.lora_A.weight',
    'transformer.condition_embedder.text_embedder.linear_1.lora_B.weight',
    'transformer.blocks.2.ffn.net.0.proj.lora_A.weight',
  ],
  comfyui: [
    'diffusion_model.blocks.0.self_attn.o.lora_down.weight',
    'diffusion_model.text_embedding.0.lora_up.weight',
    'diffusion_model.blocks.2.ffn.0.alpha',
  ],
  kohya: [
    'lora_unet_blocks_0_self_attn_o.lora_down.weight',
    'lora_unet_text_embedding_0.lora_up.weight',
    'lora_unet_blocks_2_ffn_0.alpha',
  ],
} as const;
for (const naming of ['diffusers', 'comfyui', 'kohya'] as const) {
  test(`${naming}: every linear of the model comes back to the bit, under its public names`, async () => {
    await saveLora(file(), adapters, { naming, metadata: { by: 'test' } });
    const weights = await openWeights(file());
    for (const name of FIRST[naming]) assert.ok(weights.entries.has(name), name);
    await weights.close();
    assert.equal(sorted((await loadLora(file(), shapes)).adapters), sorted(adapters));
  });
}
const sorted = (x: object) => Object.entries(x).sort(([a], [b]) => (a < b ? -1 : 1));

test('a scale becomes part of the file; merged weights are those of the adapter', async () => {
  await saveLora(file(), adapters, { naming: 'comfyui', scale: 0.5 });
  const loaded = await loadLora(file(), shapes);
  const merged = mergeLora(base, adapters, 0.25);
  for (const name of Object.keys(base))
    assert.ok(largest(mergeFiles(name, base[name]!, [{ file: loaded, scale: 0.5 }]), merged[name]!) < 1e-6, name);
  assert.is(
    mergeFiles('blocks.0.modulation', base['blocks.0.modulation']!, [{ file: loaded, scale: 1 }]),
    base['blocks.0.modulation'],
  );
});

const q = 'blocks.0.self_attn.q';
const [a, b] = [noise('a', [2, 24]), noise('b', [24, 2])];
const halfOf = (t: typeof b) =>
  host(
    t.data.map((x) => x / 2),
    t.shape,
  );
const VARIANTS: [what: string, prefix: string, ends: readonly [string, string], metadata?: Record<string, string>][] = [
  ['alpha of the module', `diffusion_model.${q}`, ['lora_down.weight', 'lora_up.weight']],
  ['PEFT around the original model', `base_model.model.${q}`, ['lora_A.default.weight', 'lora_B.default.weight']],
  ["Wan's names with PEFT's", `diffusion_model.${q}`, ['lora_A.weight', 'lora_B.weight']],
  ['DiffSynth, and PEFT beside', `pipe.dit.${q}`, ['lora_A.default.weight', 'lora_B.default.weight']],
  ['VideoX-Fun, with two underscores', 'lora_unet__blocks_0_self_attn_q', ['lora_down.weight', 'lora_up.weight']],
  [
    "PEFT around Diffusers' second transformer",
    'base_model.model.transformer_2.blocks.0.attn1.to_q',
    ['lora_A.weight', 'lora_B.weight'],
  ],
  ["Diffusers' names flat", 'lora_transformer_blocks_0_attn1_to_q', ['lora_down.weight', 'lora_up.weight']],
  [
    'alpha in the metadata',
    'transformer.blocks.0.attn1.to_q',
    ['lora_A.weight', 'lora_B.weight'],
    { lora_adapter_metadata: '{"transformer.r": 2, "transformer.lora_alpha": 1}' },
  ],
];
for (const [what, prefix, [down, up], metadata] of VARIANTS) {
  test(`reads: ${what}`, async () => {
    await saveTensors(
      file(),
      { [`${prefix}.${down}`]: a, [`${prefix}.${up}`]: b, ...(!metadata && { [`${prefix}.alpha`]: host([1], []) }) },
      { ...(metadata && { metadata }) },
    );
    assert.equal(sorted((await loadLora(file(), shapes)).adapters), [
      [`${q}.lora_A.weight`, a],
      [`${q}.lora_B.weight`, halfOf(b)],
    ]);
  });
}

test('of the patch embedding: convolutions are matrices, beside the weight as well as in it', async () => {
  const [down, up] = [noise('down', [2, 12, 1, 2, 2]), noise('up', [24, 2, 1, 1, 1])];
  await saveTensors(file(), {
    'diffusion_model.patch_embedding.lora_down.weight': down,
    'diffusion_model.patch_embedding.lora_up.weight': up,
  });
  const read = await loadLora(file(), shapes);
  const merged = mergeFiles('patch_embedding.weight', base['patch_embedding.weight']!, [{ file: read, scale: 0.5 }]);
  const { beside, within } = await oracle.run(
    ({ base, merged, adapters, x }) => ({
      beside: withLora(base, adapters, 0.5).linear('patch_embedding', x),
      within: Scope.of({ ...base, 'patch_embedding.weight': merged }).linear('patch_embedding', x),
    }),
    { base, merged, adapters: read.adapters, x: noise('tokens', [1, 5, 48]) },
  );
  assert.ok(largest(beside!, within!) < 1e-5);
  assert.is.not(merged, base['patch_embedding.weight']);
});

test('differences of biases and gains are merged too', async () => {
  const bias = noise('bias', [24]),
    gain = noise('gain', [24]);
  await saveTensors(file(), {
    [`diffusion_model.${q}.diff_b`]: bias,
    'diffusion_model.blocks.0.self_attn.norm_q.diff': gain,
  });
  const loaded = await loadLora(file(), shapes);
  const merged = (name: string) => mergeFiles(name, base[name]!, [{ file: loaded, scale: 2 }]).data;
  assert.equal(
    merged(`${q}.bias`),
    base[`${q}.bias`]!.data.map((x, i) => Math.fround(x + 2 * bias.data[i]!)),
  );
  assert.equal(
    merged('blocks.0.self_attn.norm_q.weight'),
    base['blocks.0.self_attn.norm_q.weight']!.data.map((x, i) => Math.fround(x + 2 * gain.data[i]!)),
  );
});

test("LightX2V's differences of modulations, under whatever prefix, are added to them", async () => {
  const [own, head] = [noise('m', [1, 6, 24]), noise('h', [1, 2, 24])];
  for (const [block, last] of [
    ['diffusion_model.blocks.1.diff_m', 'diffusion_model.head.diff_m'],
    ['blocks.1.diff_m', 'head.diff_m'],
    ['transformer.blocks.1.scale_shift_table.diff', 'transformer.scale_shift_table.diff'],
  ] as const) {
    await saveTensors(file(), { [block]: own, [last]: head });
    const { differences } = await loadLora(file(), shapes);
    assert.equal(sorted(differences), [
      ['blocks.1.modulation', own],
      ['head.modulation', head],
    ]);
  }
});

test("a bias of B is a difference of the bias, in B's own scale; an adapter may have any name, but only one", async () => {
  const bias = noise('bias of b', [24]);
  const pair = (adapter: string) => ({ [`${q}.lora_A${adapter}.weight`]: a, [`${q}.lora_B${adapter}.weight`]: b });
  await saveTensors(file(), { ...pair('.style'), [`${q}.lora_B.style.bias`]: bias, [`${q}.alpha`]: host([1], []) });
  const loaded = await loadLora(file(), shapes);
  assert.equal(loaded.adapters[`${q}.lora_B.weight`], halfOf(b));
  assert.equal(loaded.differences[`${q}.bias`], halfOf(bias));
  await saveTensors(file(), { ...pair('.one'), ...Object.fromEntries(Object.entries(pair('.two')).slice(0, 1)) });
  await refused(/under two names|holds several adapters/);
});

const PEFT = { r: 2, lora_alpha: 8 };
const ALPHAS: [what: string, metadata: Record<string, string>, config: object | undefined, times: number][] = [
  ['lora_alpha in the metadata', { lora_alpha: '8' }, undefined, 4],
  ["kohya's ss_network_alpha", { ss_network_alpha: '8.0', ss_network_dim: '2' }, undefined, 4],
  ['no alpha, as kohya says it', { ss_network_alpha: 'None' }, undefined, 1],
  ['adapter_config.json beside', {}, PEFT, 4],
  ['the root of the rank', {}, { ...PEFT, use_rslora: true }, 8 / Math.sqrt(2)],
  ['a pattern', {}, { ...PEFT, alpha_pattern: { 'self_attn.q': 6 } }, 3],
  ['a pattern of others', {}, { ...PEFT, alpha_pattern: { 'self_attn.k': 6 } }, 4],
  ["Diffusers' own", { lora_adapter_metadata: '{"transformer.r": 2, "transformer.lora_alpha": 8}' }, undefined, 4],
];
for (const [what, metadata, config, times] of ALPHAS) {
  test(`alpha: ${what}`, async () => {
    const dir = await mkdtemp(join(folder, 'peft-'));
    await saveTensors(
      join(dir, 'adapter_model.safetensors'),
      { [`base_model.model.${q}.lora_A.weight`]: a, [`base_model.model.${q}.lora_B.weight`]: b },
      { metadata },
    );
    if (config) await writeFile(join(dir, 'adapter_config.json'), JSON.stringify(config));
    for (const path of config ? [dir, join(dir, 'adapter_model.safetensors')] : [dir]) {
      const { adapters: read } = await loadLora(path, shapes);
      const [x, y] = [read[`${q}.lora_B.weight`]!.data[0]!, b.data[0]!];
      assert.ok(Math.abs(x / y - times) < 1e-6, `${x / y} times`);
    }
  });
}

async function refused(reason: RegExp, path = file(), model = shapes): Promise<void> {
  const error = await loadLora(path, model).then(
    () => undefined,
    (e: Error) => e,
  );
  assert.match(error?.message ?? 'it was read', reason);
}

test('what a file is instead is said by name', async () => {
  const [x, y] = [noise('x', [2, 40]), noise('y', [40, 2])];
  for (const [tensors, reason] of [
    [{ [`${q}.lora_magnitude_vector`]: a }, /no LoRA of this model: it is a DoRA; only plain LoRAs are read: merge it/],
    [{ 'lora_unet_blocks_0_self_attn_q.dora_scale': a }, /it is a DoRA/],
    [{ [`${q}.lokr_w1`]: a }, /it is a LoKr/],
    [{ 'lora_unet_double_blocks_0_img_attn_proj.lora_down.weight': a }, /another model's, as Flux or HunyuanVideo/],
    [{ 'lora_unet_down_blocks_0_attn.lora_down.weight': a }, /another model's, as Stable Diffusion/],
    [{ 'lora_te1_text_model.lora_down.weight': a }, /it changes the text encoder/],
    [{ 'diffusion_model.vace_blocks.0.self_attn.q.lora_down.weight': a }, /it is of VACE/],
    [
      { 'diffusion_model.blocks.39.self_attn.q.lora_down.weight': a },
      /of a model of 40 or more blocks, this one has 3/,
    ],
    [{ [`${q}.lora_A.weight`]: x, [`${q}.lora_B.weight`]: y }, /it is of a model of width 40, this one's is 24/],
    [
      { 'patch_embedding.diff': noise('p', [24, 4, 1, 2, 2]) },
      /it is for text-to-video \(T2V\), whose input has 4 channels: this model's has 12/,
    ],
    [
      {
        [`${q}.lora_A.weight`]: a,
        [`${q}.lora_B.weight`]: host(
          b.data.map(() => NaN),
          b.shape,
        ),
      },
      /lora_B\.weight" holds NaN at/,
    ],
  ] as const) {
    await saveTensors(file(), tensors);
    await refused(reason);
  }
  const t2v = ditShapes(tinyDiT({ model_type: 't2v', in_dim: 4 }));
  await saveTensors(file(), { 'blocks.0.cross_attn.k_img.lora_A.weight': a });
  await refused(/it is for image-to-video \(I2V\), this model makes video from text/, file(), t2v);
  await saveTensors(file(), { 'patch_embedding.diff': noise('p', [24, 12, 1, 2, 2]) });
  await refused(/it is for image-to-video \(I2V\), whose input has 12/, file(), t2v);
  const dir = await mkdtemp(join(folder, 'dora-'));
  await saveTensors(join(dir, 'adapter_model.safetensors'), { [`${q}.lora_A.weight`]: a, [`${q}.lora_B.weight`]: b });
  await writeFile(join(dir, 'adapter_config.json'), '{"use_dora": true}');
  await refused(/adapter_config\.json says it is a DoRA/, dir);
});

const WRONG: [what: string, tensors: Record<string, typeof a>, reason: RegExp][] = [
  [
    "another model's",
    { 'lora_te_layer_0.lora_down.weight': a, 'x.hada_w1_a': a },
    /is no LoRA of this model: it is a LoHa; .*; 2 names unknown: lora_te_layer_0\.lora_down\.weight, x\.hada_w1_a$/,
  ],
  [
    'half a pair',
    { [`${q}.lora_A.weight`]: a },
    /1 module of other shapes: blocks\.0\.self_attn\.q A \[2,24\] B missing, the weight is \[24,24\]$/,
  ],
  [
    'of another width',
    { [`${q}.lora_A.weight`]: noise('c', [2, 23]), [`${q}.lora_B.weight`]: b },
    /A \[2,23\] B \[24,2\], the weight is \[24,24\]/,
  ],
  ['of two ranks', { [`${q}.lora_A.weight`]: noise('d', [3, 24]), [`${q}.lora_B.weight`]: b }, /A \[3,24\] B \[24,2\]/],
  ['of a convolution', { 'patch_embedding.lora_A.weight': a, 'patch_embedding.lora_B.weight': b }, /patch_embedding A/],
  ['nothing', {}, /has no tensors/],
];
for (const [what, tensors, reason] of WRONG) {
  test(`refuses: ${what}`, async () => {
    await saveTensors(file(), tensors);
    assert.match(
      (await loadLora(file(), shapes).then(
        () => undefined,
        (e: Error) => e,
      ))!.message,
      reason,
    );
  });
}

test.run();

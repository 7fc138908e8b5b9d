/** LoRA files: through every naming and back to the bit, alpha, merging, and what does not fit a model. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { host } from '../../engine/frontend/tree.ts';
import { loadLora, mergeFiles, saveLora } from '../../model/files/lora.ts';
import { openWeights } from '../../model/files/open.ts';
import { saveTensors } from '../../model/files/safetensors.ts';
import { loraSpecs, mergeLora } from '../../model/lora.ts';
import { ditShapes } from '../../model/wan/dit.ts';
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

const WRONG: [what: string, tensors: Record<string, typeof a>, reason: RegExp][] = [
  [
    "another model's",
    { 'lora_te_layer_0.lora_down.weight': a, 'x.hada_w1_a': a },
    /is no LoRA of this model: 2 names unknown: lora_te_layer_0\.lora_down\.weight, x\.hada_w1_a$/,
  ],
  [
    'half a pair',
    { [`${q}.lora_A.weight`]: a },
    /1 modules of other shapes: blocks\.0\.self_attn\.q A \[2,24\] B missing, the weight is \[24,24\]$/,
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

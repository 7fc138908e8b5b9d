/**
 * The names that other projects give to the tensors of our models. Ours are those of Wan's checkpoints.
 *
 * Sources: Diffusers' conversion script for Wan and its models' definitions, Hugging Face's UMT5EncoderModel and CLIPVisionModel.
 */
import type { VAEConfig } from '../config.ts';
import { few, WeightsError, type StoredTensor } from './stored.ts';
import { numel } from '../../kernels/kernel.ts';
import type { Shapes } from './load.ts';
import type { Weights } from './weights.ts';

export interface Naming {
  /** Their tensors that make one of ours, one after the other along the first axis; mostly one. */
  readonly theirs: (own: string) => readonly string[];
  /** Of theirs, those that no model of ours has. */
  readonly extra?: RegExp;
  /** Of ours, those that lack axes of size 1 there. */
  readonly flat?: RegExp;
}

type Rules = readonly (readonly [RegExp, string])[];

/** Every rule that fits, in order. */
const renamed =
  (rules: Rules) =>
  (own: string): readonly string[] => [rules.reduce((name, [from, to]) => name.replace(from, to), own)];

export const OWN: Naming = { theirs: (own) => [own] };
export const prefixed = (prefix: string): Naming => ({ theirs: (own) => [prefix + own] });

const DIFFUSERS_DIT = renamed([
  [/^(text|time)_embedding\.0\./, 'condition_embedder.$1_embedder.linear_1.'],
  [/^(text|time)_embedding\.2\./, 'condition_embedder.$1_embedder.linear_2.'],
  [/^time_projection\.1\./, 'condition_embedder.time_proj.'],
  [/^img_emb\.emb_pos$/, 'condition_embedder.image_embedder.pos_embed'],
  [/^img_emb\.proj\.0\./, 'condition_embedder.image_embedder.norm1.'],
  [/^img_emb\.proj\.1\./, 'condition_embedder.image_embedder.ff.net.0.proj.'],
  [/^img_emb\.proj\.3\./, 'condition_embedder.image_embedder.ff.net.2.'],
  [/^img_emb\.proj\.4\./, 'condition_embedder.image_embedder.norm2.'],
  [/^head\.modulation$/, 'scale_shift_table'],
  [/^head\.head\./, 'proj_out.'],
  [/^(blocks\.\d+)\.modulation$/, '$1.scale_shift_table'],
  [/^(blocks\.\d+)\.self_attn\./, '$1.attn1.'],
  [/^(blocks\.\d+)\.cross_attn\./, '$1.attn2.'],
  [/\.([qkv])\./, '.to_$1.'],
  [/\.o\./, '.to_out.0.'],
  [/\.([kv])_img\./, '.add_$1_proj.'],
  [/\.norm_k_img\./, '.norm_added_k.'],
  [/\.norm3\./, '.norm2.'],
  [/\.ffn\.0\./, '.ffn.net.0.proj.'],
  [/\.ffn\.2\./, '.ffn.net.2.'],
]);

/** A module of the DiT (`blocks.0.ffn.0.weight`) as Diffusers names it. */
export const diffusersDiT: Naming = { theirs: DIFFUSERS_DIT };

/**
 * Diffusers counts the decoder's levels; Wan2.1 counts their layers through: residual blocks, one more than in the encoder, then the
 * upsampling. In Wan2.2 levels are stages, whose resampling has no number there.
 */
export function diffusersVAE({
  num_res_blocks,
  is_residual,
}: Pick<VAEConfig, 'num_res_blocks' | 'is_residual'>): Naming {
  const level = (n: number): string => {
    const [i, j] = [Math.floor(n / (num_res_blocks + 2)), n % (num_res_blocks + 2)];
    return `up_blocks.${i}.${j > num_res_blocks ? 'upsamplers.0' : `resnets.${j}`}`;
  };
  const rest = renamed([
    [/^conv1\./, 'quant_conv.'],
    [/^conv2\./, 'post_quant_conv.'],
    [/^(en|de)coder\.conv1\./, '$1coder.conv_in.'],
    [/\.head\.0\./, '.norm_out.'],
    [/\.head\.2\./, '.conv_out.'],
    [/\.downsamples\./, '.down_blocks.'],
    [/\.middle\.0\./, '.mid_block.resnets.0.'],
    [/\.middle\.1\./, '.mid_block.attentions.0.'],
    [/\.middle\.2\./, '.mid_block.resnets.1.'],
    [/\.residual\.0\./, '.norm1.'],
    [/\.residual\.2\./, '.conv1.'],
    [/\.residual\.3\./, '.norm2.'],
    [/\.residual\.6\./, '.conv2.'],
    [/\.shortcut\./, '.conv_shortcut.'],
  ]);
  const stage = (own: string): string =>
    own.replace(
      /\.(down|up)samples\.(\d+)\.(?:down|up)samples\.(\d+)\.(resample|time_conv)?/,
      (_, way: string, i, j, part) =>
        part ? `.${way}_blocks.${i}.${way}sampler.${part}` : `.${way}_blocks.${i}.resnets.${j}.`,
    );
  if (is_residual) return { theirs: (own) => rest(stage(own)) };
  return { theirs: (own) => rest(own.replace(/upsamples\.(\d+)/, (_, n: string) => level(Number(n)))) };
}

const transformersText = renamed([
  [/^token_embedding\./, 'shared.'],
  [/^norm\./, 'encoder.final_layer_norm.'],
  [/^blocks\.(\d+)\.norm1\./, 'encoder.block.$1.layer.0.layer_norm.'],
  [/^blocks\.(\d+)\.norm2\./, 'encoder.block.$1.layer.1.layer_norm.'],
  [/^blocks\.(\d+)\.attn\./, 'encoder.block.$1.layer.0.SelfAttention.'],
  [/^blocks\.(\d+)\.pos_embedding\.embedding\./, 'encoder.block.$1.layer.0.SelfAttention.relative_attention_bias.'],
  [/^blocks\.(\d+)\.ffn\.gate\.0\./, 'encoder.block.$1.layer.1.DenseReluDense.wi_0.'],
  [/^blocks\.(\d+)\.ffn\.fc1\./, 'encoder.block.$1.layer.1.DenseReluDense.wi_1.'],
  [/^blocks\.(\d+)\.ffn\.fc2\./, 'encoder.block.$1.layer.1.DenseReluDense.wo.'],
]);

/** The embedding is tied to a second name, and stands under one of them or both. */
export const transformersUMT5: Naming = {
  theirs: transformersText,
  extra: /^encoder\.embed_tokens\.weight$|^spiece_model$/,
};
export const transformersUMT5Tied: Naming = {
  theirs: (own) => transformersText(own.replace(/^token_embedding\./, 'encoder.embed_tokens.')),
};

/** T5 encoders of llama.cpp, which GGUF text encoders are. */
export const llamaUMT5: Naming = {
  theirs: renamed([
    [/^token_embedding\./, 'token_embd.'],
    [/^norm\./, 'enc.output_norm.'],
    [/^blocks\.(\d+)\.norm1\./, 'enc.blk.$1.attn_norm.'],
    [/^blocks\.(\d+)\.norm2\./, 'enc.blk.$1.ffn_norm.'],
    [/^blocks\.(\d+)\.attn\.([qkvo])\./, 'enc.blk.$1.attn_$2.'],
    [/^blocks\.(\d+)\.pos_embedding\.embedding\./, 'enc.blk.$1.attn_rel_b.'],
    [/^blocks\.(\d+)\.ffn\.gate\.0\./, 'enc.blk.$1.ffn_gate.'],
    [/^blocks\.(\d+)\.ffn\.fc1\./, 'enc.blk.$1.ffn_up.'],
    [/^blocks\.(\d+)\.ffn\.fc2\./, 'enc.blk.$1.ffn_down.'],
  ]),
};

const transformersVisual = renamed([
  [/^visual\.cls_embedding$/, 'vision_model.embeddings.class_embedding'],
  [/^visual\.pos_embedding$/, 'vision_model.embeddings.position_embedding.weight'],
  [/^visual\.patch_embedding\./, 'vision_model.embeddings.patch_embedding.'],
  [/^visual\.pre_norm\./, 'vision_model.pre_layrnorm.'], // their spelling
  [/^visual\.post_norm\./, 'vision_model.post_layernorm.'],
  [/^visual\.transformer\./, 'vision_model.encoder.layers.'],
  [/\.norm([12])\./, '.layer_norm$1.'],
  [/\.attn\.proj\./, '.self_attn.out_proj.'],
  [/\.mlp\.0\./, '.mlp.fc1.'],
  [/\.mlp\.2\./, '.mlp.fc2.'],
]);

/** Query, key and value stand apart there. */
export const transformersCLIP: Naming = {
  theirs: (own) => {
    const names = transformersVisual(own);
    return /\.attn\.to_qkv\./.test(own)
      ? ['q', 'k', 'v'].map((x) => names[0]!.replace('.attn.to_qkv.', `.self_attn.${x}_proj.`))
      : names;
  },
  extra: /\.position_ids$|^visual_projection\./,
  flat: /_embedding$/,
};

/** Wan's file holds the text tower too. */
export const wanCLIP: Naming = { ...OWN, extra: /^textual\.|^log_scale$/ };

export const sameButOnes = (a: readonly number[], b: readonly number[]): boolean =>
  String(a.filter((n) => n !== 1)) === String(b.filter((n) => n !== 1));

/** Tensors one after the other along the first axis, as `shape` if it differs in axes of size 1, or its writer kept none. */
function join(
  path: string,
  own: string,
  { shape, flat }: { shape: readonly number[] | undefined; flat: boolean | undefined },
  parts: readonly StoredTensor[],
): StoredTensor {
  const [
    {
      dtype,
      shape: [, ...inner],
    },
  ] = parts as [StoredTensor];
  if (parts.some((t) => t.dtype !== dtype))
    throw new WeightsError(
      'weights',
      path,
      few(
        `dtypes where ${own} needs one`,
        parts.map((t) => t.dtype),
      ),
    );
  const [first] = parts as [StoredTensor];
  if (parts.length > 1 && parts.some((t) => t.scale))
    throw new WeightsError(
      'weights',
      path,
      `keeps ${own} in ${parts.length} parts of scaled fp8, which are not joined`,
    );
  const joined = parts.length > 1 ? [parts.reduce((n, t) => n + t.shape[0]!, 0), ...inner] : first.shape;
  const same = shape && (first.loose ? numel(joined) === numel(shape) : flat && sameButOnes(joined, shape));
  return { ...first, shape: same ? shape : joined, pieces: parts.flatMap((t) => t.pieces) };
}

/**
 * Weights under our names, by that of the `namings` which knows most of them. Tensors nobody asked for keep their names, so that
 * `checkFit` finds them.
 */
export function inOwnNames(weights: Weights, expected: Shapes, namings: readonly Naming[]): Weights {
  const names = Object.keys(expected);
  const known = (naming: Naming) =>
    names.filter((own) => naming.theirs(own).every((n) => weights.entries.has(n))).length;
  const naming = namings.map((n) => [n, known(n)] as const).reduce((a, b) => (b[1] > a[1] ? b : a))[0];
  return weights.with((tensors) => {
    const own = new Map<string, StoredTensor>();
    const rest = new Map([...tensors].filter(([name]) => !naming.extra?.test(name)));
    for (const name of names) {
      const parts = naming.theirs(name).map((n) => tensors.get(n));
      if (!parts.every((p) => p !== undefined)) continue;
      own.set(name, join(weights.path, name, { shape: expected[name], flat: naming.flat?.test(name) }, parts));
      for (const n of naming.theirs(name)) rest.delete(n);
    }
    return new Map([...own, ...rest]);
  });
}

/**
 * A model's numbers from what a checkpoint folder tells of them: Wan's or Diffusers' or Hugging Face's `config.json`, or, where there
 * is none, the shapes of its tensors.
 */
import { clipConfig, type CLIPConfig } from '../clip/config.ts';
import { ditConfig, vaeConfig, WAN_VAE, type DiTConfig, type VAEConfig } from '../config.ts';
import { umt5Config, type UMT5Config } from '../umt5/config.ts';
import type { Entry } from './stored.ts';

/** Parsed JSON of another project; the checks of our own configs catch what is wrong in it. */
export type Json = Readonly<Record<string, unknown>>;
type Entries = ReadonlyMap<string, Entry>;

/** What Wan's config.json leaves to its code. */
const DEFAULTS = { patch_size: [1, 2, 2], text_len: 512, text_dim: 4096 };

export const wanDiT = (json: Json): DiTConfig => ditConfig({ ...DEFAULTS, ...json });

/** WanTransformer3DModel. */
export function diffusersDiTConfig(json: Json): DiTConfig {
  const { num_attention_heads: heads, attention_head_dim: headDim, qk_norm, image_dim, pos_embed_seq_len } = json;
  return ditConfig({
    ...DEFAULTS,
    ...json,
    model_type:
      image_dim === null || image_dim === undefined
        ? 't2v'
        : pos_embed_seq_len === null || pos_embed_seq_len === undefined
          ? 'i2v'
          : 'flf2v',
    dim: Number(heads) * Number(headDim),
    num_heads: heads,
    in_dim: json['in_channels'],
    out_dim: json['out_channels'],
    clip_dim: image_dim ?? undefined,
    qk_norm: qk_norm === 'rms_norm_across_heads' || qk_norm,
  });
}

/** AutoencoderKLWan. */
export const diffusersVAEConfig = (json: Json): VAEConfig =>
  vaeConfig({ ...json, dim: json['base_dim'], latent_mean: json['latents_mean'], latent_std: json['latents_std'] });

/** UMT5EncoderModel. */
export const transformersUMT5Config = (json: Json): UMT5Config =>
  umt5Config({
    vocab: json['vocab_size'],
    dim: json['d_model'],
    dim_attn: Number(json['num_heads']) * Number(json['d_kv']),
    dim_ffn: json['d_ff'],
    num_heads: json['num_heads'],
    num_layers: json['num_layers'],
    num_buckets: json['relative_attention_num_buckets'],
    max_dist: json['relative_attention_max_distance'],
    eps: json['layer_norm_epsilon'],
  });

/** CLIPVisionModel. */
export const transformersCLIPConfig = (json: Json): CLIPConfig =>
  clipConfig({
    image_size: json['image_size'],
    patch_size: json['patch_size'],
    dim: json['hidden_size'],
    mlp_ratio: Number(json['intermediate_size']) / Number(json['hidden_size']),
    out_dim: json['projection_dim'],
    num_heads: json['num_attention_heads'],
    num_layers: json['num_hidden_layers'],
    eps: json['layer_norm_eps'],
    activation: json['hidden_act'],
  });

/** Extent of a tensor along an axis. @throws its name, where the file has none such */
function extent(entries: Entries, name: string, axis: number): number {
  const size = entries.get(name)?.shape[axis];
  if (size === undefined) throw new Error(`has no tensor ${name} of ${axis + 1} or more axes, which tells its config`);
  return size;
}

/** Layers `prefix.0` … that the names count. */
const layers = (entries: Entries, prefix: string): number =>
  [...entries.keys()].reduce(
    (n, name) => (name.startsWith(`${prefix}.`) ? Math.max(n, parseInt(name.slice(prefix.length + 1), 10) + 1) : n),
    0,
  );

/** From shapes; the statistics of Wan's latents, whose numbers no file of its own layout holds, where there are as many channels. */
export function vaeConfigOf(entries: Entries): VAEConfig {
  const dim = extent(entries, 'encoder.conv1.weight', 0),
    z_dim = extent(entries, 'conv2.weight', 0);
  const widths: number[][] = [[]];
  const times: boolean[] = [];
  for (let i = 0; i < layers(entries, 'encoder.downsamples'); i++) {
    const name = `encoder.downsamples.${i}`;
    if (!entries.has(`${name}.resample.1.weight`)) widths.at(-1)!.push(extent(entries, `${name}.residual.2.weight`, 0));
    else {
      widths.push([]);
      times.push(entries.has(`${name}.time_conv.weight`));
    }
  }
  const { latent_mean, latent_std } = WAN_VAE;
  return vaeConfig({
    dim,
    z_dim,
    dim_mult: widths.map((w) => (w[0] ?? 0) / dim),
    num_res_blocks: widths[0]!.length,
    temperal_downsample: times,
    channels: extent(entries, 'encoder.conv1.weight', 1),
    ...(z_dim === WAN_VAE.z_dim && { latent_mean, latent_std }),
  });
}

export function umt5ConfigOf(entries: Entries): UMT5Config {
  const of = (name: string, axis: number) => extent(entries, name, axis);
  return umt5Config({
    vocab: of('token_embedding.weight', 0),
    dim: of('token_embedding.weight', 1),
    dim_attn: of('blocks.0.attn.q.weight', 0),
    dim_ffn: of('blocks.0.ffn.fc1.weight', 0),
    num_layers: layers(entries, 'blocks'),
    num_buckets: of('blocks.0.pos_embedding.embedding.weight', 0),
    num_heads: of('blocks.0.pos_embedding.embedding.weight', 1),
  });
}

/** The one number that no shape tells: ViT-H has 16 heads of 80. */
const CLIP_HEAD = 80;

export function clipConfigOf(entries: Entries): CLIPConfig {
  const of = (name: string, axis: number) => extent(entries, `visual.${name}`, axis);
  const dim = of('cls_embedding', 2),
    patch_size = of('patch_embedding.weight', 2);
  return clipConfig({
    dim,
    patch_size,
    image_size: patch_size * Math.sqrt(of('pos_embedding', 1) - 1),
    mlp_ratio: of('transformer.0.mlp.0.weight', 0) / dim,
    out_dim: of('head', 1),
    num_heads: dim / CLIP_HEAD,
    num_layers: layers(entries, 'visual.transformer'),
  });
}

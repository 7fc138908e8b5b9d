/**
 * A model's numbers from what a checkpoint folder tells of them: Wan's or Diffusers' or Hugging Face's `config.json`, or, where there
 * is none, the shapes of its tensors.
 */
import { clipConfig, type CLIPConfig } from '../clip/config.ts';
import { ditConfig, hasBeside, vaeConfig, WAN22_VAE, WAN_VAE, type DiTConfig, type VAEConfig } from '../config.ts';
import { umt5Config, type UMT5Config } from '../umt5/config.ts';
import type { Entry } from './stored.ts';
import type { Naming } from './names.ts';

/** Parsed JSON of another project; the checks of our own configs catch what is wrong in it. */
export type Json = Readonly<Record<string, unknown>>;
type Entries = ReadonlyMap<string, Entry>;

/** What Wan's config.json leaves to its code. */
const DEFAULTS = { patch_size: [1, 2, 2], text_len: 512, text_dim: 4096 };

export const wanDiT = (json: Json): DiTConfig => ditConfig({ ...DEFAULTS, ...json });

/** Wan2.1's image-to-video attends image tokens, Wan2.2's does not; no config.json says which it is, but the tensors do. */
export const imagesOf = (config: DiTConfig, names: readonly string[]): DiTConfig => ({
  ...config,
  clip_dim: !hasBeside(config) || names.some((n) => /\.(k_img|add_k_proj)\./.test(n)) ? config.clip_dim : 0,
});

/** WanTransformer3DModel. @param held whether its pipeline holds the first frame in the sample (`expand_timesteps`) */
export function diffusersDiTConfig(json: Json, held = false): DiTConfig {
  const { num_attention_heads: heads, attention_head_dim: headDim, qk_norm, image_dim, pos_embed_seq_len } = json;
  const images = image_dim !== null && image_dim !== undefined;
  const two = pos_embed_seq_len !== null && pos_embed_seq_len !== undefined;
  const beside = Number(json['in_channels']) > Number(json['out_channels']);
  return ditConfig({
    ...DEFAULTS,
    ...json,
    model_type: held ? 'ti2v' : two ? 'flf2v' : images || beside ? 'i2v' : 't2v',
    dim: Number(heads) * Number(headDim),
    num_heads: heads,
    in_dim: json['in_channels'],
    out_dim: json['out_channels'],
    clip_dim: images ? image_dim : beside ? 0 : undefined,
    qk_norm: qk_norm === 'rms_norm_across_heads' || qk_norm,
  });
}

/** AutoencoderKLWan. */
export const diffusersVAEConfig = ({ patch_size, decoder_base_dim, is_residual, ...json }: Json): VAEConfig =>
  vaeConfig({
    ...json,
    dim: json['base_dim'],
    latent_mean: json['latents_mean'],
    latent_std: json['latents_std'],
    ...(is_residual === true && {
      is_residual,
      patch_size: patch_size ?? undefined,
      dec_dim: decoder_base_dim ?? undefined,
    }),
  });

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

/** Pixels along an edge of a cell of Wan2.2's VAE. */
const PATCH = 2;

/** From shapes; the statistics of Wan's latents, whose numbers no file of its own layout holds, where there are as many channels. */
export function vaeConfigOf(entries: Entries): VAEConfig {
  const of = (name: string, axis: number) => extent(entries, name, axis);
  const [dim, cells] = [of('encoder.conv1.weight', 0), of('encoder.conv1.weight', 1)];
  const z_dim = of('conv2.weight', 0);
  const is_residual = entries.has('encoder.downsamples.0.downsamples.0.residual.2.weight');
  // Of each layer, in order: its width, or whether its halving goes over time.
  const found = [...entries.keys()].flatMap((name): { at: number[]; width?: number; time?: boolean }[] => {
    const [, layer, part] =
      /^(encoder\.downsamples\.\d+(?:\.downsamples\.\d+)?)\.(residual\.2|resample\.1)\.weight$/.exec(name) ?? [];
    if (!layer) return [];
    const at = layer.match(/\d+/g)!.map(Number);
    return [
      { at, ...(part === 'residual.2' ? { width: of(name, 0) } : { time: entries.has(`${layer}.time_conv.weight`) }) },
    ];
  });
  found.sort((a, b) => a.at[0]! - b.at[0]! || (a.at[1] ?? 0) - (b.at[1] ?? 0));
  const widths: number[][] = [[]];
  const times: boolean[] = [];
  for (const { width, time } of found) {
    if (width !== undefined) widths.at(-1)!.push(width);
    if (time === undefined) continue;
    widths.push([]);
    times.push(time);
  }
  const dim_mult = widths.map((w) => (w[0] ?? 0) / dim);
  const known = [WAN_VAE, WAN22_VAE].find((vae) => vae.z_dim === z_dim);
  return vaeConfig({
    dim,
    z_dim,
    dim_mult,
    num_res_blocks: widths[0]!.length,
    temperal_downsample: times,
    channels: is_residual ? cells / PATCH ** 2 : cells,
    ...(is_residual && { is_residual, patch_size: PATCH, dec_dim: of('decoder.conv1.weight', 0) / dim_mult.at(-1)! }),
    ...(known && { latent_mean: known.latent_mean, latent_std: known.latent_std }),
  });
}

/** @param namings of those who may have written it */
export function umt5ConfigOf(entries: Entries, namings: readonly Naming[]): UMT5Config {
  const query = (naming: Naming, i = 0): string => naming.theirs(`blocks.${i}.attn.q.weight`)[0]!;
  const naming = namings.find((n) => entries.has(query(n))) ?? namings[0]!;
  const of = (name: string, axis: number) => extent(entries, naming.theirs(name)[0]!, axis);
  let num_layers = 0;
  while (entries.has(query(naming, num_layers))) num_layers++;
  return umt5Config({
    vocab: of('token_embedding.weight', 0),
    dim: of('token_embedding.weight', 1),
    dim_attn: of('blocks.0.attn.q.weight', 0),
    dim_ffn: of('blocks.0.ffn.fc1.weight', 0),
    num_layers,
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

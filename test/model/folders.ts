/**
 * Small checkpoints of Wan2.1 and Wan2.2 with generated weights, in the layouts and file formats that the real ones are downloaded in.
 *
 * As a program: `node --import tsx test/model/folders.ts FOLDER [original|diffusers|gguf|fp8] [t2v|i2v|flf2v|ti2v|t2v-a14b|i2v-a14b]`.
 */
import { mkdir, readdir, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import process from 'node:process';
import { pathToFileURL } from 'node:url';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { numel } from '../../kernels/kernel.ts';
import { clipSpecs } from '../../model/clip/clip.ts';
import { clipConfig, type CLIPConfig } from '../../model/clip/config.ts';
import {
  ditConfig,
  readsImages,
  vaeConfig,
  WAN22_VAE,
  WAN_VAE,
  type DiTConfig,
  type VAEConfig,
} from '../../model/config.ts';
import {
  diffusersDiT,
  diffusersVAE,
  llamaUMT5,
  OWN,
  transformersCLIP,
  transformersUMT5,
  type Naming,
} from '../../model/files/names.ts';
import { openWeights } from '../../model/files/open.ts';
import { exportPacked } from '../../model/files/packedexport.ts';
import { saveTensors } from '../../model/files/safetensors.ts';
import { toBF16, toF16 } from '../../model/halves.ts';
import type { HostParams } from '../../model/params.ts';
import { umt5Config, type UMT5Config } from '../../model/umt5/config.ts';
import { umt5Specs } from '../../model/umt5/umt5.ts';
import { ditSpecs } from '../../model/wan/dit.ts';
import { vaeSpecs } from '../../model/wan/vae.ts';
import { pth, type PthTensor } from './pthfile.ts';
import { noise, scrambled, tinyTokenizer } from './tiny.ts';

export interface Generated {
  dit: { config: DiTConfig; params: HostParams };
  /** Of two experts the one for low noise. */
  low?: HostParams;
  vae: { config: VAEConfig; params: HostParams };
  text: { config: UMT5Config; params: HostParams };
  image: { config: CLIPConfig; params: HostParams };
}

/** Wan's own, with the DiT and the text encoder as GGUF or as scaled fp8 in their places. */
const QUANTISED = {
  gguf: { dtype: 'q8_0', dit: 'wan2.1-Q8_0.gguf', text: 'umt5-xxl-encoder-Q8_0.gguf', naming: llamaUMT5 },
  fp8: {
    dtype: 'fp8_scaled',
    dit: 'wan2.1_fp8_e4m3fn_scaled.safetensors',
    text: 'umt5_xxl_fp8_e4m3fn_scaled.safetensors',
    naming: transformersUMT5,
  },
} as const;
export type Layout = 'original' | 'diffusers' | keyof typeof QUANTISED;

export type Kind = DiTConfig['model_type'] | 't2v-a14b' | 'i2v-a14b';

/** Numbers small enough for a test, of the real ones' proportions. */
function generate(named: Kind): Generated {
  const two = named.endsWith('-a14b');
  const kind = named.replace('-a14b', '') as DiTConfig['model_type'];
  const small = { dim: 8, num_res_blocks: 1 };
  const image = clipConfig({ image_size: 224, patch_size: 14, dim: 80, out_dim: 48, num_heads: 1, num_layers: 3 }); // the DiT wants 257 tokens
  const text = umt5Config({
    vocab: tinyTokenizer().model.vocab.length,
    dim: 32,
    dim_attn: 48,
    dim_ffn: 40,
    num_heads: 4,
    num_layers: 2,
  });
  const vae = vaeConfig(kind === 'ti2v' ? { ...WAN22_VAE, ...small, dec_dim: 8 } : { ...WAN_VAE, ...small });
  const dit = ditConfig({
    model_type: kind,
    patch_size: [1, 2, 2],
    text_len: 16,
    in_dim: kind === 't2v' || kind === 'ti2v' ? vae.z_dim : 36,
    out_dim: vae.z_dim,
    dim: 48,
    ffn_dim: 64,
    freq_dim: 32,
    text_dim: text.dim,
    num_heads: 2,
    num_layers: 2,
    clip_dim: two ? 0 : image.dim,
  });
  return {
    dit: { config: dit, params: scrambled(ditSpecs(dit)) },
    ...(two && { low: scrambled(ditSpecs(dit), 0.15) }),
    vae: { config: vae, params: scrambled(vaeSpecs(vae)) },
    text: { config: text, params: scrambled(umt5Specs(text)) },
    image: { config: image, params: scrambled(clipSpecs(image)) },
  };
}

async function writeJSON(path: string, json: unknown): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, JSON.stringify(json, null, 2));
}

/** Two shards with their index. */
async function writeShards(
  folder: string,
  stem: string,
  params: HostParams,
  dtype: 'F32' | 'F16' | 'BF16',
): Promise<void> {
  await mkdir(folder, { recursive: true });
  const names = Object.keys(params);
  const map: Record<string, string> = {};
  for (const [i, some] of [names.slice(0, names.length / 2), names.slice(names.length / 2)].entries()) {
    const file = `${stem}-0000${i + 1}-of-00002.safetensors`;
    await saveTensors(join(folder, file), Object.fromEntries(some.map((n) => [n, params[n]!])), {
      dtype,
      metadata: { format: 'pt' },
    });
    for (const n of some) map[n] = file;
  }
  await writeJSON(join(folder, `${stem}.safetensors.index.json`), { metadata: { total_size: 0 }, weight_map: map });
}

const ENCODED = { F32: (x: Float32Array) => x, F16: toF16, BF16: toBF16 };
const writePth = (path: string, params: HostParams, dtype: keyof typeof ENCODED): Promise<void> =>
  writeFile(
    path,
    pth(
      Object.fromEntries(
        Object.entries(params).map(([name, t]): [string, PthTensor] => [
          name,
          { dtype, shape: t.shape, storage: ENCODED[dtype](Float32Array.from(t.data)) },
        ]),
      ),
    ),
  );

async function writeOriginal(folder: string, { dit, low, vae, text, image }: Generated): Promise<void> {
  const { clip_dim: _c, checkpoint: _k, ...config } = dit.config;
  const networks: [string, HostParams][] = low
    ? [
        ['high_noise_model', dit.params],
        ['low_noise_model', low],
      ]
    : [['', dit.params]];
  for (const [name, params] of networks) {
    await writeJSON(join(folder, name, 'config.json'), {
      _class_name: 'WanModel',
      _diffusers_version: '0.30.0',
      ...config,
    });
    await writeShards(join(folder, name), 'diffusion_pytorch_model', params, 'F32');
  }
  await writePth(
    join(folder, dit.config.model_type === 'ti2v' ? 'Wan2.2_VAE.pth' : 'Wan2.1_VAE.pth'),
    vae.params,
    'F32',
  );
  await writePth(join(folder, 'models_t5_umt5-xxl-enc-bf16.pth'), text.params, 'BF16');
  if (readsImages(dit.config))
    await writePth(
      join(folder, 'models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth'),
      { ...image.params, log_scale: noise('log', []), 'textual.head.weight': noise('head', [4, 4]) },
      'F16',
    );
  await writeJSON(join(folder, 'google', 'umt5-xxl', 'tokenizer.json'), tinyTokenizer());
}

/** Quantised files as people have them, in the folder of a release. */
async function writeQuantised(folder: string, models: Generated, layout: keyof typeof QUANTISED): Promise<void> {
  await writeOriginal(folder, models);
  const { dtype, dit, text, naming } = QUANTISED[layout];
  const networks = models.low ? ['high_noise_model', 'low_noise_model'] : [''];
  for (const [at, stem, file, names] of [
    ...networks.map((name) => [join(folder, name), 'diffusion_pytorch_model', dit, OWN] as const),
    [folder, 'models_t5', text, naming] as const,
  ]) {
    const weights = await openWeights(at, stem);
    await exportPacked(join(at, file), weights, { naming: names, dtype, metadata: {} });
    await weights.close();
    for (const name of await readdir(at)) if (name.startsWith(stem)) await rm(join(at, name));
  }
}

/** Under the other project's names, cut and shaped as there. */
function theirs(params: HostParams, naming: Naming, drop: readonly string[] = []): HostParams {
  return Object.fromEntries(
    Object.entries(params)
      .filter(([own]) => !drop.includes(own))
      .flatMap(([own, t]): [string, HostTensor][] => {
        const names = naming.theirs(own);
        const shape = own.endsWith('_embedding')
          ? t.shape.filter((n) => n !== 1)
          : [t.shape[0]! / names.length, ...t.shape.slice(1)];
        return names.map((name, i) => [name, host(t.data.slice(i * numel(shape), (i + 1) * numel(shape)), shape)]);
      }),
  );
}

async function writeDiffusers(folder: string, { dit, low, vae, text, image }: Generated): Promise<void> {
  const pictures = readsImages(dit.config);
  await writeJSON(join(folder, 'model_index.json'), {
    _class_name: pictures ? 'WanImageToVideoPipeline' : 'WanPipeline',
    transformer: ['diffusers', 'WanTransformer3DModel'],
    transformer_2: low ? ['diffusers', 'WanTransformer3DModel'] : [null, null],
    ...(low && { boundary_ratio: dit.config.model_type === 't2v' ? 0.875 : 0.9 }),
    ...(dit.config.model_type === 'ti2v' && { expand_timesteps: true }),
  });
  const { dim, num_heads, in_dim, out_dim, patch_size, text_len, text_dim, freq_dim, ffn_dim, num_layers, clip_dim } =
    dit.config;
  const transformer = {
    _class_name: 'WanTransformer3DModel',
    added_kv_proj_dim: pictures ? dim : null,
    attention_head_dim: dim / num_heads,
    cross_attn_norm: true,
    eps: 1e-6,
    ffn_dim,
    freq_dim,
    image_dim: pictures ? clip_dim : null,
    in_channels: in_dim,
    num_attention_heads: num_heads,
    num_layers,
    out_channels: out_dim,
    patch_size,
    qk_norm: 'rms_norm_across_heads',
    pos_embed_seq_len: dit.config.model_type === 'flf2v' ? 514 : null,
    rope_max_seq_len: 1024,
    text_dim,
    text_len, // Diffusers leaves 512 to its pipeline
  };
  for (const [name, params] of Object.entries({ transformer: dit.params, ...(low && { transformer_2: low }) })) {
    await writeJSON(join(folder, name, 'config.json'), transformer);
    await writeShards(join(folder, name), 'diffusion_pytorch_model', theirs(params, diffusersDiT), 'BF16');
  }
  const { latent_mean, latent_std, dim_mult, num_res_blocks, temperal_downsample, z_dim } = vae.config;
  await writeJSON(join(folder, 'vae/config.json'), {
    _class_name: 'AutoencoderKLWan',
    attn_scales: [],
    base_dim: vae.config.dim,
    dim_mult,
    dropout: 0,
    latents_mean: latent_mean,
    latents_std: latent_std,
    num_res_blocks,
    temperal_downsample,
    z_dim,
    ...(vae.config.is_residual && {
      is_residual: true,
      decoder_base_dim: vae.config.dec_dim,
      patch_size: vae.config.patch_size,
      in_channels: 12,
      out_channels: 12,
    }),
  });
  await saveTensors(
    join(folder, 'vae/diffusion_pytorch_model.safetensors'),
    theirs(vae.params, diffusersVAE(vae.config)),
  );
  await writeJSON(join(folder, 'text_encoder/config.json'), {
    vocab_size: text.config.vocab,
    d_model: text.config.dim,
    d_kv: text.config.dim_attn / text.config.num_heads,
    d_ff: text.config.dim_ffn,
    num_heads: text.config.num_heads,
    num_layers: text.config.num_layers,
    relative_attention_num_buckets: 32,
    relative_attention_max_distance: 128,
    layer_norm_epsilon: 1e-6,
    feed_forward_proj: 'gated-gelu',
  });
  const embedding = { 'encoder.embed_tokens.weight': text.params['token_embedding.weight']! };
  await writeShards(
    join(folder, 'text_encoder'),
    'model',
    { ...theirs(text.params, transformersUMT5), ...embedding },
    'BF16',
  );
  await writeJSON(join(folder, 'tokenizer/tokenizer.json'), tinyTokenizer());
  await writeJSON(join(folder, 'scheduler/scheduler_config.json'), {
    _class_name: 'UniPCMultistepScheduler',
    flow_shift: 3,
    prediction_type: 'flow_prediction',
    use_flow_sigmas: true,
  });
  if (!pictures) return;
  const c = image.config;
  await writeJSON(join(folder, 'image_encoder/config.json'), {
    hidden_size: c.dim,
    intermediate_size: c.dim * c.mlp_ratio,
    num_hidden_layers: c.num_layers,
    num_attention_heads: c.num_heads,
    image_size: c.image_size,
    patch_size: c.patch_size,
    projection_dim: c.out_dim,
    hidden_act: 'gelu',
    layer_norm_eps: 1e-5,
  });
  await saveTensors(
    join(folder, 'image_encoder/model.safetensors'),
    theirs(image.params, transformersCLIP, ['visual.head']),
  );
}

/** Writes a checkpoint folder and gives what is in it. */
export async function writeFolder(folder: string, layout: Layout = 'original', kind: Kind = 't2v'): Promise<Generated> {
  const models = generate(kind);
  await mkdir(folder, { recursive: true });
  if (layout === 'gguf' || layout === 'fp8') await writeQuantised(folder, models, layout);
  else await (layout === 'original' ? writeOriginal : writeDiffusers)(folder, models);
  return models;
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [folder, layout = 'original', kind = 't2v'] = process.argv.slice(2);
  if (!folder)
    throw new Error('folders.ts FOLDER [original|diffusers|gguf|fp8] [t2v|i2v|flf2v|ti2v|t2v-a14b|i2v-a14b]');
  await writeFolder(folder, layout as Layout, kind as Kind);
}

/** The numbers that make a Wan2.1 DiT or VAE, under the names of Wan's own configs, checked on entry. */
import * as z from 'zod'; // as a namespace: a bundler leaves out what is not used
import type { Triple } from '../engine/frontend/graph.ts';

export interface DiTConfig {
  /** t2v: text only. i2v: image tokens beside the text, mask and image latent beside the noise. flf2v: i2v with first and last frame. */
  model_type: 't2v' | 'i2v' | 'flf2v';
  /** (time, height, width) of a token, in latent cells. */
  patch_size: Triple;
  /** Text is zero-padded to this many tokens, and the padding is attended. */
  text_len: number;
  /** Channels of the noisy latent and, for i2v, of what stands beside it. */
  in_dim: number;
  out_dim: number;
  dim: number;
  ffn_dim: number;
  /** Width of the sinusoidal time embedding. */
  freq_dim: number;
  text_dim: number;
  num_heads: number;
  num_layers: number;
  eps: number;
  /** Width of the image tokens; i2v and flf2v only. */
  clip_dim: number;
  /**
   * Recompute each block in the backward pass instead of keeping its activations: all but dear attention (true), or all (`lean`), and even
   * of the tokens between blocks all but every sixth (`nested`).
   */
  checkpoint: boolean | 'lean' | 'nested';
  /** Parts that the feed-forward takes the tokens in, one after the other: its hidden layer is the largest activation. */
  ffn_parts: number;
}

export interface VAEConfig {
  dim: number;
  z_dim: number;
  /** Width of each level in units of `dim`; there is one halving of height and width between levels. */
  dim_mult: readonly number[];
  num_res_blocks: number;
  /** Which of the halvings also halves time. The spelling is Wan's. */
  temperal_downsample: readonly boolean[];
  /** Of the video: 3 in Wan. */
  channels: number;
  latent_mean: readonly number[];
  latent_std: readonly number[];
}

/** Sizes of a network. No checkpoint has larger ones; who names such would be worked at for hours. */
export const count = z
  .number()
  .int()
  .positive()
  .max(2 ** 22);
export const layers = count.max(1000);

const MODEL_TYPES = ['t2v', 'i2v', 'flf2v'] as const;

const ditSchema = z
  .object({
    model_type: z.enum(MODEL_TYPES, {
      error: ({ input }) =>
        `is ${JSON.stringify(input)}, which is not read; those of Wan2.1 that are: ${MODEL_TYPES.join(', ')}`,
    }),
    patch_size: z.tuple([count.max(64), count.max(64), count.max(64)]),
    text_len: count.max(16_384),
    in_dim: count,
    out_dim: count,
    dim: count,
    ffn_dim: count,
    freq_dim: count,
    text_dim: count,
    num_heads: count,
    num_layers: layers,
    eps: z.number().positive().default(1e-6),
    clip_dim: count.default(1280),
    checkpoint: z.union([z.boolean(), z.enum(['lean', 'nested'])]).default(false),
    ffn_parts: count.default(1),
    // Wan2.1 has one value of each of these; another would be another network.
    qk_norm: z.literal(true).default(true),
    cross_attn_norm: z.literal(true).default(true),
    window_size: z.tuple([z.literal(-1), z.literal(-1)]).default([-1, -1]),
  })
  .superRefine((c, context) => {
    const demand = (ok: boolean, path: string, message: string) =>
      ok || context.addIssue({ code: 'custom', path: [path], message });
    demand(
      c.dim % c.num_heads === 0 && (c.dim / c.num_heads) % 2 === 0,
      'dim',
      `must be num_heads ${c.num_heads} times an even head size, got ${c.dim}`,
    );
    demand(
      c.dim / c.num_heads >= 6,
      'dim',
      `head size must be 6 or more, a rotary pair for each of time, height and width, got ${c.dim / c.num_heads}`,
    );
    demand(c.freq_dim % 2 === 0, 'freq_dim', `must be even, got ${c.freq_dim}`);
    demand(
      c.model_type !== 't2v' || c.in_dim === c.out_dim,
      'in_dim',
      `must equal out_dim ${c.out_dim} for t2v, got ${c.in_dim}`,
    );
    demand(
      c.model_type === 't2v' || c.in_dim > c.out_dim,
      'in_dim',
      `must be more than out_dim ${c.out_dim} for ${c.model_type}: the latent, the mask, the image latent; got ${c.in_dim}`,
    );
  });

const vaeSchema = z
  .object({
    dim: count,
    z_dim: count.max(4096),
    dim_mult: z.array(count.max(64)).min(1).max(8),
    num_res_blocks: count.max(64),
    temperal_downsample: z.array(z.boolean()).max(8),
    channels: count.default(3),
    latent_mean: z.array(z.number()).optional(),
    latent_std: z.array(z.number().positive()).optional(),
    attn_scales: z.array(z.number()).max(0, 'attention outside the middle block is not part of Wan2.1').default([]),
  })
  .superRefine((c, context) => {
    const demand = (ok: boolean, path: string, message: string) =>
      ok || context.addIssue({ code: 'custom', path: [path], message });
    demand(
      c.temperal_downsample.length === c.dim_mult.length - 1,
      'temperal_downsample',
      `needs one entry between each two of the ${c.dim_mult.length} levels, got ${c.temperal_downsample.length}`,
    );
    // The decoder's upsampling halves the width that the level above it is told.
    c.dim_mult
      .slice(1)
      .forEach((m) =>
        demand(
          (c.dim * m) % 2 === 0,
          'dim',
          `times each of dim_mult past the first must be even, got ${c.dim} times ${m}`,
        ),
      );
    for (const key of ['latent_mean', 'latent_std'] as const) {
      demand(!c[key] || c[key].length === c.z_dim, key, `needs z_dim ${c.z_dim} entries, got ${c[key]?.length}`);
    }
  });

/** `value` by its schema; throws one line for each value that is wrong. */
export function check<T>(what: string, schema: z.ZodType<T>, value: unknown): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  throw new Error(result.error.issues.map((i) => `[${what}] ${i.path.join('.')}: ${i.message}`).join('\n'));
}

/** A Wan `config.json` or a preset → DiTConfig; throws one line for each value that is wrong. Unknown keys are ignored. */
export function ditConfig(value: unknown): DiTConfig {
  const { qk_norm: _q, cross_attn_norm: _c, window_size: _w, ...config } = check('dit config', ditSchema, value);
  return config;
}

/** As `ditConfig`. Latents without statistics are left as they are (mean 0, std 1). */
export function vaeConfig(value: unknown): VAEConfig {
  const { attn_scales: _, ...config } = check('vae config', vaeSchema, value);
  return {
    ...config,
    latent_mean: config.latent_mean ?? Array.from({ length: config.z_dim }, () => 0),
    latent_std: config.latent_std ?? Array.from({ length: config.z_dim }, () => 1),
  };
}

/** The released VAE of Wan2.1, with the channel statistics of wan/modules/vae.py. */
export const WAN_VAE: VAEConfig = vaeConfig({
  dim: 96,
  z_dim: 16,
  dim_mult: [1, 2, 4, 4],
  num_res_blocks: 2,
  temperal_downsample: [false, true, true],
  latent_mean: [
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508, 0.4134, -0.0715, 0.5517, -0.3632, -0.1922,
    -0.9497, 0.2503, -0.2921,
  ],
  latent_std: [
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743, 3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253,
    2.8251, 1.916,
  ],
});

/** (time, height, width) of the video that one latent cell stands for. */
export const vaeStride = (c: VAEConfig): Triple => {
  const space = 2 ** (c.dim_mult.length - 1);
  return [2 ** c.temperal_downsample.filter(Boolean).length, space, space];
};

/** Frames of a clip that the network is told: none, the first, or the first and the last. */
export const givenFrames = ({ model_type }: Pick<DiTConfig, 'model_type'>): 0 | 1 | 2 =>
  (({ t2v: 0, i2v: 1, flf2v: 2 }) as const)[model_type];

export const headDim = (c: DiTConfig): number => c.dim / c.num_heads;

/** The numbers that make a Wan DiT or VAE, under the names of Wan's own configs, checked on entry. */
import * as z from 'zod'; // as a namespace: a bundler leaves out what is not used
import type { Triple } from '../engine/frontend/graph.ts';

export interface DiTConfig {
  /**
   * t2v: text only. i2v: mask and image latent beside the noise. flf2v: i2v with first and last frame. ti2v: text only, or the first
   * frame's latent in the sample itself, its tokens at time 0.
   */
  model_type: 't2v' | 'i2v' | 'flf2v' | 'ti2v';
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
  /** Width of the image tokens beside the text; i2v and flf2v only, and 0 where they have none, as in Wan2.2. */
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
  /** Width of the decoder; the encoder's unless given. */
  dec_dim?: number | undefined;
  /** Pixels along an edge that are one cell of the first layer; 1 unless given. */
  patch_size?: number | undefined;
  /** Wan2.2: each level is a stage with a shortcut past it, and resampling keeps the channels. */
  is_residual?: boolean | undefined;
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

const MODEL_TYPES = ['t2v', 'i2v', 'flf2v', 'ti2v'] as const;

const ditSchema = z
  .object({
    model_type: z.enum(MODEL_TYPES, {
      error: ({ input }) =>
        `is ${JSON.stringify(input)}, which is not read; those of Wan that are: ${MODEL_TYPES.join(', ')}`,
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
    clip_dim: count.or(z.literal(0)).default(1280),
    checkpoint: z.union([z.boolean(), z.enum(['lean', 'nested'])]).default(false),
    ffn_parts: count.default(1),
    // Wan has one value of each of these; another would be another network.
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
      hasBeside(c) || c.in_dim === c.out_dim,
      'in_dim',
      `must equal out_dim ${c.out_dim} for ${c.model_type}, got ${c.in_dim}`,
    );
    demand(
      !hasBeside(c) || c.in_dim > c.out_dim,
      'in_dim',
      `must be more than out_dim ${c.out_dim} for ${c.model_type}: the latent, the mask, the image latent; got ${c.in_dim}`,
    );
  });

const vaeSchema = z
  .object({
    dim: count,
    dec_dim: count.optional(),
    patch_size: count.max(8).optional(),
    is_residual: z.boolean().optional(),
    z_dim: count.max(4096),
    dim_mult: z.array(count.max(64)).min(1).max(8),
    num_res_blocks: count.max(64),
    temperal_downsample: z.array(z.boolean()).max(8),
    channels: count.default(3),
    latent_mean: z.array(z.number()).optional(),
    latent_std: z.array(z.number().positive()).optional(),
    attn_scales: z.array(z.number()).max(0, 'attention outside the middle block is not part of Wan').default([]),
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
    const dim = c.dec_dim ?? c.dim;
    c.dim_mult
      .slice(1)
      .forEach((m) =>
        demand(
          c.is_residual === true || (dim * m) % 2 === 0,
          'dim',
          `times each of dim_mult past the first must be even, got ${dim} times ${m}`,
        ),
      );
    const last = c.dim_mult.length - 1;
    for (const [i, m] of c.is_residual ? c.dim_mult.entries() : []) {
      const cells = i === last ? 1 : c.temperal_downsample[i] ? 8 : 4;
      const [down, up] = [i ? c.dim_mult[i - 1]! : 1, c.dim_mult[Math.min(i + 2, last)]!];
      const fits =
        (cells * c.dim * down) % (c.dim * m) === 0 &&
        (i === last || (cells * dim * c.dim_mult[i + 1]!) % (dim * up) === 0);
      demand(
        fits,
        'dim_mult',
        `entry ${i}: no shortcut leads past a stage between such widths, got [${c.dim_mult.join(', ')}]`,
      );
    }
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

/** The released VAE of Wan2.1 and Wan2.2's A14B, with the channel statistics of wan/modules/vae.py. */
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

/** The released VAE of Wan2.2's TI2V-5B, with the channel statistics of wan/modules/vae2_2.py. */
export const WAN22_VAE: VAEConfig = vaeConfig({
  dim: 160,
  dec_dim: 256,
  patch_size: 2,
  is_residual: true,
  z_dim: 48,
  dim_mult: [1, 2, 4, 4],
  num_res_blocks: 2,
  temperal_downsample: [false, true, true],
  latent_mean: [
    -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891, 0.157,
    -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502, -0.2055, -0.0322,
    0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.123, -0.0313, -0.1649, 0.0117, 0.0723, -0.2839, -0.2083, -0.052,
    0.3748, 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667,
  ],
  latent_std: [
    0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.499, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901, 0.6885, 0.6165,
    0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659, 0.7069, 0.5338, 0.4889, 0.4917,
    0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944, 0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.06,
    0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744,
  ],
});

/** (time, height, width) of the video that one latent cell stands for. */
export const vaeStride = (c: VAEConfig): Triple => {
  const space = 2 ** (c.dim_mult.length - 1) * (c.patch_size ?? 1);
  return [2 ** c.temperal_downsample.filter(Boolean).length, space, space];
};

type Typed = Pick<DiTConfig, 'model_type'>;

/** Frames of a clip that the network can be told: none, the first, or the first and the last. */
export const givenFrames = ({ model_type }: Typed): 0 | 1 | 2 =>
  (({ t2v: 0, i2v: 1, flf2v: 2, ti2v: 1 }) as const)[model_type];

/** Mask and image latent stand beside the noise. */
export const hasBeside = ({ model_type }: Typed): boolean => model_type === 'i2v' || model_type === 'flf2v';

/** Image tokens are attended beside the text. */
export const readsImages = (c: Pick<DiTConfig, 'model_type' | 'clip_dim'>): boolean => hasBeside(c) && c.clip_dim > 0;

/** The first frame's latent stands in the sample itself, where one is given. */
export const holdsFirst = ({ model_type }: Typed): boolean => model_type === 'ti2v';

export const headDim = (c: DiTConfig): number => c.dim / c.num_heads;

/** The numbers that make the visual tower of a CLIP, under the names of Wan's own config, checked on entry. */
import * as z from 'zod';
import { check, count, layers } from '../config.ts';

export interface CLIPConfig {
  /** Edge of the square picture, and of a patch, in pixels. */
  image_size: number;
  patch_size: number;
  dim: number;
  /** Width of the feed-forward in units of `dim`. */
  mlp_ratio: number;
  /** Width of the tower's own embedding; its projection is part of the checkpoint and not used. */
  out_dim: number;
  num_heads: number;
  num_layers: number;
  eps: number;
  /** Statistics of red, green and blue in [0, 1]. */
  image_mean: readonly number[];
  image_std: readonly number[];
}

const colour = z.array(z.number()).length(3);

const schema = z
  .object({
    image_size: count.max(4096),
    patch_size: count,
    dim: count,
    out_dim: count,
    num_heads: count,
    num_layers: layers.min(2, 'needs two blocks: the features are those of the last but one'),
    mlp_ratio: z.number().positive().default(4),
    eps: z.number().positive().default(1e-5),
    image_mean: colour.default([0.48145466, 0.4578275, 0.40821073]),
    image_std: colour.default([0.26862954, 0.26130258, 0.27577711]),
    // Wan2.1 has one value of each of these; another would be another network.
    pool_type: z.literal('token').default('token'),
    pre_norm: z.literal(true).default(true),
    post_norm: z.literal(false).default(false),
    activation: z.literal('gelu').default('gelu'),
  })
  .superRefine((c, context) => {
    const demand = (ok: boolean, path: string, message: string) =>
      ok || context.addIssue({ code: 'custom', path: [path], message });
    demand(
      c.image_size % c.patch_size === 0,
      'image_size',
      `must be a multiple of patch_size ${c.patch_size}, got ${c.image_size}`,
    );
    demand(c.dim % c.num_heads === 0, 'dim', `must be a multiple of num_heads ${c.num_heads}, got ${c.dim}`);
  });

/** As `ditConfig`: throws one line for each value that is wrong. */
export function clipConfig(value: unknown): CLIPConfig {
  const { pool_type: _p, pre_norm: _n, post_norm: _o, activation: _a, ...config } = check('clip config', schema, value);
  return config;
}

/** ViT-H/14 of the CLIP that Wan2.1's image-to-video models see through. */
export const CLIP_VIT_H: CLIPConfig = clipConfig({
  image_size: 224,
  patch_size: 14,
  dim: 1280,
  out_dim: 1024,
  num_heads: 16,
  num_layers: 32,
});

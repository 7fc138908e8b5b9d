/** The numbers that make a umT5 encoder, under the names of Wan's own config, checked on entry. */
import * as z from 'zod';
import { check, count, layers } from '../config.ts';

export interface UMT5Config {
  vocab: number;
  dim: number;
  /** Width of all heads together. */
  dim_attn: number;
  dim_ffn: number;
  num_heads: number;
  num_layers: number;
  /** Rows of each layer's table of relative position biases, and the distance from which they are the same. */
  num_buckets: number;
  max_dist: number;
  eps: number;
}

const schema = z
  .object({
    vocab: count,
    dim: count,
    dim_attn: count,
    dim_ffn: count,
    num_heads: count,
    num_layers: layers,
    num_buckets: count.max(4096).multipleOf(4).default(32),
    max_dist: count.default(128),
    eps: z.number().positive().default(1e-6),
    shared_pos: z.literal(false).default(false), // what sets umT5 apart from T5
  })
  .superRefine((c, context) => {
    if (c.dim_attn % c.num_heads)
      context.addIssue({
        code: 'custom',
        path: ['dim_attn'],
        message: `must be a multiple of num_heads ${c.num_heads}, got ${c.dim_attn}`,
      });
  });

/** As `ditConfig`: throws one line for each value that is wrong. */
export function umt5Config(value: unknown): UMT5Config {
  const { shared_pos: _, ...config } = check('umt5 config', schema, value);
  return config;
}

/** The released text encoder of Wan2.1. */
export const UMT5_XXL: UMT5Config = umt5Config({
  vocab: 256384,
  dim: 4096,
  dim_attn: 4096,
  dim_ffn: 10240,
  num_heads: 64,
  num_layers: 24,
});

/**
 * Vision transformers that look at frames: DINO's and CLIP's, whose class token is the feature. Parameters have timm's names, which
 * are DINO's own; CLIP's weights are brought under them when they are read.
 *
 * References: Caron et al. 2021 (vision_transformer.py of facebookresearch/dino), Radford et al. 2021 (modeling_clip.py of transformers).
 */
import { attention, concat, gelu } from '../../engine/frontend/functional.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { cubic } from '../clip/resize.ts';
import {
  kaiming,
  linearSpecs,
  materialise,
  normal,
  normSpecs,
  Scope,
  shapesOf,
  under,
  type HostParams,
  type Params,
  type Specs,
} from '../params.ts';

export interface ViTConfig {
  /** Edge of the picture that the positions were trained for, and of a patch, px. */
  image_size: number;
  patch_size: number;
  dim: number;
  num_heads: number;
  num_layers: number;
  eps: number;
  /**
   * CLIP: a norm before the blocks, patches without bias, x σ(1.702 x) for GELU, and a projection of the class token to so many numbers.
   */
  clip?: { out_dim: number } | undefined;
  /** Of red, green and blue in [0, 1]. */
  mean: readonly number[];
  std: readonly number[];
}

const CLIP_COLOURS = { mean: [0.48145466, 0.4578275, 0.40821073], std: [0.26862954, 0.26130258, 0.27577711] };
const B = { image_size: 224, dim: 768, num_heads: 12, num_layers: 12 };

export const DINO_VIT_B16: ViTConfig = {
  ...B,
  patch_size: 16,
  eps: 1e-6,
  mean: [0.485, 0.456, 0.406],
  std: [0.229, 0.224, 0.225],
};
export const CLIP_VIT_B32: ViTConfig = { ...B, patch_size: 32, eps: 1e-5, clip: { out_dim: 512 }, ...CLIP_COLOURS };
export const CLIP_VIT_L14: ViTConfig = {
  image_size: 224,
  patch_size: 14,
  dim: 1024,
  num_heads: 16,
  num_layers: 24,
  eps: 1e-5,
  clip: { out_dim: 768 },
  ...CLIP_COLOURS,
};

function vitSpecs(c: ViTConfig): Specs {
  const small = normal(c.dim ** -0.5);
  const block: Specs = {
    ...under('norm1', normSpecs(c.dim)),
    ...under('attn.qkv', linearSpecs(c.dim, 3 * c.dim)),
    ...under('attn.proj', linearSpecs(c.dim, c.dim)),
    ...under('norm2', normSpecs(c.dim)),
    ...under('mlp.fc1', linearSpecs(c.dim, 4 * c.dim)),
    ...under('mlp.fc2', linearSpecs(4 * c.dim, c.dim)),
  };
  return {
    cls_token: { shape: [1, 1, c.dim], init: small },
    pos_embed: { shape: [1, 1 + (c.image_size / c.patch_size) ** 2, c.dim], init: small },
    'patch_embed.proj.weight': { shape: [c.dim, 3, c.patch_size, c.patch_size], init: kaiming(3 * c.patch_size ** 2) },
    ...(c.clip ? under('norm_pre', normSpecs(c.dim)) : { 'patch_embed.proj.bias': { shape: [c.dim], init: small } }),
    ...(Object.assign({}, ...Array.from({ length: c.num_layers }, (_, i) => under(`blocks.${i}`, block))) as Specs),
    ...under('norm', normSpecs(c.dim)),
    ...(c.clip && { 'head.weight': { shape: [c.clip.out_dim, c.dim], init: small } }),
  };
}

export const vitShapes = (c: ViTConfig): Record<string, readonly number[]> => shapesOf(vitSpecs(c));
export const initViT = (c: ViTConfig, seed: number): HostParams => materialise(vitSpecs(c), seed);

/**
 * Features [B, dim] (or [B, out_dim]) of pictures [B,3,H,W], H and W multiples of the patch, colours normalised.
 * @param positions [1, 1 + patches, dim], for this size: `positionsFor`
 */
export function vit(params: Params, c: ViTConfig, pixels: Tensor, positions: Tensor): Tensor {
  const s = new Scope(params);
  const [b, , h, w] = pixels.shape as [number, number, number, number];
  const p = c.patch_size;
  const patches = pixels
    .reshape([b, 3, h / p, p, w / p, p])
    .permute([0, 2, 4, 1, 3, 5])
    .reshape([b, (h / p) * (w / p), 3 * p * p]);
  let tokens = patches.matmul(s.get('patch_embed.proj.weight').reshape([c.dim, -1]), { transB: true });
  if (!c.clip) tokens = tokens.add(s.get('patch_embed.proj.bias'));
  let x = concat([s.get('cls_token').expand([b, 1, c.dim]), tokens], 1).add(positions);
  if (c.clip) x = s.layerNorm('norm_pre', x, c.eps);
  for (let i = 0; i < c.num_layers; i++) x = block(s.scope('blocks').scope(i), c, x);
  const token = s.layerNorm('norm', x.slice(1, 0, 1).reshape([b, c.dim]), c.eps);
  return c.clip ? s.linear('head', token) : token;
}

function block(s: Scope, c: ViTConfig, x: Tensor): Tensor {
  const [b, n] = x.shape as [number, number];
  const [q, k, v] = s
    .linear('attn.qkv', s.layerNorm('norm1', x, c.eps))
    .split(2, 3)
    .map((t) => t.reshape([b, n, c.num_heads, -1])) as [Tensor, Tensor, Tensor];
  const h = x.add(s.linear('attn.proj', attention(q, k, v).reshape([b, n, c.dim])));
  const inner = s.linear('mlp.fc1', s.layerNorm('norm2', h, c.eps));
  return h.add(s.linear('mlp.fc2', c.clip ? inner.mul(inner.mul(1.702).sigmoid()) : gelu(inner, 'exact')));
}

/**
 * The learned positions for another grid of patches: bicubic, as DINO does it, whose scale is (rows + 0.1) / side.
 * @param positions [1, 1 + side², dim] of a checkpoint
 */
export function positionsFor(c: ViTConfig, positions: HostTensor, rows: number, columns: number): HostTensor {
  const side = c.image_size / c.patch_size;
  if (rows === side && columns === side) return positions;
  const out = new Float32Array((1 + rows * columns) * c.dim);
  out.set(positions.data.subarray(0, c.dim) as Float32Array);
  const across = (n: number) =>
    Array.from({ length: n }, (_, i) => {
      const at = (i + 0.5) * (side / (n + 0.1)) - 0.5;
      return [-1, 0, 1, 2].map((tap) => {
        const source = Math.floor(at) + tap;
        return [Math.min(side - 1, Math.max(0, source)), cubic(Math.abs(at - source))] as const;
      });
    });
  const wide = across(columns);
  across(rows).forEach((down, y) =>
    wide.forEach((over, x) => {
      const to = out.subarray((1 + y * columns + x) * c.dim, (2 + y * columns + x) * c.dim);
      for (const [j, wj] of down)
        for (const [i, wi] of over) {
          const from = (1 + j * side + i) * c.dim;
          for (let k = 0; k < c.dim; k++) to[k]! += wj * wi * positions.data[from + k]!;
        }
    }),
  );
  return host(out, [1, 1 + rows * columns, c.dim]);
}

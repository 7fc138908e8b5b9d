/**
 * The visual tower of Wan2.1's CLIP (ViT) as functions over parameters under the checkpoint's names: the tokens behind the last
 * block but one, as image-to-video models take them.
 *
 * Reference: wan/modules/clip.py of Wan2.1.
 */
import { attention, concat, gelu } from '../../engine/frontend/functional.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
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
import type { CLIPConfig } from './config.ts';
import { resize, resizeTables, type ResizeTables } from './resize.ts';

export type Probe = (name: string, value: Tensor) => void;

/** Patches a side, and tokens with the class token. */
const side = (c: CLIPConfig): number => c.image_size / c.patch_size;
export const clipTokens = (c: CLIPConfig): number => 1 + side(c) ** 2;

export function clipBlockSpecs(c: CLIPConfig): Specs {
  return {
    ...under('norm1', normSpecs(c.dim)),
    ...under('attn.to_qkv', linearSpecs(c.dim, 3 * c.dim)),
    ...under('attn.proj', linearSpecs(c.dim, c.dim)),
    ...under('norm2', normSpecs(c.dim)),
    ...under('mlp.0', linearSpecs(c.dim, c.mlp_ratio * c.dim)),
    ...under('mlp.2', linearSpecs(c.mlp_ratio * c.dim, c.dim)),
  };
}

/** Every parameter of the tower with its shape; the last block, `post_norm` and `head` are part of it and not used. */
export function clipSpecs(c: CLIPConfig): Specs {
  const small = normal(c.dim ** -0.5);
  return under('visual', {
    cls_embedding: { shape: [1, 1, c.dim], init: small },
    pos_embedding: { shape: [1, clipTokens(c), c.dim], init: small },
    'patch_embedding.weight': { shape: [c.dim, 3, c.patch_size, c.patch_size], init: kaiming(3 * c.patch_size ** 2) },
    ...under('pre_norm', normSpecs(c.dim)),
    ...(Object.assign(
      {},
      ...Array.from({ length: c.num_layers }, (_, i) => under(`transformer.${i}`, clipBlockSpecs(c))),
    ) as Specs),
    ...under('post_norm', normSpecs(c.dim)),
    head: { shape: [c.dim, c.out_dim], init: small },
  });
}

/** Name → shape of the checkpoint. */
export const clipShapes = (config: CLIPConfig): Record<string, readonly number[]> => shapesOf(clipSpecs(config));

/** Of them, those that image features come from: the tower's last block and what follows it are part of the files, or not. */
export function usedClipShapes(config: CLIPConfig): Record<string, readonly number[]> {
  const unused = ['visual.head', 'visual.post_norm.', `visual.transformer.${config.num_layers - 1}.`];
  return Object.fromEntries(
    Object.entries(clipShapes(config)).filter(([name]) => !unused.some((u) => name.startsWith(u))),
  );
}

export const initCLIP = (config: CLIPConfig, seed: number): HostParams => materialise(clipSpecs(config), seed);

/** Tables that pictures of a size need. */
export interface CLIPTables<T = HostTensor> extends ResizeTables<T> {
  /** [3, 1, 1]. */
  mean: T;
  std: T;
}
export const clipTables = (c: CLIPConfig, [height, width]: readonly [number, number]): CLIPTables => ({
  ...resizeTables([height, width], [c.image_size, c.image_size]),
  mean: host(c.image_mean, [3, 1, 1]),
  std: host(c.image_std, [3, 1, 1]),
});

/** Pictures [B,3,H,W] in [-1, 1] → squashed to a square, overshoot and all, and normalised [B,3,S,S]. */
export function clipPixels(images: Tensor, tables: CLIPTables<Tensor>, probe: Probe = () => {}): Tensor {
  const square = resize(images, tables);
  probe('resized', square);
  return square.mul(0.5).add(0.5).sub(tables.mean).div(tables.std);
}

/** Pixels [B,3,S,S] → tokens [B,1+n,dim], the class token first. `s` is the scope `visual`. */
export function clipEmbed(s: Scope, c: CLIPConfig, pixels: Tensor): Tensor {
  const [b, n, p] = [pixels.shape[0]!, side(c), c.patch_size];
  const patches = pixels
    .reshape([b, 3, n, p, n, p])
    .permute([0, 2, 4, 1, 3, 5])
    .reshape([b, n * n, 3 * p * p]);
  const tokens = patches.matmul(s.get('patch_embedding.weight').reshape([c.dim, -1]), { transB: true });
  const all = concat([s.get('cls_embedding').cast('f32').expand([b, 1, c.dim]), tokens], 1).add(s.get('pos_embedding'));
  return s.layerNorm('pre_norm', all, c.eps);
}

/** x [B,N,dim] → [B,N,dim]. */
export function clipBlock(s: Scope, c: CLIPConfig, x: Tensor): Tensor {
  const [b, n] = x.shape as [number, number];
  const [q, k, v] = s
    .linear('attn.to_qkv', s.layerNorm('norm1', x, c.eps))
    .split(2, 3)
    .map((t) => t.reshape([b, n, c.num_heads, -1])) as [Tensor, Tensor, Tensor];
  const h = x.add(s.linear('attn.proj', attention(q, k, v).reshape([b, n, c.dim])));
  return h.add(s.linear('mlp.2', gelu(s.linear('mlp.0', s.layerNorm('norm2', h, c.eps)), 'exact')));
}

/** Blocks behind whose last the features lie. */
export const clipDepth = (c: CLIPConfig): number => c.num_layers - 1;

/**
 * Pixels [B,3,S,S], as `clipPixels` gives them → features [B,1+n,dim].
 * @param probe told of intermediate values, under the names of the reference tensors; for tests
 */
export function clip(
  params: Params | Scope,
  config: CLIPConfig,
  pixels: Tensor,
  { depth = clipDepth(config), probe = () => {} }: { depth?: number; probe?: Probe } = {},
): Tensor {
  const s = Scope.of(params).scope('visual');
  let x = clipEmbed(s, config, pixels);
  probe('pre_norm', x);
  for (let i = 0; i < depth; i++) {
    x = clipBlock(s.scope('transformer').scope(i), config, x);
    probe(`block${i}`, x);
  }
  return x;
}

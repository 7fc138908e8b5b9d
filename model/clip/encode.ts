/** Pictures to the tokens that image-to-video models read, block by block. */
import type { Device } from '../../engine/runtime/device.ts';
import type { NDArray } from '../../engine/runtime/ndarray.ts';
import { fail, printShapes } from '../../engine/host/errors.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { BlockStack, storedBlocks, type RunOptions } from '../blocks.ts';
import { upload } from '../files/upload.ts';
import type { Weights } from '../files/weights.ts';
import { Scope, type Params } from '../params.ts';
import { clipBlock, clipDepth, clipEmbed, clipPixels, clipTables, type CLIPTables } from './clip.ts';
import { CLIP_VIT_H, type CLIPConfig } from './config.ts';

const EMBEDDING = ['cls_embedding', 'pos_embedding', 'patch_embedding.weight', 'pre_norm.weight', 'pre_norm.bias'];

/**
 * @param weights of `config`, under Wan's names, as a checkpoint opens them; they stay open
 * @param images [B,3,H,W] in [-1, 1]
 * @returns [B, 257, 1280] for ViT-H/14
 */
export async function encodeImage(
  device: Device,
  weights: Weights,
  images: HostTensor,
  { config = CLIP_VIT_H, ...options }: RunOptions & { config?: CLIPConfig } = {},
): Promise<HostTensor> {
  const [, channels, height, width] = images.shape as [number, number, number, number];
  if (images.shape.length !== 4 || channels !== 3)
    fail('clip', `expected pictures [B,3,H,W], got ${printShapes(images.shape)}`);
  const embed = device.compile(
    (params: Params, images: Tensor, tables: CLIPTables<Tensor>) =>
      clipEmbed(new Scope(params), config, clipPixels(images, tables)),
    { name: 'clip embedding' },
  );
  const stack = new BlockStack(device, (s, x) => clipBlock(s, config, x), { name: 'clip block' });
  const first: Record<string, NDArray> = {};
  let x: NDArray | undefined;
  try {
    for (const name of EMBEDDING) first[name] = await upload(device, weights, `visual.${name}`);
    x = (await embed(first, images, clipTables(config, [height, width]))).keep();
    await stack.run(x, {}, clipDepth(config), storedBlocks(device, weights, 'visual.transformer'), options);
    return host(await x.read(), x.shape);
  } finally {
    x?.free();
    for (const t of Object.values(first)) t.free();
    await Promise.all([embed.free(), stack.free()]);
  }
}

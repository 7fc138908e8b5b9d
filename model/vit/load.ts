/**
 * Vision transformers out of their published files: DINO's .pth or safetensors
 * (facebookresearch or timm), CLIP's safetensors or .bin (transformers).
 */
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { openWeights } from '../files/open.ts';
import { numel } from '../../kernels/kernel.ts';
import type { HostParams } from '../params.ts';
import { vitShapes, type ViTConfig } from './vit.ts';

/** Where transformers' CLIP keeps what timm calls so; several are joined along the first axis. */
function clipNames(name: string): readonly string[] {
  const at = 'vision_model.';
  const parts: Record<string, string> = {
    cls_token: 'embeddings.class_embedding',
    pos_embed: 'embeddings.position_embedding.weight',
    'patch_embed.proj.weight': 'embeddings.patch_embedding.weight',
  };
  if (name === 'head.weight') return ['visual_projection.weight'];
  if (parts[name]) return [at + parts[name]];
  const [, index, rest] = /^blocks\.(\d+)\.(.+)$/.exec(name) ?? [];
  if (index === undefined)
    return [at + name.replace(/^norm_pre\b/, 'pre_layrnorm').replace(/^norm\b/, 'post_layernorm')];
  const [, kind] = /\.(weight|bias)$/.exec(rest!)!;
  if (rest!.startsWith('attn.qkv'))
    return ['q', 'k', 'v'].map((x) => `${at}encoder.layers.${index}.self_attn.${x}_proj.${kind}`);
  const inner = rest!
    .replace('attn.proj', 'self_attn.out_proj')
    .replace('norm1', 'layer_norm1')
    .replace('norm2', 'layer_norm2');
  return [`${at}encoder.layers.${index}.${inner}`];
}

/** @throws one line: a tensor is missing or of another shape */
export async function loadViT(path: string, c: ViTConfig): Promise<HostParams> {
  const weights = await openWeights(path);
  try {
    const params: HostParams = {};
    for (const [name, shape] of Object.entries(vitShapes(c))) {
      const from = c.clip ? clipNames(name) : [name];
      const found: HostTensor[] = [];
      for (const f of from) {
        if (!weights.entries.has(f))
          throw new Error(
            `[vit] ${path} has no tensor ${f}: expected ${c.clip ? 'CLIP as transformers keeps it (vision_model.…)' : 'DINO as facebookresearch or timm keep it (blocks.…)'}`,
          );
        found.push(await weights.finiteTensor(f));
      }
      const data = new Float32Array(found.reduce((n, t) => n + t.data.length, 0));
      found.reduce((offset, t) => (data.set(t.data as Float32Array, offset), offset + t.data.length), 0);
      if (data.length !== numel(shape))
        throw new Error(
          `[vit] ${from.join(', ')} of ${path} hold ${data.length} numbers, expected [${shape.join()}]: this is another size of network`,
        );
      params[name] = host(data, shape);
    }
    return params;
  } finally {
    await weights.close();
  }
}

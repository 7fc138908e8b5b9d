/**
 * Prompts to what the DiT reads, block by block: of umT5-xxl's 11 GB the device holds one block or two, the host some chunks of the file.
 */
import type { Device } from '../../engine/runtime/device.ts';
import { fail } from '../../engine/host/errors.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { BlockStack, storedBlocks, type RunOptions } from '../blocks.ts';
import { upload } from '../files/upload.ts';
import type { Weights } from '../files/weights.ts';
import { Scope, type Params } from '../params.ts';
import type { Tokenizer } from '../tokenizer.ts';
import { UMT5_XXL, type UMT5Config } from './config.ts';
import { relativeBuckets, umt5Block, umt5Norm, type UMT5Context } from './umt5.ts';

/** Tokens that go through the blocks at a time. */
const TOKENS = 4096;
/** Texts are padded to a multiple of this, so that few programs serve all lengths. */
const ROUND = 16;

export interface EncodeTextOptions extends RunOptions {
  config?: UMT5Config;
  /** Rows of each text. */
  textLen?: number;
}

/** Prompts encoded: [B, textLen, dim], zero past each one's own length. */
export interface EncodedText {
  text: HostTensor;
  lengths: number[];
}

/**
 * @param weights of `config`, under Wan's names, as a checkpoint opens them; they stay open
 */
export async function encodeText(
  device: Device,
  weights: Weights,
  tokenizer: Tokenizer,
  prompts: readonly string[],
  { config = UMT5_XXL, textLen = 512, onProgress, signal }: EncodeTextOptions = {},
): Promise<EncodedText> {
  if (!prompts.length) fail('umt5', 'no prompts');
  const ids = prompts.map((prompt) => tokenizer.encode(prompt, textLen));
  const padded = Math.min(textLen, ROUND * Math.ceil(Math.max(...ids.map((t) => t.length)) / ROUND));
  const size = Math.max(1, Math.floor(TOKENS / padded));
  const text = new Float32Array(prompts.length * textLen * config.dim);
  const stack = new BlockStack(device, (s, x, context: UMT5Context) => umt5Block(s, config, x, context), {
    name: 'umt5 block',
  });
  const norm = device.compile((params: Params, x: Tensor) => umt5Norm(new Scope(params), config, x), {
    name: 'umt5 norm',
  });
  const gain = await upload(device, weights, 'norm.weight');
  const buckets = relativeBuckets(padded, config);
  try {
    for (let first = 0; first < ids.length; first += size) {
      const group = ids.slice(first, first + size);
      const x = device.tensor(await embed(weights, group, padded), [group.length, padded, config.dim]);
      try {
        const context = {
          buckets,
          lengths: host(
            group.map((t) => t.length),
            [group.length],
            'u32',
          ),
        };
        await stack.run(x, context, config.num_layers, storedBlocks(device, weights, 'blocks'), {
          signal,
          onProgress: (done, total) => onProgress?.(first * total + done * group.length, ids.length * total),
        });
        const rows = await (await norm({ 'norm.weight': gain }, x)).read();
        group.forEach(({ length }, b) =>
          text.set(
            rows.subarray(b * padded * config.dim, (b * padded + length) * config.dim),
            (first + b) * textLen * config.dim,
          ),
        );
      } finally {
        x.free();
      }
    }
  } finally {
    gain.free();
    await Promise.all([stack.free(), norm.free()]);
  }
  return { text: host(text, [prompts.length, textLen, config.dim]), lengths: ids.map((t) => t.length) };
}

/** Rows of the embedding, read one by one: the table alone is 2 GB. Zeros past each text. */
async function embed(weights: Weights, texts: readonly number[][], padded: number): Promise<Float32Array> {
  const {
    data,
    shape: [, dim],
  } = await weights.rows('token_embedding.weight', texts.flat());
  const out = new Float32Array(texts.length * padded * dim!);
  let at = 0;
  texts.forEach(({ length }, b) => out.set(data.subarray(at * dim!, (at += length) * dim!), b * padded * dim!));
  return out;
}

/** A checkpoint folder as the pipeline takes it: umT5 and CLIP run block by block from their files, the DiT and the VAE are uploaded. */
import { host } from '../../engine/frontend/tree.ts';
import { encodeImage } from '../clip/encode.ts';
import type { Checkpoint } from '../files/checkpoint.ts';
import { uploadWeights } from '../files/upload.ts';
import type { Weights } from '../files/weights.ts';
import { loadTokenizer, type Tokenizer } from '../tokenizer.ts';
import { encodeText } from '../umt5/encode.ts';
import { usualSampling } from '../families/index.ts';
import type { Lora } from '../files/lora.ts';
import type { Expert, Sampling } from './diffuse.ts';
import { halfOf, type Progress, type VideoModel } from './generate.ts';
import { loadNetwork, type NetworkOptions } from './network.ts';
import type { Size } from './size.ts';

/** LoRAs of one of two experts, or of the network that there is. */
export type ExpertLora = Lora & { readonly expert?: Expert | undefined };

type ModelOptions = Omit<NetworkOptions, 'loras'> & { loras?: readonly ExpertLora[] };

/** As its family's generate script samples, but for what the folder says otherwise. */
export const wanSampling = ({ dit, ...checkpoint }: Checkpoint, size: Size): Sampling =>
  usualSampling({ ...checkpoint, dit: dit.config }, size);

/** Opens a part's weights for as long as `body` runs. */
async function using<R>(open: () => Promise<Weights>, body: (weights: Weights) => Promise<R>): Promise<R> {
  const weights = await open();
  return body(weights).finally(() => weights.close());
}

/** In megabytes. */
const loading =
  (progress: Progress) =>
  (done: number, total: number): void =>
    progress('loading', 'MB', Math.ceil(done / 1e6), Math.ceil(total / 1e6));

export function wanModel(checkpoint: Checkpoint, { loras = [], ...options }: ModelOptions = {}): VideoModel {
  const { dit, low, vae, text, image, family } = checkpoint;
  let loaded: Promise<Tokenizer> | undefined;
  const tokenizerOf = () => (loaded ??= loadTokenizer(checkpoint.tokenizer));
  return {
    dit: dit.config,
    vae: vae.config,
    sizeLike: family.sizeLike,
    async countTokens(texts) {
      const tokenizer = await tokenizerOf();
      return texts.map((t) => tokenizer.count(t));
    },
    async encodeText(device, texts, progress) {
      const tokenizer = await tokenizerOf();
      const { text_len: textLen, text_dim: dim } = dit.config;
      const { text: rows } = await using(text.open, (weights) =>
        encodeText(device, weights, tokenizer, texts, {
          config: text.config,
          textLen,
          onProgress: (done, total) => progress('text', 'blocks', done, total),
        }),
      );
      const size = textLen * dim;
      return texts.map((_, i) => host((rows.data as Float32Array).slice(i * size, (i + 1) * size), [textLen, dim]));
    },
    ...(image &&
      ({
        // One at a time: pictures differ in size.
        encodeImages: (device, pictures, progress) =>
          using(image.open, async (weights) => {
            const tokens = [];
            for (const picture of pictures) {
              const t = await encodeImage(
                device,
                weights,
                { ...picture, shape: [1, ...picture.shape] },
                { config: image.config, onProgress: (done, total) => progress('image', 'blocks', done, total) },
              );
              tokens.push(host(t.data, t.shape.slice(1)));
            }
            return tokens;
          }),
      } satisfies Partial<VideoModel>)),
    loadDiT: (device, progress, expert = 'high') =>
      loadNetwork(
        device,
        (expert === 'low' && low) || dit,
        { ...options, loras: loras.filter((l) => (l.expert ?? expert) === expert) },
        loading(progress),
      ),
    loadVAE: (device, half, progress) =>
      using(vae.open, (weights) =>
        uploadWeights(device, weights, {
          names: Object.keys(halfOf(vae.shapes, half)),
          dtype: 'f32',
          onProgress: loading(progress),
        }),
      ),
  };
}

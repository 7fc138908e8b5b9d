/** A Wan2.1 checkpoint folder as the pipeline takes it: umT5 and CLIP run block by block from their files, the DiT and the VAE are uploaded. */
import { host } from '../../engine/frontend/tree.ts';
import { encodeImage } from '../clip/encode.ts';
import type { Checkpoint } from '../files/checkpoint.ts';
import { uploadWeights } from '../files/upload.ts';
import type { Weights } from '../files/weights.ts';
import { loadTokenizer, type Tokenizer } from '../tokenizer.ts';
import { encodeText } from '../umt5/encode.ts';
import type { Sampling } from './diffuse.ts';
import { halfOf, type Progress, type VideoModel } from './generate.ts';
import { loadNetwork, type NetworkOptions } from './network.ts';
import type { Size } from './size.ts';

/** Frames a second that Wan2.1 was trained on. */
export const WAN_FPS = 16;
export const WAN_FRAMES = 81;
export const WAN_SIZE: Size = { width: 832, height: 480 };

/** The negative prompt of Wan's own configs (wan/configs/shared_config.py and wan_i2v_14B.py of Wan2.1, Apache-2.0): what Wan was tuned to avoid. */
const NEGATIVE =
  '色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，丑陋的，残缺的，多余的手指，' +
  '画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走';
export const wanNegative = (given: 0 | 1 | 2): string => ['', '镜头晃动，', '镜头切换，镜头晃动，'][given]! + NEGATIVE;

/** As Wan's generate script samples: image-to-video takes 40 steps, and at 480p a smaller shift, unless the folder names one; between two frames the shift is 16. */
export function wanSampling({ dit, flowShift, layout }: Checkpoint, { width, height }: Size): Sampling {
  const image = dit.config.model_type === 'i2v';
  const small = width * height <= WAN_SIZE.width * WAN_SIZE.height;
  const shift = dit.config.model_type === 'flf2v' ? 16 : image && small ? 3 : 5;
  return { kind: 'unipc', steps: image ? 40 : 50, shift: flowShift ?? shift, guidance: 5, layout };
}

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

export function wanModel(checkpoint: Checkpoint, options: NetworkOptions = {}): VideoModel {
  const { dit, vae, text, image } = checkpoint;
  let loaded: Promise<Tokenizer> | undefined;
  const tokenizerOf = () => (loaded ??= loadTokenizer(checkpoint.tokenizer));
  return {
    dit: dit.config,
    vae: vae.config,
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
    loadDiT: (device, progress) => loadNetwork(device, dit, options, loading(progress)),
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

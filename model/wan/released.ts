/** The released Wan2.1 transformers by name: the numbers of their config.json. */
import { ditConfig, type DiTConfig } from '../config.ts';

const SMALL = { dim: 1536, ffn_dim: 8960, num_heads: 12, num_layers: 30 };
const LARGE = { dim: 5120, ffn_dim: 13824, num_heads: 40, num_layers: 40 };

/** i2v and flf2v: beside the latent's 16 channels, the mask's 4 and the image latent's 16. */
const wan = (model_type: DiTConfig['model_type'], size: typeof SMALL): DiTConfig =>
  ditConfig({
    model_type,
    patch_size: [1, 2, 2],
    text_len: 512,
    text_dim: 4096,
    freq_dim: 256,
    in_dim: model_type === 't2v' ? 16 : 36,
    out_dim: 16,
    clip_dim: 1280,
    ...size,
  });

/** With the size that each was trained for, in pixels. The two image-to-video checkpoints differ in their weights alone, so they also go by one name. */
export const WAN: Readonly<Record<string, { dit: DiTConfig; width: number; height: number }>> = {
  'wan2.1-t2v-1.3b': { dit: wan('t2v', SMALL), width: 832, height: 480 },
  'wan2.1-t2v-14b': { dit: wan('t2v', LARGE), width: 1280, height: 720 },
  'wan2.1-i2v-14b': { dit: wan('i2v', LARGE), width: 832, height: 480 },
  'wan2.1-i2v-14b-480p': { dit: wan('i2v', LARGE), width: 832, height: 480 },
  'wan2.1-i2v-14b-720p': { dit: wan('i2v', LARGE), width: 1280, height: 720 },
  'wan2.1-flf2v-14b-720p': { dit: wan('flf2v', LARGE), width: 1280, height: 720 },
};

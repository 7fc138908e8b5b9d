/** Wan2.1: text-to-video, image-to-video, and between a first and a last frame. Sources: wan/configs and generate.py of Wan2.1. */
import { ditConfig, WAN_VAE, type DiTConfig } from '../config.ts';
import { eachDown, LARGE, NEGATIVE, SHARED, type Family } from './family.ts';

const SMALL = { dim: 1536, ffn_dim: 8960, num_heads: 12, num_layers: 30 };
const SIZE = { width: 832, height: 480 };
const HD = { width: 1280, height: 720 };

/** i2v and flf2v: beside the latent's 16 channels, the mask's 4 and the image latent's 16. */
const dit = (model_type: DiTConfig['model_type'], size: typeof SMALL): DiTConfig =>
  ditConfig({ ...SHARED, model_type, in_dim: model_type === 't2v' ? 16 : 36, out_dim: 16, clip_dim: 1280, ...size });

export const wan21: Family = {
  title: 'Wan2.1',
  // The two image-to-video checkpoints differ in their weights alone, so they also go by one name.
  released: {
    'wan2.1-t2v-1.3b': { dit: dit('t2v', SMALL), ...SIZE },
    'wan2.1-t2v-14b': { dit: dit('t2v', LARGE), ...HD },
    'wan2.1-i2v-14b': { dit: dit('i2v', LARGE), ...SIZE },
    'wan2.1-i2v-14b-480p': { dit: dit('i2v', LARGE), ...SIZE },
    'wan2.1-i2v-14b-720p': { dit: dit('i2v', LARGE), ...HD },
    'wan2.1-flf2v-14b-720p': { dit: dit('flf2v', LARGE), ...HD },
  },
  vae: WAN_VAE,
  vaeFiles: ['Wan2.1_VAE', 'wan_2.1_vae'],
  owns: ({ model_type }, two) => model_type !== 'ti2v' && !two,
  fps: 16,
  frames: 81,
  size: SIZE,
  negative: ({ model_type }) =>
    ({ t2v: '', i2v: '镜头晃动，', flf2v: '镜头切换，镜头晃动，', ti2v: '' })[model_type] + NEGATIVE,
  /** Image-to-video takes 40 steps, and at 480p a smaller shift; between two frames the shift is 16. */
  sampling({ model_type }, { width, height }) {
    const image = model_type === 'i2v';
    const small = width * height <= SIZE.width * SIZE.height;
    const shift = model_type === 'flf2v' ? 16 : image && small ? 3 : 5;
    return { kind: 'unipc', steps: image ? 40 : 50, shift, guidance: 5 };
  },
  sizeLike: eachDown,
  fit: 'squash',
};

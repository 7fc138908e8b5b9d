/**
 * Wan2.2: TI2V-5B, one network for text and image, and A14B, two networks for two ranges
 * of noise. Sources: wan/configs and generate.py of Wan2.2.
 */
import { ditConfig, WAN22_VAE, WAN_VAE, type DiTConfig } from '../config.ts';
import { eachDown, LARGE, nearest, NEGATIVE, SHARED, type Family } from './family.ts';

export const wan22ti2v: Family = {
  title: 'Wan2.2 TI2V',
  released: {
    'wan2.2-ti2v-5b': {
      dit: ditConfig({
        ...SHARED,
        model_type: 'ti2v',
        in_dim: 48,
        out_dim: 48,
        dim: 3072,
        ffn_dim: 14336,
        num_heads: 24,
        num_layers: 30,
        clip_dim: 0,
      }),
      width: 1280,
      height: 704,
    },
  },
  vae: WAN22_VAE,
  vaeFiles: ['Wan2.2_VAE', 'wan2.2_vae'],
  owns: ({ model_type }) => model_type === 'ti2v',
  fps: 24,
  frames: 121,
  size: { width: 1280, height: 704 },
  negative: () => NEGATIVE,
  sampling: () => ({ kind: 'unipc', steps: 50, shift: 5, guidance: 5 }),
  sizeLike: nearest,
  fit: 'cover',
};

const a14b = (model_type: DiTConfig['model_type']): DiTConfig =>
  ditConfig({ ...SHARED, ...LARGE, model_type, in_dim: model_type === 't2v' ? 16 : 36, out_dim: 16, clip_dim: 0 });

export const wan22a14b: Family = {
  title: 'Wan2.2 A14B',
  released: {
    'wan2.2-t2v-a14b': { dit: a14b('t2v'), width: 1280, height: 720 },
    'wan2.2-i2v-a14b': { dit: a14b('i2v'), width: 1280, height: 720 },
  },
  vae: WAN_VAE,
  vaeFiles: ['Wan2.1_VAE', 'wan_2.1_vae'],
  experts: {
    folders: ['high_noise_model', 'low_noise_model'],
    boundary: ({ model_type }) => (model_type === 't2v' ? 0.875 : 0.9),
  },
  owns: (_, two) => two,
  fps: 16,
  frames: 81,
  size: { width: 1280, height: 720 },
  negative: () => NEGATIVE,
  sampling: ({ model_type }) =>
    model_type === 't2v'
      ? { kind: 'unipc', steps: 40, shift: 12, guidance: 4, lowGuidance: 3 }
      : { kind: 'unipc', steps: 40, shift: 5, guidance: 3.5, lowGuidance: 3.5 },
  sizeLike: eachDown,
  fit: 'squash',
};

/** Named sizes, from the bundled models to the released Wan2.1 1.3B: a DiT, a VAE, a batch and a clip. */
import { ditConfig, vaeStride, WAN_VAE, type DiTConfig, type VAEConfig } from '../../model/config.ts';
import { tokenGrid } from '../../model/wan/tables.ts';
import { ditConfigOf, vaeConfigOf } from '../../train/methods/conditions.ts';
import { loadPreset } from '../../train/presets/index.ts';

export interface Shape {
  name: string;
  batch: number;
  dit: DiTConfig;
  vae: VAEConfig;
  /** Frames, height, width of the video. */
  clip: readonly [number, number, number];
}

/** Frames, height, width in latent cells. */
export const latentOf = ({ vae, clip: [frames, height, width] }: Shape): [number, number, number] => {
  const [t, h, w] = vaeStride(vae);
  return [1 + Math.floor((frames - 1) / t), height / h, width / w];
};

export const tokensOf = (s: Shape): number =>
  tokenGrid(s.dit, [s.dit.out_dim, ...latentOf(s)]).reduce((a, b) => a * b, 1);

const wan = (size: Partial<DiTConfig>): DiTConfig =>
  ditConfig({
    model_type: 't2v',
    patch_size: [1, 2, 2],
    text_len: 512,
    in_dim: 16,
    out_dim: 16,
    freq_dim: 256,
    text_dim: 4096,
    ...size,
  });
// Wan-Video/Wan2.1 wan/configs/wan_t2v_1_3B.py
const SMALLEST_WAN = wan({ dim: 1536, ffn_dim: 8960, num_heads: 12, num_layers: 30 });

function digits(): Shape {
  const p = loadPreset('digits');
  return {
    name: 'digits',
    batch: p.teacher.batch,
    dit: ditConfigOf(p),
    vae: vaeConfigOf(p),
    clip: [p.data.frames, p.data.size, p.data.size],
  };
}

export const SHAPES: Record<string, () => Shape> = {
  digits,
  small: () => ({
    name: 'small',
    batch: 1,
    dit: wan({ dim: 512, ffn_dim: 2048, num_heads: 8, num_layers: 12, text_len: 64, text_dim: 512 }),
    vae: { ...WAN_VAE, dim: 32 },
    clip: [9, 128, 128],
  }),
  'wan2.1-1.3b-256p': () => ({
    name: 'wan2.1-1.3b-256p',
    batch: 1,
    dit: SMALLEST_WAN,
    vae: WAN_VAE,
    clip: [17, 256, 256],
  }),
  'wan2.1-1.3b': () => ({ name: 'wan2.1-1.3b', batch: 1, dit: SMALLEST_WAN, vae: WAN_VAE, clip: [81, 480, 832] }),
};

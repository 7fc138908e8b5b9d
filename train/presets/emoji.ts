/**
 * The preset `emoji`: captioned animations in colour, 64x64, for a GPU (20 M parameters); `emoji-t2v` is the same from text alone.
 * Sources are named as in digits.ts; "scaled" is the digits preset's choice at this size. Nothing of it was trained yet.
 */
import { BASELINES } from './baselines.ts';
import type { Preset } from './schema.ts';

const emoji: Preset = {
  name: 'emoji',
  seed: 1,
  data: {
    set: 'emoji',
    packs: 1, //              477 animations with their names; all four packages hold 2,109
    size: 64,
    frames: 17, //                1.4 seconds; 17 = 1 + 4·4 frames, so five latent frames
    trainClips: 8000,
    shardClips: 500, // about twenty stretches of each animation
    heldOutClips: 256, //                   as digits
  },
  // Wan's causal VAE with dim 96 → 32 and three levels instead of four: stride (4,4,4), latents [16,5,16,16].
  vae: { channels: 3, dim: 32, z_dim: 16, dim_mult: [1, 2, 4], num_res_blocks: 2, temperal_downsample: [true, true] },
  text: { text_dim: 128, text_len: 16 }, // METHOD §1.2: 8-16 tokens of 64..128
  dit: {
    model_type: 'i2v',
    dim: 320,
    num_heads: 5,
    ffn_dim: 1280,
    num_layers: 9, // METHOD §1.14 "large" and wider; heads of 64; 320 tokens
    patch_size: [1, 2, 2],
    freq_dim: 128, // Wan's patch
    checkpoint: false,
    ffn_parts: 1,
  },
  trainVae: {
    steps: 20000,
    batch: 8,
    accumulate: 1,
    warmup: 500,
    adam: { lr: 5e-4, beta1: 0.9, beta2: 0.99, eps: 1e-8, weightDecay: 0, clip: 1 }, // scaled
    l1: 1,
    mse: 1,
    kl: 1e-4, //             absolute error too: flat colours and hard edges
    statClips: 1024,
  },
  teacher: {
    steps: 60000,
    batch: 64,
    accumulate: 1,
    warmup: 500, // METHOD §1.14
    adam: { lr: 3e-4, beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0.01, clip: 1 }, // METHOD §1.14
    ema: 0.9995, //                         METHOD §1.14
    times: { law: 'logit-normal', mean: 0, std: 1, shift: 1 },
    textDrop: 0.1,
    sampler: { steps: 50, guidance: 2, shift: 1 },
  },
  stored: 'f32',
  student: { mode: 'full', rank: 32, alpha: 32, steps: 1 },
  priming: {
    steps: 1500,
    batch: 64,
    accumulate: 1,
    warmup: 50, //  METHOD §1.14
    generator: {
      adam: { lr: 3e-5, beta1: 0, beta2: 0.999, eps: 1e-8, weightDecay: 0, clip: 1 }, // METHOD §1.14
      times: { law: 'endpoint', from: 0.9, pure: 0.5 },
      ema: 0.995, //                        paper
    },
    fake: {
      adam: { lr: 2e-4, beta1: 0, beta2: 0.999, eps: 1e-8, weightDecay: 0, clip: 10 }, // METHOD §1.14
      mode: 'lora',
      ida: 1,
      rank: 32,
      alpha: 32,
      updates: 5,
      warmup: 100, // METHOD §1.5: r 16-32, five updates
    },
    scoreTimes: { law: 'uniform', shift: 1, lo: 0.02, hi: 0.98 },
    guidance: 2,
    wmin: 1e-2,
  },
  equilibrium: {
    steps: 2000,
    batch: 64,
    accumulate: 1,
    warmup: 50, //  METHOD §1.14
    generator: { adam: { lr: 2e-5, beta1: 0, beta2: 0.99, eps: 1e-8, weightDecay: 0, clip: 1 }, ema: 0.995 }, // METHOD §1.14; paper
    head: {
      adam: { lr: 1e-4, beta1: 0, beta2: 0.99, eps: 1e-8, weightDecay: 0, clip: 1 },
      kind: 'semantic',
      queries: 'tap',
      dim: 192,
      head_dim: 64,
      warmup: 100,
    },
    backbone: 'ema',
    loss: 'hinge',
    adversarial: 1,
    sees: 'noised',
    taps: [4, 6, 8], //                     METHOD §1.6: round(L {0.5, 0.75, 1}) - 1 for L = 9
    discriminatorTimes: { law: 'uniform', shift: 1, lo: 0.02, hi: 0.98 },
    told: 'own',
    scoreTimes: { law: 'uniform', shift: 1, lo: 0.02, hi: 0.98 },
    lambda: 10,
    guidance: 2, //             as digits
    str1: { weight: 1, spatial: 0.01, temporal: 0.1, on: 'both', drawn: 'frame' },
    apart: false,
  },
  baselines: BASELINES,
  best: { every: 100, clips: 128, minMotion: 0.8, frechetWeight: 0.01 },
  run: { saveEvery: 500, maxSkipped: 20, sampleEvery: 250, precision: 'f32', offload: false },
};

export const EMOJI: Record<string, Preset> = {
  emoji,
  'emoji-t2v': { ...emoji, name: 'emoji-t2v', dit: { ...emoji.dit, model_type: 't2v' } },
};

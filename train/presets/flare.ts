/**
 * The preset `flare`: people of a game's sprites that act on tiled ground, 9 frames of 48x48 in colour, with texture enough that one step
 * is hard. For two CPU cores: VAE and teacher take a night.
 *
 * Sources are named as in digits.ts; "digits" is that preset's choice; "trial" here is METHOD §1.18's, on the same sprites at 32x32.
 */
import { BASELINES } from './baselines.ts';
import type { Preset } from './schema.ts';

const flare: Preset = {
  name: 'flare',
  seed: 1,
  data: {
    set: 'flare',
    size: 48,
    frames: 9, //         the game's 64 px at three quarters: garments and weapons can still be told; frames as digits
    trainClips: 12000,
    shardClips: 500, // digits; each is another outfit on other ground
    heldOutClips: 256, //                   digits
  },
  // Wan2.2's causal VAE with dim 160 → 32 and 256 → 48, two levels instead of four: stride (2,4,4), 4 numbers for 1. At 12 for 1, as
  // Wan2.1 has it, the best linear map keeps a quarter of the clips' sharpness, and a network of this size not half.
  vae: {
    channels: 3,
    dim: 32,
    dec_dim: 48,
    patch_size: 2,
    is_residual: true,
    z_dim: 24,
    dim_mult: [1, 1],
    num_res_blocks: 1,
    temperal_downsample: [true],
  },
  text: { text_dim: 64, text_len: 20 }, //  digits; captions have 17 words or fewer
  dit: {
    model_type: 'i2v',
    dim: 160,
    num_heads: 5,
    ffn_dim: 640,
    num_layers: 6, // digits and a quarter wider, for 96 numbers a token instead of 32; 180 tokens
    patch_size: [1, 2, 2],
    freq_dim: 64,
    checkpoint: false,
    ffn_parts: 1, // digits
  },
  trainVae: {
    steps: 8000,
    batch: 4,
    accumulate: 1,
    warmup: 100,
    crops: { size: 24, stills: { steps: 1900, batch: 16 } }, // an update on stills costs a fifth of one on clips
    local: true,
    adam: { lr: 2e-3, beta1: 0.9, beta2: 0.99, eps: 1e-8, weightDecay: 0, clip: 1 },
    l1: 1,
    mse: 1,
    edges: 2,
    critic: { weight: 0.1, from: 3450 },
    kl: 1e-4, //   absolute errors keep edges sharper than squares alone
    statClips: 512, //                      digits
  },
  teacher: {
    steps: 6000,
    batch: 16,
    accumulate: 1,
    warmup: 200, // budget: 4.7 s of processor time a step
    adam: { lr: 1.5e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0.01, clip: 1 }, // digits
    ema: 0.999, //                          digits
    times: { law: 'logit-normal', mean: 0, std: 1, shift: 1 }, // METHOD §1.14
    textDrop: 0.1, //                       METHOD §1.14
    sampler: { steps: 50, guidance: 2, shift: 1 }, // METHOD §1.14
  },
  stored: 'f32',
  student: { mode: 'full', rank: 16, alpha: 16, steps: 1 }, // digits
  priming: {
    steps: 300,
    batch: 16,
    accumulate: 1,
    warmup: 20, //   trial: score distillation is near its plateau after 225 to 300 updates
    generator: {
      adam: { lr: 5e-5, beta1: 0, beta2: 0.999, eps: 1e-8, weightDecay: 0, clip: 1 }, // trial
      times: { law: 'endpoint', from: 0.9, pure: 0.5 }, // digits
      ema: 0.98, //                         trial
    },
    fake: {
      adam: { lr: 2e-4, beta1: 0, beta2: 0.999, eps: 1e-8, weightDecay: 0, clip: 10 }, // METHOD §1.5
      mode: 'lora',
      ida: 1,
      rank: 16,
      alpha: 16,
      updates: 2,
      warmup: 30, // trial
    },
    scoreTimes: { law: 'uniform', shift: 1, lo: 0.02, hi: 0.98 }, // digits
    guidance: 2,
    wmin: 1e-2, //             trial
  },
  equilibrium: {
    steps: 300,
    batch: 16,
    accumulate: 1,
    warmup: 20, //   as phase I
    generator: { adam: { lr: 2e-5, beta1: 0, beta2: 0.99, eps: 1e-8, weightDecay: 0, clip: 1 }, ema: 0.98 }, // trial: better than 5e-5 late
    head: {
      adam: { lr: 3e-4, beta1: 0, beta2: 0.99, eps: 1e-8, weightDecay: 0, clip: 1 }, // trial
      kind: 'semantic',
      queries: 'tap',
      dim: 128,
      head_dim: 32,
      warmup: 30, // digits; trial
    },
    backbone: 'ema',
    loss: 'hinge',
    adversarial: 1,
    sees: 'noised', // paper
    apart: false,
    taps: [2, 4, 5], //                     METHOD §1.6
    discriminatorTimes: { law: 'uniform', shift: 1, lo: 0.02, hi: 0.98 }, // trial: high-noise times silence it
    told: 'own',
    scoreTimes: { law: 'uniform', shift: 1, lo: 0.02, hi: 0.98 },
    lambda: 1,
    guidance: 2, //              trial: the paper's 10 blurs what score distillation made
    str1: { weight: 0.1, spatial: 0.01, temporal: 0.1, on: 'both', drawn: 'frame' }, // trial: weight 1 silences it
  },
  baselines: BASELINES,
  best: { every: 50, clips: 256, minMotion: 0.8, frechetWeight: 0.01 }, // digits
  run: { saveEvery: 100, maxSkipped: 20, sampleEvery: 250, precision: 'f32', offload: false },
};

export const FLARE: Record<string, Preset> = { flare };

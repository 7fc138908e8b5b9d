/**
 * The presets `digits` (the bundled models) and `digits-test` (seconds, for tests): every number with its source.
 *
 * Sources: METHOD §x = a section of train/METHOD.md (the paper's value, or a small-scale one where the paper's is for 14 B parameters);
 * Wan = Wan2.1's code; trial = METHOD §1.17; budget = chosen so that training fits two CPU cores.
 */
import { BASELINES } from './baselines.ts';
import type { Preset } from './schema.ts';

const digits: Preset = {
  name: 'digits',
  seed: 1,
  data: {
    size: 32,
    frames: 9, //                 METHOD §1.14: 32x32; 9 = 1 + 4·2 frames, so three latent frames
    sprite: 20,
    speed: [1, 1.5], //         14 px of writing, one pixel a frame as in the trial
    trainClips: 12000,
    shardClips: 500, // budget; each clip is its own handwriting, place and speed
    heldOutClips: 256, //                   the trial's count
  },
  // Wan's causal VAE with dim 96 → 8, three levels instead of four, 16 → 8 latent channels: stride (4,4,4) instead of (4,8,8).
  vae: { channels: 1, dim: 8, z_dim: 8, dim_mult: [1, 2, 4], num_res_blocks: 1, temperal_downsample: [true, true] },
  text: { text_dim: 64, text_len: 8 }, //   METHOD §1.2: 8-16 tokens of 64..128; captions have four words
  dit: {
    model_type: 'i2v',
    dim: 128,
    num_heads: 4,
    ffn_dim: 512,
    num_layers: 6, // METHOD §1.14 "small", as in the trial; heads of 32 split 12/10/10 for RoPE
    patch_size: [1, 2, 2],
    freq_dim: 64, // Wan's patch; Wan's 256 sinusoids cut with the width
    checkpoint: false,
    ffn_parts: 1, //     activations are small: speed over memory
  },
  trainVae: {
    steps: 2000,
    batch: 4,
    accumulate: 1,
    warmup: 100, //  budget: 20 minutes on two cores
    adam: { lr: 2e-3, beta1: 0.9, beta2: 0.99, eps: 1e-8, weightDecay: 0, clip: 1 }, // chosen for this size
    l1: 0.1,
    mse: 1,
    kl: 1e-4, //           mean squared error first: mean absolute error alone settles on the black background
    statClips: 512, //                      latent mean and deviation per channel, as Wan's 16 constants
  },
  teacher: {
    steps: 7000,
    batch: 32,
    accumulate: 1,
    warmup: 200, // after the trial's 4000 digits still lost their shape in late frames; budget: two hours on two cores
    adam: { lr: 1.5e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0.01, clip: 1 }, // trial's rate; METHOD §1.5 weight decay of the repos
    ema: 0.999, //                          METHOD §1.14 has 0.9995 for 30k steps; shorter here
    times: { law: 'logit-normal', mean: 0, std: 1, shift: 1 }, // METHOD §1.14
    textDrop: 0.1, //                       METHOD §1.14
    sampler: { steps: 50, guidance: 2, shift: 1 }, // METHOD §1.14 and trial: Euler 50, g 2 = 100 evaluations
  },
  stored: 'f32', //                       exact: the teacher is small
  student: { mode: 'full', rank: 16, alpha: 16, steps: 1 }, // paper: a full copy, one evaluation; METHOD §1.5's rank where it is adapters
  priming: {
    steps: 150,
    batch: 16,
    accumulate: 1,
    warmup: 20, //   trial: 100-300 steps; here the score rises until 75
    generator: {
      adam: { lr: 5e-5, beta1: 0, beta2: 0.999, eps: 1e-8, weightDecay: 0, clip: 1 }, // trial's rate; METHOD §1.5: β (0, 0.999), clip 1
      times: { law: 'endpoint', from: 0.9, pure: 0.5 }, // paper's interval [0.9T, T]; METHOD §1.4: half at t = T
      ema: 0.98, //                         trial; the paper's 0.995 is for 500-1000 steps
    },
    fake: {
      adam: { lr: 2e-4, beta1: 0, beta2: 0.999, eps: 1e-8, weightDecay: 0, clip: 10 }, // METHOD §1.5
      mode: 'lora',
      ida: 1, //              paper: LoRA; METHOD §1.5: off
      rank: 16,
      alpha: 16,
      updates: 2,
      warmup: 50, // trial: r 16, 2 updates; METHOD §1.5: 50-100 fake-only steps first
    },
    scoreTimes: { law: 'uniform', shift: 1, lo: 0.02, hi: 0.98 }, // METHOD §1.4; shift 1 as the teacher's
    guidance: 3,
    wmin: 1e-2, //             trial's 2 left digits undecided after 150 steps, 3 settles them; METHOD §1.5 floor for unit-variance data
  },
  equilibrium: {
    steps: 450,
    batch: 16,
    accumulate: 1,
    warmup: 20, //   METHOD §1.17: late frames gain all along
    generator: { adam: { lr: 6e-5, beta1: 0, beta2: 0.99, eps: 1e-8, weightDecay: 0, clip: 1 }, ema: 0.99 }, // METHOD §1.17
    head: {
      adam: { lr: 1e-4, beta1: 0, beta2: 0.99, eps: 1e-8, weightDecay: 0, clip: 1 }, // METHOD §1.6
      kind: 'semantic',
      queries: 'tap',
      dim: 128,
      head_dim: 32,
      warmup: 50, // METHOD §1.8 (paper's head; d_h 128 when tiny); §1.6: 20-100 D-only steps
    },
    backbone: 'ema',
    loss: 'hinge',
    adversarial: 1,
    sees: 'noised', // paper
    apart: false, //                        speed over memory
    taps: [2, 4, 5], //                     METHOD §1.6: round(L {0.5, 0.75, 1}) - 1 for L = 6
    discriminatorTimes: { law: 'uniform', shift: 1, lo: 0.02, hi: 0.98 }, // METHOD §1.4, tiny
    told: 'own',
    scoreTimes: { law: 'uniform', shift: 1, lo: 0.02, hi: 0.98 }, // METHOD §1.4: as in phase I
    lambda: 10,
    guidance: 2, //             paper's λ; METHOD §1.9 leaves it open: 1 pulls towards the unguided teacher, which draws worse digits; the sampler's 2
    str1: { weight: 1, spatial: 0.01, temporal: 0.1, on: 'both', drawn: 'frame' }, // paper's weight and σ; METHOD §1.7: both sides when tiny
  },
  baselines: BASELINES,
  best: { every: 25, clips: 256, minMotion: 0.8, frechetWeight: 0.01 }, // METHOD §1.14 early stop: keep the best EMA subject to motion
  run: { saveEvery: 100, maxSkipped: 20, sampleEvery: 50, precision: 'f32', offload: false },
};

/** The same code with nets of a few thousand weights and a handful of steps. */
const test: Preset = {
  ...digits,
  name: 'digits-test',
  data: { ...digits.data, trainClips: 32, shardClips: 16, heldOutClips: 8 },
  vae: { ...digits.vae, dim: 4, z_dim: 4 },
  text: { text_dim: 16, text_len: 4 },
  dit: { ...digits.dit, dim: 32, num_heads: 2, ffn_dim: 64, num_layers: 2, freq_dim: 16 },
  trainVae: { ...digits.trainVae, steps: 4, batch: 2, warmup: 1, statClips: 8 },
  teacher: { ...digits.teacher, steps: 6, batch: 2, warmup: 1, sampler: { ...digits.teacher.sampler, steps: 4 } },
  student: { ...digits.student, rank: 4, alpha: 4 },
  priming: {
    ...digits.priming,
    steps: 3,
    batch: 2,
    warmup: 1,
    fake: { ...digits.priming.fake, rank: 4, alpha: 4, warmup: 2 },
  },
  equilibrium: {
    ...digits.equilibrium,
    steps: 3,
    batch: 2,
    warmup: 1,
    taps: [0, 1],
    head: { ...digits.equilibrium.head, dim: 32, head_dim: 16, warmup: 2 },
  },
  baselines: {
    ...BASELINES,
    consistency: { ...BASELINES.consistency, batch: 2, warmup: 1, grid: 8 },
    meanflow: { ...BASELINES.meanflow, batch: 2, warmup: 1 },
  },
  best: { ...digits.best, every: 3, clips: 4 },
  run: { saveEvery: 2, maxSkipped: 3, sampleEvery: 2, precision: 'f32', offload: false },
};

/**
 * Wan2.2's TI2V layout in small: its VAE of 48 channels and stride (4,16,16) at widths of 8, text and first frame by one network. Minutes,
 * to see every part of it run; the pictures are not meant to be good.
 */
const ti2v: Preset = {
  ...test,
  name: 'digits-5b',
  vae: {
    channels: 1,
    dim: 8,
    dec_dim: 8,
    patch_size: 2,
    is_residual: true,
    z_dim: 48,
    dim_mult: [1, 2, 4, 4],
    num_res_blocks: 1,
    temperal_downsample: [false, true, true],
  },
  dit: { ...test.dit, model_type: 'ti2v', patch_size: [1, 1, 1], clip_dim: 0 }, // 2x2 cells of latent: a patch each
};

/** Wan2.2's A14B layout in small: two experts that change at Wan's boundary, image-to-video without image tokens. */
const a14b: Preset = {
  ...test,
  name: 'digits-a14b',
  dit: { ...test.dit, model_type: 'i2v', clip_dim: 0 },
  experts: { boundary: 0.9 }, //          Wan's for image-to-video
};

export const PRESETS: Record<string, Preset> = { digits, 'digits-test': test, 'digits-5b': ti2v, 'digits-a14b': a14b };

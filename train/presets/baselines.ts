/** Numbers of the baselines at small scale (METHOD §1.12); the rest they share with the two phases. */
export const BASELINES = {
  consistency: {
    batch: 16,
    warmup: 20, //              as the phases
    adam: { lr: 1e-4, beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0, clip: 1 }, // METHOD §1.12: rate at small scale; FastVideo: β, clip
    ema: 0.98, //                          as the phases; FastVideo's 0.99 is for 3000 steps
    grid: 48,
    guidance: 2, //              FastVideo's levels; the teacher's own guidance
  },
  dmd2: { generator: 0.03, fake: 1 }, //   FastGen's for Wan
};

/** Numbers of the baselines at small scale (METHOD §1.12); the rest they share with the two phases. */
export const BASELINES = {
  consistency: {
    batch: 16,
    accumulate: 1,
    warmup: 20, //              as the phases
    adam: { lr: 1e-4, beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0, clip: 1 }, // METHOD §1.12: rate at small scale; FastVideo: β, clip
    ema: 0.98, //                          as the phases; FastVideo's 0.99 is for 3000 steps
    grid: 48,
    guidance: 2, //              FastVideo's levels; the teacher's own guidance
  },
  dmd2: { generator: 0.03, fake: 1 }, //   FastGen's for Wan
  meanflow: {
    batch: 16,
    accumulate: 1,
    warmup: 20, //              as the phases
    adam: { lr: 1e-4, beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0, clip: 1 }, // MeanFlow: rate, β; clip as the phases
    ema: 0.98, //                          as the phases
    times: { law: 'uniform' as const, shift: 5, lo: 0.02, hi: 1 }, // ours: most of them near 1, where the one step is taken
    step: 1e-3, //              ours: one unit of t = 1000 σ, the fastest sinusoid's radian
    guidance: 2, //             the teacher's own
    floor: 1e-3, //             MeanFlow's c, of the mean instead of the sum
  },
};

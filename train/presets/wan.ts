/**
 * How a released Wan2.1 is trained: every number with its source. The paper's where it states one; sources else as in digits.ts, and
 * FastGen, FastVideo, Self-Forcing, rCM, LightX2V = the recipes that these repositories ship for Wan (METHOD §1.5, §1.6).
 */
import { numel } from '../../kernels/kernel.ts';
import { headDim, type DiTConfig } from '../../model/config.ts';
import { inParts } from '../../model/pipeline/forward.ts';
import { tokenGrid } from '../../model/wan/tables.ts';
import { checkSettings, override } from './index.ts';
import type { Preset, Settings } from './schema.ts';

const ADAPTERS = { rank: 64, alpha: 64 }; // LightX2V, METHOD §1.11
const SHIFTED = { law: 'uniform', shift: 5, lo: 0.02, hi: 0.98 } as const; // METHOD §1.4: Self-Forcing, rCM; FastGen's is near
const adam = (lr: number, beta2: number, clip: number) => ({ lr, beta1: 0, beta2, eps: 1e-8, weightDecay: 0, clip });

/** All but what hangs on the network: taps and the head's width. @param mode adapters want a hundred times the rate of whole weights */
const wanTraining = (mode: Preset['student']['mode']) => ({
  stored: 'bf16' as const, //               as Wan runs
  student: { mode, ...ADAPTERS, steps: 1 },
  teacher: {
    steps: 1000,
    batch: 1,
    accumulate: 1,
    warmup: 100,
    adam: { ...adam(1e-5, 0.999, 1), beta1: 0.9 }, // trained on, that is: FastGen's rate
    ema: 0.999,
    times: { law: 'logit-normal' as const, mean: 0, std: 1, shift: 5 },
    textDrop: 0.1,
    sampler: { steps: 50, guidance: 5, shift: 5 }, // Wan
  },
  priming: {
    steps: 500,
    batch: 1,
    accumulate: 1,
    warmup: 20, // paper; its batch is 32, which takes few machines less than weeks
    generator: {
      adam: adam(mode === 'lora' ? 1e-4 : 1e-6, 0.999, 1), // LightX2V for adapters; paper; β of Self-Forcing, FastVideo, rCM
      times: { law: 'endpoint' as const, from: 0.9, pure: 0.5 }, // paper's interval; METHOD §1.4: half at t = T
      ema: 0.995, //                         paper
    },
    fake: {
      adam: adam(2e-5, 0.999, 10), //        LightX2V; clip of FastGen and Self-Forcing
      mode: 'lora' as const,
      ...ADAPTERS,
      ida: 1,
      updates: 5,
      warmup: 50, // paper: LoRA; five updates in all repositories; METHOD §1.5
    },
    scoreTimes: SHIFTED,
    guidance: 5,
    wmin: 1e-2, // FastGen for I2V-14B; METHOD §1.5
  },
  equilibrium: {
    steps: 1000,
    batch: 1,
    accumulate: 1,
    warmup: 20, // paper
    generator: { adam: adam(mode === 'lora' ? 1e-4 : 2e-6, 0.99, 1), ema: 0.995 }, // as phase I; paper
    head: { adam: adam(1e-5, 0.99, 1), kind: 'semantic' as const, warmup: 50 }, // METHOD §1.6
    backbone: 'ema' as const,
    loss: 'hinge' as const,
    sees: 'noised' as const, // paper
    apart: false,
    discriminatorTimes: SHIFTED,
    told: 'own',
    scoreTimes: SHIFTED,
    lambda: 10,
    guidance: 1, //              paper; METHOD §1.9: unguided
    str1: { weight: 1, spatial: 0.01, temporal: 0.1, on: 'fake' as const, drawn: 'frame' as const }, // paper; METHOD §1.7
  },
  baselines: {
    consistency: {
      batch: 1,
      accumulate: 1,
      warmup: 20,
      adam: { ...adam(mode === 'lora' ? 1e-4 : 2e-6, 0.999, 1), beta1: 0.9 }, // as phase I for adapters; FastVideo
      ema: 0.99, //                         FastVideo
      grid: 48,
      guidance: 3, //             FastVideo
    },
    dmd2: { generator: 0.03, fake: 1 }, //  FastGen's for Wan
    meanflow: {
      batch: 1,
      accumulate: 1,
      warmup: 20,
      adam: { ...adam(mode === 'lora' ? 1e-4 : 2e-6, 0.999, 1), beta1: 0.9 }, // as consistency distillation
      ema: 0.99,
      times: { law: 'uniform' as const, shift: 5, lo: 0.02, hi: 1 }, // as at small scale; Wan's shift
      step: 1e-3,
      guidance: 5, //             the sampler's
      floor: 1e-3, //             as at small scale
    },
  } satisfies Settings['baselines'],
  best: { every: 50, clips: 4, minMotion: 0.8, frechetWeight: 0.01 }, // budget: a clip is dear
  run: { saveEvery: 100, maxSkipped: 20, sampleEvery: 50, precision: 'f32', offload: false },
});

/** METHOD §1.6: blocks round(L {0.5, 0.75, 1}) - 1. */
const tapsOf = (layers: number): number[] => [0.5, 0.75, 1].map((share) => Math.round(layers * share) - 1);

/**
 * How a Wan2.1 is trained, on latents of one form.
 * @param latent [C,F,h,w]
 */
export function wanSettings(dit: DiTConfig, latent: readonly number[], sets: readonly string[]): Settings {
  const { ffn_parts } = inParts(dit, 1, numel(tokenGrid(dit, latent)), Infinity);
  const settings = (mode: Settings['student']['mode']) => {
    const { equilibrium, ...training } = wanTraining(mode);
    const head = { ...equilibrium.head, dim: dit.dim, head_dim: dit.dim % 64 ? headDim(dit) : 64 };
    return override(
      {
        ...training,
        dit: { checkpoint: true, ffn_parts },
        equilibrium: { ...equilibrium, taps: tapsOf(dit.num_layers), head },
      },
      sets,
    );
  };
  return checkSettings(settings(settings('full').student.mode)); // the mode decides rates that overrides may yet change
}

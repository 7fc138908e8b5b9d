/**
 * APT (Lin et al., "Diffusion adversarial post-training for one-step video generation", 2025) as settings of phase II (METHOD §1.12): after
 * consistency distillation, a discriminator that is a whole copy of the teacher with cross-attention heads learns on clean samples at
 * random times; the loss is logistic without saturation, the regulariser aR1 on real samples, and there is no teacher term.
 */
import type { Course } from '../presets/index.ts';
import { trajectories } from './consistency.ts';
import type { Method } from './stage.ts';
import { equilibrium } from './vpae.ts';

/** RMSProp 0.9 is Adam with β (0, 0.9); a clip far above any norm is none. */
const rmsProp = { beta1: 0, beta2: 0.9, clip: 1e6 };

const settings = <P extends Course>(p: P): P => ({
  ...p,
  equilibrium: {
    ...p.equilibrium,
    backbone: 'full',
    sees: 'clean',
    loss: 'logistic',
    lambda: 0,
    // λ 100 at σ 0.1 is weight 1: STR1 divides by σ².
    str1: { weight: 1, spatial: 0.1, temporal: 0, on: 'real', drawn: 'element' },
    generator: { ...p.equilibrium.generator, adam: { ...p.equilibrium.generator.adam, ...rmsProp } },
    // The discriminator is a whole network: APT trains it at the generator's rate.
    head: {
      ...p.equilibrium.head,
      kind: 'cross',
      adam: { ...p.equilibrium.head.adam, ...rmsProp, lr: p.equilibrium.generator.adam.lr },
    },
  },
});

export const apt = {
  title: 'APT: adversarial post-training after consistency distillation',
  paper: 'arXiv 2501.08316',
  section: '§1.12',
  stages: [trajectories, equilibrium],
  change: settings,
} as const satisfies Method;

/**
 * The paper's ablations and baselines as rows: what each changes in the preset, and which stages follow one another (METHOD §1.12).
 *
 * Every row has the same generator updates in all: two jobs get half each. Rows that begin alike share what they begin with.
 */
import { apt } from '../methods/apt.ts';
import { consistency, trajectories } from '../methods/consistency.ts';
import { dmd2 } from '../methods/dmd2.ts';
import { meanflow } from '../methods/meanflow.ts';
import type { Stage } from '../methods/stage.ts';
import { equilibrium, vpae, vsd } from '../methods/vpae.ts';
import type { Preset } from '../presets/index.ts';

export interface Row {
  id: string;
  /** What differs from the method. */
  title: string;
  stages: readonly Stage[];
  change?: (p: Preset) => Preset;
  /** Evaluations that it samples with, where they are not the student's own. */
  evaluations?: number;
}

const BOTH = vpae.stages;
const adversarial =
  (change: Partial<Preset['equilibrium']>) =>
  (p: Preset): Preset => ({ ...p, equilibrium: { ...p.equilibrium, ...change } });
const head =
  (kind: Preset['equilibrium']['head']['kind']) =>
  (p: Preset): Preset =>
    adversarial({ head: { ...p.equilibrium.head, kind } })(p);

export const ROWS: readonly Row[] = [
  { id: 'method', title: 'both phases', stages: BOTH },
  { id: 'no-priming', title: 'no priming', stages: [equilibrium] },
  { id: 'consistency-priming', title: 'consistency priming', stages: [trajectories, equilibrium] },
  { id: 'consistency-only', title: 'consistency distillation alone', stages: consistency.stages },
  { id: 'vsd-only', title: 'score distillation alone', stages: vsd.stages },
  { id: 'frozen', title: 'backbone: frozen teacher', stages: BOTH, change: adversarial({ backbone: 'frozen' }) },
  { id: 'live', title: 'backbone: the generator itself', stages: BOTH, change: adversarial({ backbone: 'live' }) },
  { id: 'full', title: 'backbone: trained in full', stages: BOTH, change: adversarial({ backbone: 'full' }) },
  { id: 'conv', title: 'head: convolutional', stages: BOTH, change: head('conv') },
  { id: 'cross', title: 'head: cross attention', stages: BOTH, change: head('cross') },
  ...[0, 1, 3, 10, 30, 100].map((lambda) => ({
    id: `lambda-${lambda}`,
    title: `C-SDS λ ${lambda}`,
    stages: BOTH,
    change: adversarial({ lambda }),
  })),
  ...(
    [
      ['high', { discriminatorTimes: { law: 'uniform', shift: 1, lo: 0.7, hi: 0.98 } }],
      ['end', { discriminatorTimes: { law: 'uniform', shift: 1, lo: 0.9, hi: 0.999 } }],
      ['told-end', { told: 'end' }],
    ] as const
  ).map(([id, change]) => ({
    id: `time-${id}`,
    title: `discriminator's time: ${id === 'told-end' ? 'told the end' : id}`,
    stages: BOTH,
    change: adversarial(change),
  })),
  {
    id: 'one-query',
    title: 'head: one query for all taps',
    stages: BOTH,
    change: (p) => adversarial({ head: { ...p.equilibrium.head, queries: 'one' } })(p),
  },
  {
    id: 'csds-only',
    title: 'phase II without its discriminator: C-SDS alone',
    stages: BOTH,
    change: adversarial({ adversarial: 0 }),
  },
  {
    id: 'no-str1',
    title: 'without STR1',
    stages: BOTH,
    change: (p) => adversarial({ str1: { ...p.equilibrium.str1, weight: 0 } })(p),
  },
  { id: 'dmd2', title: 'DMD2, jointly', stages: dmd2.stages },
  { id: 'meanflow', title: 'MeanFlow distillation alone', stages: meanflow.stages },
  { id: 'apt', title: 'APT', stages: apt.stages, change: apt.change },
  { id: 'four-zero-shot', title: 'four evaluations, trained for one', stages: BOTH, evaluations: 4 },
  {
    id: 'four',
    title: 'four evaluations, trained for four',
    stages: BOTH,
    change: (p) => ({ ...p, student: { ...p.student, steps: 4 } }),
  },
];

/** An order of rows, worst first, that the paper states (arXiv 2508.21019, tables and text of its ablations). */
export interface Order {
  about: string;
  rows: readonly string[];
}

export const PAPER: readonly Order[] = [
  { about: 'priming', rows: ['no-priming', 'consistency-priming', 'method'] },
  { about: 'phase I alone', rows: ['consistency-only', 'vsd-only', 'method'] },
  { about: 'backbone', rows: ['frozen', 'method'] },
  { about: 'head', rows: ['conv', 'cross', 'method'] },
  { about: 'C-SDS: without it the frames leave the condition', rows: ['lambda-0', 'method'] },
  { about: 'C-SDS: too much of it blurs', rows: ['lambda-100', 'method'] },
  { about: 'other methods', rows: ['dmd2', 'apt', 'method'] },
  { about: 'evaluations', rows: ['method', 'four-zero-shot'] },
];

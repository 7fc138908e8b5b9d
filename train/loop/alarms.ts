/**
 * Why a run is failing, told while it runs: rules over the metrics of its steps (METHOD §1.15), each with cause and remedy.
 *
 * A rule looks at the mean of its metric over the last `over` steps. An alarm is raised once, when that was bad `patience` steps in a
 * row, and may come again only after it was good: the two limits lie apart, so that a metric that wavers at one gives one alarm.
 */
import type { Metrics } from './pending.ts';

export interface Alarm {
  kind: Kind;
  step: number;
  /** Of the metric `of`, as it was when the alarm was raised. */
  value: number;
  of: string;
  cause: string;
  remedy: string;
}

export type Kind =
  | 'normaliser at its floor'
  | 'discriminator wins'
  | 'discriminator is blind'
  | 'saturation'
  | 'static video'
  | 'condition collapse'
  | 'fake model lags'
  | 'steps not finite'
  | "out of f16's range"
  | 'rolled back'
  | 'device lost';

interface Rule {
  kind: Kind;
  /** Name of the metric. */
  of: string;
  over: number;
  patience: number;
  /** Which of two means is the better one, where limits are relative to the best so far. */
  best?: (a: number, b: number) => number;
  bad: (mean: number, best: number) => boolean;
  good: (mean: number, best: number) => boolean;
  cause: string;
  remedy: string;
}

const decibels = (db: number): number => 10 ** (db / 10);

const collapse = {
  kind: 'condition collapse',
  cause: 'the first frame is kept 2 dB worse than it was',
  remedy: "raise equilibrium.lambda (C-SDS ties the frames to the given one), or lower the generator's learning rate",
} as const;

const still = {
  kind: 'static video',
  bad: (x: number) => x < 0.7,
  good: (x: number) => x > 0.8,
  cause: 'the samples move less than 0.7 times as much as the data',
  remedy:
    "keep an earlier average, lower equilibrium.lambda or the generator's learning rate, or raise guidance in phase I",
} as const;

const lags = {
  kind: 'fake model lags',
  remedy: "raise priming.fake.updates or its learning rate, or lower the generator's",
} as const;

const outside = {
  kind: "out of f16's range",
  over: 20,
  bad: (x: number) => x > 0,
  good: (x: number) => x === 0,
  remedy: 'a single one is harmless; if they repeat, train with run.precision=f32',
} as const;

export const RULES: readonly Rule[] = [
  {
    kind: 'normaliser at its floor',
    of: 'floor',
    over: 20,
    patience: 10,
    bad: (x) => x > 0.5,
    good: (x) => x < 0.25,
    cause: 'for most samples mean|x̂0 - real| is below priming.wmin, so their gradient is no longer normalised',
    remedy: 'priming has little left to teach: stop it here, or lower priming.wmin',
  },
  {
    kind: 'discriminator wins',
    of: 'active',
    over: 1,
    patience: 50,
    bad: (x) => x < 0.05,
    good: (x) => x > 0.1,
    cause: 'under 5 % of its hinge terms are active: it tells real from fake without effort and teaches nothing',
    remedy: 'lower equilibrium.head.adam.lr or raise equilibrium.str1.weight; if the samples are poor, prime longer',
  },
  {
    kind: 'discriminator is blind',
    of: 'margin',
    over: 20,
    patience: 100,
    bad: (x) => x < 0.1,
    good: (x) => x > 0.2,
    cause:
      'its logits of real and of generated clips are less than 0.1 apart, where 1 is healthy: it teaches next to nothing',
    remedy:
      'lower equilibrium.str1.weight or raise equilibrium.head.adam.lr; data without texture leave it nothing to see',
  },
  {
    kind: 'saturation',
    of: 'deviation',
    over: 20,
    patience: 10,
    bad: (x) => x > 1.15,
    good: (x) => x < 1.1,
    cause: "the samples' latents spread over 1.15 times as wide as the data's: too much contrast and colour",
    remedy: "lower priming.guidance or the generator's learning rate",
  },
  { ...still, of: 'motion', over: 20, patience: 10 },
  { ...still, of: 'motionRatio', over: 1, patience: 1 },
  // `first` is a square error, `firstFramePsnr` its level in dB.
  {
    ...collapse,
    of: 'first',
    over: 20,
    patience: 10,
    best: Math.min,
    bad: (x, best) => x > decibels(2) * best,
    good: (x, best) => x < decibels(1) * best,
  },
  {
    ...collapse,
    of: 'firstFramePsnr',
    over: 1,
    patience: 1,
    best: Math.max,
    bad: (x, best) => x < best - 2,
    good: (x, best) => x > best - 1,
  },
  {
    ...lags,
    of: 'lag',
    over: 20,
    patience: 10,
    bad: (x) => x > 1,
    good: (x) => x < 0.9,
    cause:
      "it denoises the generator's samples no better than the teacher, which never saw them: the score difference is no guide",
  },
  {
    ...lags,
    of: 'fakeLoss',
    over: 30,
    patience: 10,
    best: Math.min,
    bad: (x, best) => x > 1.3 * best,
    good: (x, best) => x < 1.15 * best,
    cause:
      "its loss on the generator's samples rises: it no longer follows them, so the score difference points astray",
  },
  {
    kind: 'steps not finite',
    of: 'skipped',
    over: 20,
    patience: 1,
    bad: (x) => x > 0,
    good: (x) => x === 0,
    cause: 'a gradient was infinite or not a number; that update was skipped',
    remedy:
      'a single one is harmless; if they repeat, the run rolls back by itself with a smaller learning rate. NANCHECK=1 stops at the first op and line whose numbers are not finite',
  },
  {
    ...outside,
    of: 'overflowed',
    patience: 1,
    cause: 'a product was given numbers that are infinite in f16: activations above 65504, or a gradient without end',
  },
  {
    ...outside,
    of: 'vanished',
    patience: 10,
    cause: 'gradients are so small (below 2^-106) that f16 rounds them away',
  },
];

interface Episode {
  recent: number[];
  best: number | undefined;
  bad: number;
  raised: boolean;
}

/** Follows one run. What it knows comes from the metrics alone, so a resumed run replays them and raises nothing twice. */
export class Watch {
  private readonly episodes: readonly Episode[] = RULES.map(() => ({
    recent: [],
    best: undefined,
    bad: 0,
    raised: false,
  }));

  /** Takes the metrics of a step and returns the alarms they raise. */
  observe(step: number, metrics: Metrics): Alarm[] {
    const seen: Metrics = {
      ...metrics,
      skipped: turnedAway(metrics),
      overflowed: total(metrics, /overflowed$/i),
      vanished: total(metrics, /vanished$/i),
    };
    return RULES.flatMap((rule, i) => {
      const value = seen[rule.of];
      return value !== undefined && advance(rule, this.episodes[i]!, value) ? [alarmOf(rule, step, value)] : [];
    });
  }
}

/** How many updates of a step a gradient that is not finite turned away. */
export const turnedAway = (metrics: Metrics): number => total(metrics, /skipped$/i);

/** Of the metrics with such names. */
const total = (metrics: Metrics, names: RegExp): number =>
  Object.entries(metrics).reduce((sum, [name, x]) => sum + (names.test(name) ? x : 0), 0);

/** Whether this value raises the alarm. */
function advance(rule: Rule, e: Episode, value: number): boolean {
  if (!Number.isFinite(value)) return false; // the rule of skipped steps tells it
  e.recent.push(value);
  if (e.recent.length > rule.over) e.recent.shift();
  if (e.recent.length < rule.over && rule.patience > 1) return false;
  const mean = e.recent.reduce((a, b) => a + b, 0) / e.recent.length;
  e.best = rule.best && e.best !== undefined ? rule.best(e.best, mean) : mean;
  e.bad = rule.bad(mean, e.best) ? e.bad + 1 : 0;
  if (rule.good(mean, e.best)) e.raised = false;
  if (e.raised || e.bad < rule.patience) return false;
  e.raised = true;
  return true;
}

const alarmOf = ({ kind, of, cause, remedy }: Rule, step: number, value: number): Alarm => ({
  kind,
  step,
  value,
  of,
  cause,
  remedy,
});

/** An alarm in two lines. */
export const tell = ({ kind, step, of, value, cause, remedy }: Alarm): string =>
  `alarm at step ${step}: ${kind} (${of} ${Number(value.toPrecision(3))}): ${cause}\n  remedy: ${remedy}`;

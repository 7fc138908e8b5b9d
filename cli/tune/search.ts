/** Tries the configurations of one problem and keeps the fastest that is right. */
import type { AdapterInfo } from '../../engine/host/adapter.ts';
import type { Caps } from '../../kernels/kernel.ts';
import { matmulCost } from '../../kernels/matmul/cost.ts';
import type { MatmulConfig, MatmulProblem } from '../../kernels/matmul/plan.ts';
import { sameConfig } from '../../kernels/tuning.ts';
import { clockOf, type Sample } from '../bench/clock.ts';
import { Child } from '../common/child.ts';
import type { Question, Trial } from './child.ts';
import { programOf, type Problem, type Seen } from './problems.ts';

const MOST = 16; // configurations of a problem that are timed
const FINALISTS = 3;
const SAMPLES = 4;
const GAIN = 1.1; // below it a winner may be noise, or be lost again among a step's other kernels
const OPEN_MS = 120_000;
/** A trial that compiles and runs longer than this is no winner, whatever it reaches later. */
const TRIAL_MS = 20_000;
/** Products of halves differ by the order of their sums only; attention may round its f32 operands and its weights to halves. */
const TOLERANCE = { f32: 1e-4, f16: 1e-3, rounded: 5e-3 };
/** Operations up to which the float64 reference is computed; above, the rule's own configuration is the reference. */
const EXACT_FLOPS = 1e8;

export interface Found {
  family: string;
  shape: string;
  rule: object;
  winner: object;
  ruleMs: number;
  ms: number;
  tried: number;
  bad: string[];
}

/** The rule's own configuration first, then the most promising by the cost model. */
function candidates(caps: Caps, { family, problem, rule, options }: Seen): object[] {
  const others = options.filter((o) => !sameConfig(o, rule));
  if (family !== 'matmul') return [rule, ...others].slice(0, MOST);
  const cost = new Map(others.map((o) => [o, matmulCost(caps, problem as MatmulProblem, o as MatmulConfig)]));
  return [rule, ...others.sort((a, b) => cost.get(a)! - cost.get(b)!)].slice(0, MOST);
}

/** What tries configurations. */
interface Trials {
  /** @throws one line when it crashed, hung or failed */
  trial(seen: Seen, flops: number, config: object, samples: number): Promise<Trial>;
  best(samples: readonly Sample[]): number;
}

/** A child that is made when it is needed, and made again after it has died. */
export class Bench implements Trials {
  private child: Child | undefined;
  private open: Seen | undefined;
  private readonly kind: AdapterInfo['kind'];

  constructor(kind: AdapterInfo['kind']) {
    this.kind = kind;
  }

  async trial(seen: Seen, flops: number, config: object, samples: number): Promise<Trial> {
    try {
      if (!this.child || this.open !== seen) await this.prepare(seen, flops);
      return await this.ask<Trial>({ config, samples }, TRIAL_MS);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  private async prepare(seen: Seen, flops: number): Promise<void> {
    this.child ??= new Child(new URL('./child', import.meta.url));
    const { family, shape, problem, rule } = seen;
    const exact = flops <= EXACT_FLOPS && programOf(family, problem)!.inputs.every((i) => i.dtype !== 'f16');
    await this.ask({ problem: { family, shape, problem, rule }, exact }, OPEN_MS);
    this.open = seen;
  }

  private ask<T>(question: Question, limit: number): Promise<T> {
    return this.child!.ask<T>(question, limit);
  }

  best(samples: readonly Sample[]): number {
    return clockOf(this.kind).best(samples);
  }

  close(): void {
    this.child?.close();
    this.child = undefined;
    this.open = undefined;
  }
}

const tolerance = (problem: Problem): number =>
  TOLERANCE[
    'dtypeA' in problem && problem.dtypeA === 'f16' ? 'f16' : 'half' in problem && problem.half ? 'rounded' : 'f32'
  ];

export async function search(
  bench: Trials,
  caps: Caps,
  seen: Seen,
  flops: number,
  signal: AbortSignal,
): Promise<Found> {
  const configs = candidates(caps, seen);
  const times = new Map<object, number>();
  const bad: string[] = [];
  const attempt = async (config: object): Promise<void> => {
    signal.throwIfAborted();
    try {
      const { error, samples } = await bench.trial(seen, flops, config, SAMPLES);
      if (!(error <= tolerance(seen.problem))) throw new Error(`wrong by ${error.toExponential(1)}`);
      times.set(config, Math.min(times.get(config) ?? Infinity, bench.best(samples)));
    } catch (error) {
      times.delete(config);
      bad.push(`${JSON.stringify(config)}: ${(error as Error).message}`);
    }
  };
  for (const config of configs) await attempt(config);
  const rule = configs[0]!;
  const ranked = () => [...times].sort(([, a], [, b]) => a - b).map(([config]) => config);
  // The leaders and the rule run again, by turns, so that one lucky run does not decide.
  const finalists = [...new Set([rule, ...ranked().slice(0, FINALISTS)])].filter((c) => times.has(c));
  for (const config of finalists) await attempt(config);
  const first = ranked()[0] ?? rule;
  const ruleMs = times.get(rule) ?? Infinity;
  const winner = ruleMs / (times.get(first) ?? Infinity) >= GAIN ? first : rule;
  return {
    family: seen.family,
    shape: seen.shape,
    rule,
    winner,
    ruleMs,
    ms: times.get(winner) ?? ruleMs,
    tried: configs.length,
    bad,
  };
}

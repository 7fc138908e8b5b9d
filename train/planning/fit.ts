/** The cheapest set of changes that makes a job fit into a memory: combinations are tried in the order of what they cost. */
import type { DiTConfig } from '../../model/config.ts';
import { peakOf, unbound, type JobCost } from './cost.ts';
import { costOf, guessPeak, guessWait, stageOf, type JobName, type Sampler, type Target } from './jobs.ts';
import { equilibrium } from '../methods/vpae.ts';
import type { Subject } from './subject.ts';

/**
 * One change: overrides, what they mean, and what they cost in percent of a step; what changes the training itself costs far more.
 * `unsure`: in a small network it may hold more.
 */
interface Change {
  sets: readonly string[];
  offload?: true;
  what: string;
  cost: number;
  unsure?: true;
}

/** What `--offload` sets where it is trained. */
export const OFFLOAD = 'run.offload=true';

/** Width of a discriminator's head that is small beside a large model: as wide as the smallest Wan. */
const NARROW = 1536;

/** Each keeps less than the one before it. */
const RECOMPUTE: readonly (Change & { keeps: DiTConfig['checkpoint'] })[] = [
  { keeps: true, sets: ['dit.checkpoint=true'], what: 'blocks recomputed, attention kept', cost: 10, unsure: true },
  { keeps: 'lean', sets: ['dit.checkpoint=lean'], what: 'blocks recomputed, nothing kept', cost: 30, unsure: true },
  {
    keeps: 'nested',
    sets: ['dit.checkpoint=nested'],
    what: 'blocks recomputed in groups, nothing kept',
    cost: 50,
    unsure: true,
  },
];

/** What ending submits more often takes, in percent of a step. */
const IN_PIECES = 3;

/** Of each row at most one is taken. @param wait seconds that streamed weights take for each of a step's */
function changesFor(job: JobName, s: Subject, wait: () => number): Change[][] {
  const stage = stageOf(job);
  const rows: Change[][] = [];
  if ((stage || job === 'sample') && !s.packed && s.stored === 'f32')
    rows.push([{ sets: ['stored=bf16'], what: 'frozen weights in bf16', cost: 1 }]);
  if (job === 'sample' && s.encoders)
    rows.push([{ sets: [], offload: true, what: 'blocks from their files at every step', cost: 20 }]);
  if (stage && !s.run.offload)
    rows.push([
      {
        sets: [OFFLOAD],
        offload: true,
        what: 'blocks of frozen networks from host memory',
        cost: IN_PIECES + 100 * Math.max(0, wait() - 1),
        unsure: true,
      },
    ]);
  if (job !== 'sample' && s.config.ffn_parts === 1)
    rows.push([{ sets: ['dit.ffn_parts=8'], what: 'feed-forward in 8 parts', cost: 2, unsure: true }]);
  if (stage || job === 'teacher') {
    const recompute = RECOMPUTE.slice(1 + RECOMPUTE.findIndex((c) => c.keeps === s.config.checkpoint));
    if (recompute.length) rows.push(recompute);
    const setting = stage ? stage.accumulates : 'teacher.accumulate';
    const { batch, accumulate } = stage ? stage.batching(s) : s.teacher;
    const more = Array.from({ length: Math.floor(Math.log2(batch)) }, (_, i) => 2 ** (i + 1)).filter(
      (n) => n > accumulate && batch % n === 0,
    );
    if (setting && more.length)
      rows.push(
        more.map((n) => ({
          sets: [`${setting}=${n}`],
          what: `${n} micro-batches of ${batch / n}`,
          cost: 4 * n,
          unsure: true as const,
        })),
      );
  }
  if (stage === equilibrium && !s.equilibrium.apart)
    rows.push([{ sets: ['equilibrium.apart=true'], what: 'samples one after the other', cost: 12 }]);
  const narrow = NARROW - (NARROW % s.head.head_dim);
  if (stage === equilibrium && s.head.dim > narrow)
    rows.push([
      { sets: [`equilibrium.head.dim=${narrow}`], what: `a discriminator head of width ${narrow}`, cost: 5000 },
    ]);
  if (stage && s.student.mode === 'full')
    rows.push([{ sets: ['student.mode=lora'], what: 'adapters instead of all weights', cost: 10_000 }]);
  return rows;
}

/** A guess above this share of the memory is believed. */
const DOUBT = 1.03;

export interface Fit {
  cost: JobCost;
  subject: Subject;
  changes: { sets: readonly string[]; offload?: true; what: string }[];
}

/** All ways to take at most one change of each row, cheapest first. */
function combinations(rows: readonly Change[][], start: Change[] = []): Change[][] {
  const all = rows.reduce<Change[][]>((taken, row) => taken.flatMap((t) => [t, ...row.map((c) => [...t, c])]), [start]);
  const price = (c: readonly Change[]): number => c.reduce((sum, x) => sum + x.cost, 0);
  return all.sort((a, b) => price(a) - price(b));
}

/**
 * @param make the subject with more overrides
 * @returns undefined where nothing helps
 */
export function findFit(
  job: JobName,
  make: (sets: readonly string[]) => Subject,
  sampler: Sampler,
  target: Target,
  memory: number,
): Fit | undefined {
  const rows = changesFor(job, make([]), () => guessWait(job, make([OFFLOAD]), sampler, target));
  const sets = (changes: readonly Change[]): string[] => changes.flatMap((c) => c.sets);
  const sampled = (changes: readonly Change[]): Sampler => ({
    ...sampler,
    offload: sampler.offload || changes.some((c) => c.offload),
  });
  const guesses = new Map<string, number>();
  const guess = (changes: readonly Change[]): number => {
    const key = changes
      .map((c) => c.what)
      .sort()
      .join();
    const peak = guesses.get(key) ?? guessPeak(job, make(sets(changes)), sampled(changes), target);
    guesses.set(key, peak);
    return peak;
  };
  const mayFit = (changes: readonly Change[]): boolean => guess(changes) <= DOUBT * memory;
  const fit = (changes: Change[]): Fit | undefined => {
    if (!mayFit(changes)) return undefined;
    const subject = make(sets(changes));
    const cost = costOf(job, subject, sampled(changes), target);
    return peakOf(cost) <= memory && !unbound(cost.stages, target) ? { cost, subject, changes } : undefined;
  };
  const [nothing, ...others] = combinations(rows);
  const asItIs = fit(nothing!);
  const unsure = rows.filter((row) => row[0]!.unsure);
  const frugal = combinations(
    unsure,
    rows.filter((row) => !unsure.includes(row)).map((row) => row.at(-1)!),
  );
  if (asItIs || !rows.length || !frugal.some(mayFit)) return asItIs;
  for (const changes of others) {
    const found = fit(changes);
    if (found) return found;
  }
  return undefined;
}

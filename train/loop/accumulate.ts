/**
 * Gradient accumulation: a batch is taken in micro-batches, whose gradients are added up before the one update. One process takes them
 * one after the other; several ranks (`Ranks`) as many at a time as they are, and the same numbers come out.
 */
import type { Ranks } from '../ranks/ranks.ts';
import type { Micro } from './optim.ts';
import { meanOf, unwatched, type Metrics, type Pending } from './pending.ts';

/** Clips of an update, and how many micro-batches they are taken in. */
export interface Batching {
  batch: number;
  accumulate: number;
}

export const microBatch = ({ batch, accumulate }: Batching): number => batch / accumulate;

/** One micro-batch: its number among all of the run, which names its draws, and what the step is told of it. */
export interface Turn {
  at: number;
  rates: { micro?: Micro<number> };
}

/**
 * The micro-batches of update `n` that fall to this rank. Taken whole, a batch is none, and its steps hold no gradients. A rank that has
 * none in the last round takes another's for naught.
 */
export function turns({ accumulate }: Batching, n: number, ranks?: Pick<Ranks, 'rank' | 'size'>): Turn[] {
  const { rank, size } = ranks ?? { rank: 0, size: 1 };
  const rounds = Math.ceil(accumulate / size);
  return Array.from({ length: rounds }, (_, round) => {
    const i = round * size + rank;
    const share = i < accumulate ? 1 / accumulate : 0;
    return {
      at: n * accumulate + Math.min(i, accumulate - 1),
      rates: accumulate > 1 || ranks ? { micro: { share, last: Number(round === rounds - 1) } } : {},
    };
  });
}

/** Whose micro-batches a batch is made of. */
export interface Shared {
  ranks: Ranks;
  accumulate: number;
}

/** What a step gives: `whole` are metrics of the update itself, where it comes apart from the gradients. */
export interface Stepped<S> {
  state: S;
  metrics: Pending;
  whole?: Pending | undefined;
}

/** One update. @returns the state after it, and each metric's mean over the micro-batches */
export async function accumulated<S, T>(
  state: S,
  over: readonly T[],
  step: (state: S, turn: T) => Promise<Stepped<S>>,
  shared?: Shared,
): Promise<{ state: S; metrics: Pending }> {
  const parts: Pending[] = [];
  let whole: Pending | undefined;
  for (const turn of over) {
    const made = await step(state, turn);
    ({ state, whole } = made);
    parts.push(made.metrics);
  }
  return { state, metrics: shared ? everywhere(shared, parts, whole!) : meanOf(parts) };
}

/** The mean over all ranks' micro-batches, in their order. */
function everywhere({ ranks, accumulate }: Shared, parts: readonly Pending[], whole: Pending): Pending {
  const own = unwatched(Promise.all(parts));
  const gathered = ranks.gather(own.then((all) => Float32Array.from(all.flatMap((m) => Object.values(m)))));
  return unwatched(
    Promise.all([own, gathered, whole]).then(([[first], rows, update]) => {
      const names = Object.keys(first!);
      const mean: Metrics = Object.fromEntries(names.map((name) => [name, 0]));
      for (let i = 0; i < accumulate; i++) {
        const round = Math.floor(i / ranks.size);
        names.forEach((name, k) => (mean[name]! += rows[i % ranks.size]![round * names.length + k]! / accumulate));
      }
      for (const [name, x] of Object.entries(update)) mean[name] = x / accumulate;
      return mean;
    }),
  );
}

/** Gradient accumulation: a batch is taken in micro-batches, one after the other, whose gradients are added up before the one update. */
import type { Micro } from './optim.ts';
import { meanOf, type Pending } from './pending.ts';

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

/** The micro-batches of update `n`. Taken whole, a batch is none, and its steps hold no gradients. */
export const turns = ({ accumulate }: Batching, n: number): Turn[] =>
  Array.from({ length: accumulate }, (_, i) => ({
    at: n * accumulate + i,
    rates: accumulate > 1 ? { micro: { share: 1 / accumulate, last: Number(i === accumulate - 1) } } : {},
  }));

/** One update. @returns the state after it, and each metric's mean over the micro-batches */
export async function accumulated<S, T>(
  state: S,
  over: readonly T[],
  step: (state: S, turn: T) => Promise<{ state: S; metrics: Pending }>,
): Promise<{ state: S; metrics: Pending }> {
  const parts: Pending[] = [];
  for (const turn of over) {
    const { state: next, metrics } = await step(state, turn);
    state = next;
    parts.push(metrics);
  }
  return { state, metrics: meanOf(parts) };
}

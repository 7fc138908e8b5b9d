/**
 * Stage `parking`: values that nothing reads for long wait in host memory, in programs whose inputs are brought from there. A value that
 * is read again only after a whole set of inputs has come and gone is copied out behind its last reader, and back in while the set before
 * its next one is read. So the tokens that a backward sweep begins a block with need not lie on the device through all others.
 */
import type { Block } from './memory.ts';

/** What is copied out and in costs a submit; smaller values are not worth it. */
const LEAST = 2 ** 12;
/** Sets that begin to be read while a value waits, the one at whose reading it is back among them. */
const WAITS = 2;
/** How far the set before has been read when a value comes back: copying it takes less than a block's kernels by far. */
const LATE = 7 / 8;

/** A value and the groups that touch it, in order. */
export interface Lived {
  name: string;
  bytes: number;
  uses: readonly number[];
}

/** A time that a value spends in host memory. */
export interface Parked {
  /** Where it lay on the device, and where it will. */
  from: Block;
  to: Block;
  /** In host memory: from the group before which it is copied out to the one before which it is copied in. */
  kept: Block;
}

interface Parking {
  /** Where a value lies, one time after the other. */
  blocks: Map<string, Block[]>;
  parked: Parked[];
}

/** @param visits first groups that read each set of streamed inputs, in order; none where there are no such inputs */
export function parkValues(values: ReadonlyMap<string, Lived>, visits: readonly number[]): Parking {
  const parked: Parked[] = [];
  /** Of two uses, the group before which the value is brought back, if it waits in host memory between them. */
  const back = (bytes: number, use: number, next: number): number | undefined => {
    const between = bytes < LEAST ? [] : visits.filter((from) => use < from && from <= next);
    const [before, last] = between.slice(-2) as [number, number];
    return between.length < WAITS ? undefined : Math.floor(before + LATE * (last - before));
  };
  const blocks = new Map<string, Block[]>();
  for (const [key, { name, bytes, uses }] of values) {
    let block: Block = { name, bytes, first: uses[0]!, last: uses[0]! };
    const own = [block];
    for (const next of uses) {
      const first = back(bytes, block.last, next);
      if (first === undefined) block.last = next;
      else {
        const to = { name, bytes, first, last: next };
        parked.push({ from: block, to, kept: { name, bytes, first: block.last + 1, last: first } });
        own.push(to);
        block = to;
      }
    }
    blocks.set(key, own);
  }
  return { blocks, parked };
}

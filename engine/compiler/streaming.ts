/**
 * Stage `streaming`: when inputs that stay in host memory are brought to the device, and how long they lie there.
 *
 * Such inputs belong to sets, a block's weights mostly. While one set is read, the next one is brought bit by bit, so that about two are
 * on the device at a time. The bytes lie in arenas of their own: kernels only read them.
 */
import { boundBytes } from '../../kernels/kernel.ts';
import { planMemory, type Block, type MemoryPlan } from './memory.ts';

/** A streamed input as a kernel reads it. */
export interface StreamedRead {
  input: number;
  bytes: number;
  /** What is brought together with it. */
  set: string;
}

/** An input on its way. */
interface Load {
  input: number;
  /** Where it lies, and from which group to which. It is there before the first one's kernels. */
  block: Block;
}

export interface Streaming {
  /** In the order in which they are brought. */
  loads: Load[];
  /** Of the loads' blocks. */
  memory: MemoryPlan;
  /** Bytes brought in a call. */
  bytes: number;
  /** First groups that read each set, in order. */
  visits: number[];
}

/** A time in which the kernels read a set. */
interface Visit {
  from: number;
  /** First and last group that reads an input, in the order of the first. */
  uses: Map<number, { bytes: number; first: number; last: number }>;
  /** Groups that have read it, and groups since that read others only. */
  here: number;
  away: number;
}

/** Bytes that are brought at one point of a program at least, as far as there are as many: each point ends a submit. */
const TOGETHER = 2 ** 24;

/**
 * In the order in which they begin. One ends when other sets are read for longer than it was: where backward sweeps meet, two take turns.
 */
function visitsOf(reads: readonly (readonly StreamedRead[])[]): Visit[] {
  const visits: Visit[] = [];
  const open = new Map<string, Visit>();
  reads.forEach((read, at) => {
    if (!read.length) return;
    const sets = new Set(read.map((r) => r.set));
    for (const [set, visit] of open) if (!sets.has(set) && ++visit.away > visit.here) open.delete(set);
    for (const set of sets) {
      let visit = open.get(set);
      if (!visit) {
        visit = { from: at, uses: new Map(), here: 0, away: 0 };
        open.set(set, visit);
        visits.push(visit);
      }
      visit.here++;
      visit.away = 0;
    }
    for (const { input, bytes, set } of read) {
      const { uses } = open.get(set)!;
      const use = uses.get(input);
      if (use) use.last = at;
      else uses.set(input, { bytes, first: at, last: at });
    }
  });
  return visits;
}

/** @param reads of each group */
export function planStreaming(reads: readonly (readonly StreamedRead[])[], maxArenaBytes: number): Streaming {
  const loads: Load[] = [];
  const visits = visitsOf(reads);
  let begin = 0;
  for (const { from, uses } of visits) {
    const total = [...uses.values()].reduce((sum, { bytes }) => sum + bytes, 0);
    let brought = 0;
    for (const [input, { bytes, last }] of uses) {
      const share = (Math.floor(brought / TOGETHER) * TOGETHER) / total;
      const first = begin + Math.floor(share * (from - begin));
      loads.push({ input, block: { name: `streamed input ${input}`, bytes: boundBytes(bytes), first, last } });
      brought += bytes;
    }
    begin = from;
  }
  loads.sort((a, b) => a.block.first - b.block.first);
  const blocks = loads.map((l) => l.block);
  return {
    loads,
    memory: planMemory(blocks, maxArenaBytes),
    bytes: blocks.reduce((sum, b) => sum + b.bytes, 0),
    visits: visits.map((v) => v.from),
  };
}

/** Which template reduces a problem, and into how many ordered parts the reduced axis is split. */
import { ceilDiv, type Caps } from '../kernel.ts';

export interface Dim {
  size: number;
  reduce: boolean;
}

/** A dimension of the input with its stride in elements. */
export interface Axis {
  size: number;
  stride: number;
}

export interface ReducePlan {
  /** A load gives one number, four neighbours across the outputs (a thread owns four), or four along the reduced axis. */
  load: 'one' | 'across' | 'along';
  /** `columns`: a thread owns an output (or a part of one). `rows`: a workgroup does, and combines in workgroup memory. */
  template: 'columns' | 'rows';
  workgroup: number;
  kept: Axis[];
  reduced: Axis[];
  outputs: number;
  /** Loads that make an output; with `along`, `reduced` and `chunk` count fours too. */
  count: number;
  /** Parts of the reduced range, each `chunk` long; more than one makes a second dispatch over the partial results. */
  splits: number;
  chunk: number;
}

/**
 * Threads that keep a device busy, and the shortest part worth a thread: on a CPU driver two of
 * 768 rows and the dispatch that adds them take longer than one of 1536.
 */
const THREADS = { scalar: 128, tiled: 65536 };
const SHORTEST = 64;
const SHORTEST_PART = { scalar: 2048, tiled: 64 };
/** Longest run summed by one thread: 1024 blocks of 64, which bounds the rounding of the blocked sum. */
const LONGEST = 65536;

const size = (axes: readonly Axis[]): number => axes.reduce((n, a) => n * a.size, 1);

/**
 * dims describe a contiguous row-major input; neighbours of one kind are merged and sizes of 1 dropped.
 * @param fours the input can be read four neighbours at a time
 */
export function planReduce(caps: Caps, dims: readonly Dim[], fours: boolean): ReducePlan {
  const kept: Axis[] = [];
  const reduced: Axis[] = [];
  let stride = 1;
  let last: Dim | undefined;
  for (const dim of [...dims].reverse()) {
    if (dim.size === 1) continue;
    const axes = dim.reduce ? reduced : kept;
    if (last?.reduce === dim.reduce) axes[0]!.size *= dim.size;
    else axes.unshift({ size: dim.size, stride });
    stride *= dim.size;
    last = dim;
  }
  const innermostReduced = reduced.at(-1)?.stride === 1;
  if (!kept.length) kept.push({ size: 1, stride: 0 });
  if (!reduced.length) reduced.push({ size: 1, stride: 0 });
  const outputs = size(kept);
  const rows = caps.tier === 'tiled' && innermostReduced && size(reduced) >= SHORTEST;
  const four = fours && !rows && outputs * size(reduced) > 0; // nothing has no neighbours
  const load =
    four && kept.at(-1)!.stride === 1 && kept.at(-1)!.size % 4 === 0
      ? 'across'
      : four && innermostReduced && reduced.at(-1)!.size % 4 === 0
        ? 'along'
        : 'one';
  if (load === 'along') reduced.push({ size: reduced.pop()!.size / 4, stride: 4 });
  const count = size(reduced),
    threads = load === 'across' ? outputs / 4 : outputs;
  const team = rows ? (count >= 1024 ? Math.min(256, caps.maxInvocations) : 64) : 1;
  const wanted = Math.max(ceilDiv(THREADS[caps.tier], threads * team), ceilDiv(count, LONGEST * team));
  const chunk = Math.max(
    ceilDiv(count, wanted),
    (SHORTEST_PART[caps.tier] * (rows ? 16 : 1)) / (load === 'along' ? 4 : 1),
  );
  const splits = Math.max(1, ceilDiv(count, chunk));
  const columns = caps.tier === 'scalar' && threads * splits < 1024 ? caps.subgroup || 16 : 64; // few threads: spread over the cores
  return {
    load,
    template: rows ? 'rows' : 'columns',
    workgroup: rows ? team : columns,
    kept,
    reduced,
    outputs,
    count,
    splits,
    chunk,
  };
}

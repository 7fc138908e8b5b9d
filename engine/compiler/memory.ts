/**
 * Stage `memory`: lifetimes → offsets in arenas. Every byte a program will hold is known here, before a buffer exists.
 *
 * Greedy by size: the largest tensor first, each at the lowest offset that no tensor alive at the same time covers.
 */

import { ALIGN } from '../../kernels/kernel.ts';

export interface Block {
  name: string;
  bytes: number;
  /** First and last group that touches it, inclusive. */
  first: number;
  last: number;
}

interface Spot {
  arena: number;
  offset: number;
}

export interface MemoryPlan {
  spots: Map<Block, Spot>;
  /** Bytes of each arena. */
  arenas: number[];
  /** Largest sum of live blocks at any group: what no plan can go below. */
  lowerBound: number;
  /** The largest blocks alive at that group, for the printed plan. */
  atPeak: Block[];
}

const aligned = (bytes: number): number => Math.ceil(Math.max(bytes, 4) / ALIGN) * ALIGN;

interface Placed {
  block: Block;
  offset: number;
  end: number;
}

/** Groups that share a list of who is alive: most tensors live for a few groups, and meet few others. */
const SPAN = 32;

/** What lies in one arena, by when it is alive. */
class Arena {
  bytes = 0;
  private readonly spans = new Map<number, Placed[]>();

  /** The lowest offset that is free for `size` bytes as long as `block` lives. */
  lowest(block: Block, size: number): number {
    const others = new Set<Placed>();
    for (let at = Math.floor(block.first / SPAN); at <= Math.floor(block.last / SPAN); at++) {
      for (const other of this.spans.get(at) ?? [])
        if (other.block.last >= block.first && block.last >= other.block.first) others.add(other);
    }
    let offset = 0;
    for (const other of [...others].sort((a, b) => a.offset - b.offset)) {
      if (other.offset - offset >= size) break;
      offset = Math.max(offset, other.end);
    }
    return offset;
  }

  put(block: Block, offset: number, size: number): void {
    const placed = { block, offset, end: offset + size };
    for (let at = Math.floor(block.first / SPAN); at <= Math.floor(block.last / SPAN); at++) {
      const alive = this.spans.get(at);
      if (alive) alive.push(placed);
      else this.spans.set(at, [placed]);
    }
    this.bytes = Math.max(this.bytes, placed.end);
  }
}

export function planMemory(blocks: readonly Block[], maxArenaBytes: number): MemoryPlan {
  const arenas: Arena[] = [];
  const spots = new Map<Block, Spot>();
  for (const block of [...blocks].sort((a, b) => b.bytes - a.bytes || a.first - b.first)) {
    const size = aligned(block.bytes);
    for (let i = 0; !spots.has(block); i++) {
      const arena = (arenas[i] ??= new Arena());
      const offset = arena.lowest(block, size);
      if (offset + size > maxArenaBytes && arena.bytes) continue;
      arena.put(block, offset, size);
      spots.set(block, { arena: i, offset });
    }
  }
  return { spots, arenas: arenas.map((a) => a.bytes), ...peak(blocks) };
}

function peak(blocks: readonly Block[]): { lowerBound: number; atPeak: Block[] } {
  const change = new Map<number, number>();
  for (const b of blocks) {
    change.set(b.first, (change.get(b.first) ?? 0) + aligned(b.bytes));
    change.set(b.last + 1, (change.get(b.last + 1) ?? 0) - aligned(b.bytes));
  }
  let live = 0;
  let lowerBound = 0;
  let when = 0;
  for (const at of [...change.keys()].sort((a, b) => a - b)) {
    live += change.get(at)!;
    if (live > lowerBound) [lowerBound, when] = [live, at];
  }
  const atPeak = blocks
    .filter((b) => b.first <= when && when <= b.last)
    .sort((a, b) => b.bytes - a.bytes)
    .slice(0, 10);
  return { lowerBound, atPeak };
}

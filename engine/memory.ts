/**
 * Stage `memory`: lifetimes → offsets in arenas. Every byte a program will hold is known here, before a buffer exists.
 *
 * Greedy by size: the largest tensor first, each at the lowest offset that no tensor alive at the same time covers.
 */

/** Storage offsets in Dawn must be multiples of this. */
export const ALIGN = 256;

export interface Block {
  name: string;
  bytes: number;
  /** First and last group that touches it, inclusive. */
  first: number;
  last: number;
}

export interface Spot { arena: number; offset: number }

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

export function planMemory(blocks: readonly Block[], maxArenaBytes: number): MemoryPlan {
  const arenas: { block: Block; offset: number; end: number }[][] = [];
  const sizes: number[] = [];
  const spots = new Map<Block, Spot>();
  for (const block of [...blocks].sort((a, b) => b.bytes - a.bytes || a.first - b.first)) {
    const size = aligned(block.bytes);
    for (let arena = 0; ; arena++) {
      const placed = (arenas[arena] ??= []);
      let offset = 0;
      for (const other of placed) { // sorted by offset
        if (other.block.last < block.first || block.last < other.block.first) continue;
        if (other.offset - offset >= size) break;
        offset = Math.max(offset, other.end);
      }
      if (offset + size > maxArenaBytes && placed.length) continue;
      const entry = { block, offset, end: offset + size };
      let at = placed.length;
      while (at > 0 && placed[at - 1]!.offset > offset) at--;
      placed.splice(at, 0, entry);
      sizes[arena] = Math.max(sizes[arena] ?? 0, offset + size);
      spots.set(block, { arena, offset });
      break;
    }
  }
  return { spots, arenas: sizes, ...peak(blocks) };
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
  const atPeak = blocks.filter((b) => b.first <= when && when <= b.last).sort((a, b) => b.bytes - a.bytes).slice(0, 10);
  return { lowerBound, atPeak };
}

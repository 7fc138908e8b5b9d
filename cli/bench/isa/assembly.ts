/** Machine code as Mesa's AMD compiler prints it: basic blocks, loops, and what each instruction is. */

/** What an instruction is, by the first pattern that its name matches. GCN's and RDNA's names of one thing differ. */
const KINDS = {
  wmma: /^v_wmma/,
  packed: /^v_(pk_fma|pk_mad|pk_fmac|dot2|fma_mix|mad_mix)/,
  fma: /^v_(dual_)?(fma|fmac|mac|mad|fmaak|fmamk|madak|madmk)_(legacy_)?f(32|16)/,
  valu: /^v_/,
  shared128: /^ds_(load|read)_b128/,
  shared64: /^ds_(load|read)(_b64|_b96|_2addr_b64|2_b64|_2addr_stride64_b64|2st64_b64)/,
  shared32: /^ds_(load|read)(_b32|_2addr_b32|2_b32|_2addr_stride64_b32|2st64_b32)/,
  shared16: /^ds_(load|read)_[ui](16|8)/,
  sharedStore: /^ds_(store|write)/,
  load128: /^(buffer|global)_load_(b128|dwordx4)/,
  load64: /^(buffer|global)_load_(b64|b96|dwordx[23])/,
  load32: /^(buffer|global)_load_(b32|dword)$/,
  load16: /^(buffer|global)_load_/,
  scratch: /^scratch_/,
  barrier: /^s_barrier/,
  branch: /^s_c?branch/,
} as const;
type Kind = keyof typeof KINDS;

/** Instructions of each kind; `valu` has all that take a slot of the vector unit, a pair that is issued as one counting once. */
export type Counts = Record<Kind, number> & { instructions: number };

const TABLE = Object.entries(KINDS) as [Kind, RegExp][];
const VECTOR = new Set<Kind>(['wmma', 'packed', 'fma', 'valu']);

const none = (): Counts => ({
  ...(Object.fromEntries(TABLE.map(([kind]) => [kind, 0])) as Record<Kind, number>),
  instructions: 0,
});

interface Block {
  name: string;
  lines: string[];
  /** Names of blocks that it jumps to. */
  to: string[];
}

export interface Loop {
  /** Numbers of its first and last block. */
  from: number;
  to: number;
  inner: Loop[];
  /** Without what its inner loops hold. */
  own: Counts;
}

/** An instruction without the code's bytes and remarks, and without what it defines, which the compiler's own form has in front. */
const instruction = (raw: string): string =>
  raw
    .replace(/;.*$|\/\*.*\*\//, '')
    .split(' :: ')
    .map((part) => part.replace(/^.* = /, '').trim())
    .join(' :: ');

/** @param text as LLVM's disassembler has it, or as the compiler prints its own program where that does not know the GPU */
export function blocksOf(text: string): Block[] {
  const blocks: Block[] = [];
  for (const raw of text.split('\n')) {
    const label = /^(BB\d+):?$/.exec(raw.trimEnd())?.[1];
    if (label) blocks.push({ name: label, lines: [], to: [] });
    const line = instruction(raw);
    const block = blocks.at(-1);
    if (label || !line || !block) continue;
    block.lines.push(line);
    const jump = /^s_c?branch\w*\s+(?:block:)?(BB\d+)/.exec(line)?.[1];
    if (jump) block.to.push(jump);
  }
  return blocks;
}

export function count(lines: readonly string[]): Counts {
  const counts = none();
  for (const line of lines) {
    counts.instructions++;
    const parts = line.split(' :: '); // RDNA3 issues two at a time
    let slot = false;
    for (const part of parts) {
      const name = part.trim().split(/\s/)[0]!;
      const kind = TABLE.find(([, pattern]) => pattern.test(name))?.[0];
      if (!kind) continue;
      if (VECTOR.has(kind)) slot = true;
      if (kind !== 'valu') counts[kind]++;
    }
    if (slot) counts.valu++;
  }
  return counts;
}

/** Adds `times` the one to the other. */
export const plus = (a: Counts, b: Counts, times = 1): Counts =>
  Object.fromEntries(Object.entries(a).map(([kind, n]) => [kind, n + times * b[kind as Kind]])) as Counts;

/** Outermost loops in the order of the text; blocks between a jump back and its target are a loop. */
export function loopsOf(blocks: readonly Block[]): Loop[] {
  const at = new Map(blocks.map((b, i) => [b.name, i]));
  const ends = new Map<number, number>();
  blocks.forEach((b, i) =>
    b.to.forEach((name) => {
      const from = at.get(name);
      if (from !== undefined && from <= i) ends.set(from, i);
    }),
  );
  const nest = (ranges: [number, number][]): Loop[] => {
    const loops: Loop[] = [];
    while (ranges.length) {
      const [from, to] = ranges.shift()!;
      const inside = ranges.filter(([f]) => f <= to);
      ranges = ranges.filter(([f]) => f > to);
      const inner = nest(inside);
      const mine = blocks
        .slice(from, to + 1)
        .filter((_, i) => !inner.some((l) => l.from <= i + from && i + from <= l.to));
      loops.push({ from, to, inner, own: count(mine.flatMap((b) => b.lines)) });
    }
    return loops;
  };
  return nest([...ends].sort(([a], [b]) => a - b));
}

/** A loop and all in it. */
export const withInner = (loop: Loop): Loop[] => [loop, ...loop.inner.flatMap(withInner)];

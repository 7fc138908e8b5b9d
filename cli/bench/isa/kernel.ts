/** What the compiler made of one kernel: registers, occupancy, and how much of its issue slots compute. */
import { blocksOf, count, loopsOf, plus, withInner, type Counts, type Loop } from './assembly.ts';
import { writtenLoops, type Written } from './trips.ts';

/** A kernel as the child compiled it. */
export interface Compiled {
  name: string;
  label: string;
  threads: number;
  wgsl: string;
  params: readonly number[];
  error?: string;
  /** What the driver printed meanwhile. */
  dump: string;
}

export interface KernelNumbers {
  /** Its first case. */
  name: string;
  label: string;
  error?: string;
  threads: number;
  vgprs: number;
  sgprs: number;
  /** Registers that did not fit, and bytes of memory a thread needs in their place. */
  spills: number;
  scratch: number;
  workgroupBytes: number;
  /** Subgroups that a SIMD holds at a time. */
  waves: number;
  codeBytes: number;
  /** The loop that computes most, once round. */
  hot?: Counts;
  /** The outermost loop that computes, once round, with its inner loops as often as they run: a panel with its staging. */
  panel?: Counts;
  /** FMAs for each slot of the vector unit: above 1 where two are issued at a time. Where there are units: their share of the cycles. */
  hotShare?: number;
  panelShare?: number;
  /** The share of the GPU's peak that issue and workgroup memory leave at most. */
  bound?: number;
}

/** Cycles of a SIMD that a matrix instruction of 16x16x16 takes. */
const WMMA_CYCLES = 32;
/** Bytes that workgroup memory gives a SIMD in a cycle when all ask: 128 a compute unit of two (RDNA) or, over four cycles, four (GCN). */
const SHARED_BYTES = 64;
const LANES = 32;

const fmas = (c: Counts): number => c.fma + 2 * c.packed;
const work = (c: Counts): number => fmas(c) + 1000 * c.wmma;
const total = (loop: Loop): number => withInner(loop).reduce((sum, l) => sum + work(l.own), 0);

export const share = (c: Counts): number =>
  c.wmma ? (WMMA_CYCLES * c.wmma) / (WMMA_CYCLES * c.wmma + c.valu - c.wmma) : fmas(c) / Math.max(1, c.valu);

/** WebGPU's zeros in workgroup memory, which stand before a kernel's own code. */
const clears = ({ own, inner }: Loop): boolean =>
  own.sharedStore === 1 && own.instructions < 12 && !own.barrier && !inner.length && !work(own);

/** Rounds of each loop of the machine code; loops of constant length may be gone. */
function rounds(loops: readonly Loop[], written: readonly Written[]): Map<Loop, number | undefined> {
  const found = loops.filter((l) => !clears(l)).flatMap(withInner);
  const flat = (all: readonly Written[]): Written[] => all.flatMap((w) => [w, ...flat(w.inner)]);
  const all = flat(written);
  const lasting = all.filter((w) => !w.constant);
  const match = [all, lasting].find((ws) => ws.length === found.length) ?? [];
  return new Map(found.map((l, i) => [l, match[i]?.trips]));
}

/** A loop once round. @returns undefined where nobody knows how often an inner loop that computes runs */
function once(loop: Loop, trips: Map<Loop, number | undefined>): Counts | undefined {
  let sum: Counts | undefined = loop.own;
  for (const inner of loop.inner) {
    const body = once(inner, trips);
    const times = trips.get(inner) ?? (total(inner) ? undefined : 1);
    sum = sum && body && times !== undefined ? plus(sum, body, times) : undefined;
  }
  return sum;
}

/** @param dual the SIMD issues two FMAs at a time */
function boundOf(c: Counts, dual: boolean): number {
  const bytes = LANES * (16 * c.shared128 + 8 * c.shared64 + 4 * c.shared32 + 4 * c.shared16);
  const memory = bytes / SHARED_BYTES;
  if (c.wmma) {
    const cycles = WMMA_CYCLES * c.wmma;
    return cycles / Math.max(cycles + c.valu - c.wmma, memory);
  }
  return fmas(c) / (dual ? 2 : 1) / Math.max(1, c.valu, memory);
}

const number = (dump: string, name: string): number =>
  Number(new RegExp(`^${name}: (\\d+)`, 'm').exec(dump)?.[1] ?? NaN);

export function kernelNumbers(
  { name, label, threads, wgsl, params, error, dump }: Compiled,
  dual: boolean,
): KernelNumbers {
  const text = dump.split('disasm:\n').at(-1)!.split('*** SHADER STATS')[0]!;
  const loops = loopsOf(blocksOf(text));
  const trips = rounds(loops, writtenLoops(wgsl, params));
  const all = loops.flatMap(withInner).filter((l) => work(l.own) > 0);
  const units = all.filter((l) => l.own.wmma > 0);
  const leaves = all.filter((l) => !l.inner.some((i) => total(i) > 0));
  const hot = (units.length ? units : leaves).reduce<Loop | undefined>(
    (a, l) => (a && work(a.own) >= work(l.own) ? a : l),
    undefined,
  );
  const outer = loops.filter((l) => total(l) > 0).sort((a, b) => total(b) - total(a))[0];
  const panel = outer && once(outer, trips);
  return {
    name,
    label,
    ...(error !== undefined && { error }),
    threads,
    vgprs: number(dump, 'VGPRs'),
    sgprs: number(dump, 'SGPRs'),
    spills: number(dump, 'Spilled VGPRs') + number(dump, 'Spilled SGPRs'),
    scratch: number(dump, 'Scratch size') + count(text.split('\n')).scratch,
    workgroupBytes: number(dump, 'LDS size'),
    waves: number(dump, 'Subgroups per SIMD'),
    codeBytes: number(dump, 'Code size'),
    ...(hot && { hot: hot.own, hotShare: share(hot.own) }),
    ...(panel && { panel, panelShare: share(panel), bound: boundOf(panel, dual) }),
  };
}

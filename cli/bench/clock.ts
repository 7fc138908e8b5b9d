/**
 * How long calls take: on the wall, and in processor time of all threads of this process. A software adapter works on the
 * processor, and there the second is what counts, because neighbours on the machine disturb it little.
 */
import process from 'node:process';
import { cores } from '../../engine/host/runtime.ts';

export const CORES = cores();

/** Milliseconds a call. */
export interface Sample {
  ms: number;
  cpuMs: number;
}

export interface Times extends Sample {
  /** The first call: tracing, compiling, running. */
  firstMs: number;
  firstCpuMs: number;
  bestMs: number;
  bestCpuMs: number;
  /** Half the distance between the quartiles of the wall times, as a share of their median. */
  spread: number;
}

/** Calls may only queue work; `settle` waits until all of it is done. */
export interface Timed {
  call: () => Promise<unknown>;
  settle: () => Promise<unknown>;
}

const SAMPLES = 9;
const FEW = 3; // samples where a call takes more than a second
const LONG_MS = 20_000; // of a call that is timed once
const SAMPLE_MS = 40; // a sample repeats short calls until it is this long

export async function sample({ call, settle }: Timed, calls = 1): Promise<Sample> {
  const [start, before] = [performance.now(), process.cpuUsage()];
  for (let i = 0; i < calls; i++) await call();
  await settle();
  const { user, system } = process.cpuUsage(before);
  return { ms: (performance.now() - start) / calls, cpuMs: (user + system) / 1000 / calls };
}

/** How many samples, and of how many calls each, when one call took `ms`. */
export const effort = (ms: number): { samples: number; calls: number } => ({
  samples: ms > 1000 ? FEW : SAMPLES,
  calls: Math.max(1, Math.ceil(SAMPLE_MS / ms)),
});

export function summary(first: Sample, samples: readonly Sample[]): Times {
  const sorted = (key: keyof Sample) => samples.map((s) => s[key]).sort((a, b) => a - b);
  const at = (xs: readonly number[], share: number): number => xs[Math.round(share * (xs.length - 1))]!;
  const [ms, cpuMs] = [sorted('ms'), sorted('cpuMs')];
  return {
    firstMs: first.ms,
    firstCpuMs: first.cpuMs,
    ms: at(ms, 0.5),
    bestMs: ms[0]!,
    cpuMs: at(cpuMs, 0.5),
    bestCpuMs: cpuMs[0]!,
    spread: (at(ms, 0.75) - at(ms, 0.25)) / 2 / at(ms, 0.5),
  };
}

export async function time(timed: Timed): Promise<Times> {
  const first = await sample(timed);
  const second = await sample(timed);
  if (second.ms > LONG_MS) return summary(first, [second]);
  const { samples, calls } = effort(second.ms);
  const all: Sample[] = [];
  for (let i = 0; i < samples; i++) all.push(await sample(timed, calls));
  return summary(first, all);
}

/** What an adapter's speed is told by: the wall for a GPU, processor time shared by all cores for a software adapter. */
export const clockOf = (kind: 'gpu' | 'software') =>
  ({
    name: kind === 'gpu' ? 'wall' : 'processor',
    typical: (t: Times): number => (kind === 'gpu' ? t.ms : t.cpuMs / CORES),
    best: (s: readonly Sample[]): number => Math.min(...s.map((t) => (kind === 'gpu' ? t.ms : t.cpuMs / CORES))),
    fastest: (t: Times): number => (kind === 'gpu' ? t.bestMs : t.bestCpuMs / CORES),
  }) as const;
export type Clock = ReturnType<typeof clockOf>;

/**
 * The same works by every engine, each in a child process of its own: answers checked against float64, then timed by turns, a
 * sample each, so that what disturbs the machine disturbs all alike.
 */
import { Child } from '../common/child.ts';
import { effort, summary, type Sample, type Times } from './clock.ts';
import type { Opened, Question } from './peers/child.ts';
import { entriesOf, missing, type EngineName } from './peers/roster.ts';
import { errorOf, numbersOf, referenceOf, workOf, WORKS, type WorkName } from './works.ts';

export interface Contender extends Times {
  engine: EngineName;
  version: string;
  on: string;
  /** Largest difference to the float64 answer, relative to its largest number. */
  error: number;
  wrong: boolean;
  peakBytes: number;
}

export interface Comparison {
  work: WorkName;
  shape: string;
  flops: number;
  traffic: number;
  /** Ours first. Engines without such an operation are not in it. */
  contenders: Contender[];
  failed: { engine: EngineName; reason: string }[];
}

const OPEN_MS = 300_000; // a cold compile of a training step takes one peer a minute
const SAMPLE_LIMIT_MS = 120_000;
/** Above the rounding of f32 in any order of summation. */
const WRONG = 1e-3;

type Racer = Omit<Contender, keyof Times> & { child: Child; first: Sample; calls: number; samples: number };

const ask = <T>(child: Child, question: Question, limit: number): Promise<T> => child.ask<T>(question, limit);

async function enter(
  engine: EngineName,
  flags: readonly string[],
  work: WorkName,
  numbers: Float32Array[],
  reference: readonly Float64Array[],
): Promise<Racer | undefined> {
  const child = new Child(new URL('./peers/child', import.meta.url), { flags });
  try {
    const opened = await ask<Opened>(child, { open: { engine, work, numbers } }, OPEN_MS);
    if (!opened) {
      child.close();
      return undefined;
    }
    const { version, on, first, answer, peakBytes } = opened;
    const error = errorOf(answer, reference);
    const once = await ask<Sample>(child, { calls: 1 }, SAMPLE_LIMIT_MS);
    return { engine, child, version, on, first, peakBytes, error, wrong: !(error <= WRONG), ...effort(once.ms) };
  } catch (error) {
    child.close();
    throw error;
  }
}

async function race(
  name: WorkName,
  engines: readonly { name: EngineName; flags: readonly string[] }[],
  signal: AbortSignal,
): Promise<Comparison> {
  const work = workOf(name);
  const numbers = numbersOf(work);
  const reference = referenceOf(work, numbers);
  const racers: Racer[] = [];
  const failed: Comparison['failed'] = [];
  const times = new Map<Racer, Sample[]>();
  const drop = (engine: EngineName, error: unknown) => failed.push({ engine, reason: (error as Error).message });
  try {
    for (const { name: engine, flags } of engines) {
      signal.throwIfAborted();
      const racer = await enter(engine, flags, name, numbers, reference).catch(
        (error: unknown) => void drop(engine, error),
      );
      if (racer) racers.push(racer);
    }
    for (let round = 0; round < Math.max(...racers.map((r) => r.samples)); round++) {
      for (const racer of racers.filter((r) => round < r.samples)) {
        signal.throwIfAborted();
        const sampled = await ask<Sample>(racer.child, { calls: racer.calls }, SAMPLE_LIMIT_MS).catch(
          (error: unknown) => void drop(racer.engine, error),
        );
        if (sampled) times.set(racer, [...(times.get(racer) ?? []), sampled]);
        else racer.samples = 0;
      }
    }
  } finally {
    for (const { child } of racers) child.close();
  }
  const contenders = racers
    .filter((r) => times.has(r) && !failed.some((f) => f.engine === r.engine))
    .map(({ child: _c, calls: _n, samples: _s, first, ...r }) => ({
      ...r,
      ...summary(first, times.get(racers.find((x) => x.engine === r.engine)!)!),
    }));
  return { work: name, shape: work.shape, flops: work.flops, traffic: work.traffic, contenders, failed };
}

/** @param names peers; those that are not installed are named with the line that installs them, and left out */
export async function compare(names: readonly string[], signal: AbortSignal): Promise<Comparison[]> {
  const engines: { name: EngineName; flags: readonly string[] }[] = [{ name: 'ours', flags: [] }];
  const told = new Set<string>();
  for (const entry of entriesOf(names)) {
    const install = missing(entry);
    if (!install) engines.push({ name: entry.name, flags: 'flags' in entry ? entry.flags : [] });
    else if (!told.has(install)) console.error(`${entry.name} is not installed: ${install}`);
    if (install) told.add(install);
  }
  const found: Comparison[] = [];
  for (const work of WORKS) {
    console.error(`${work}: ${engines.map((e) => e.name).join('; ')} …`);
    found.push(await race(work, engines, signal));
  }
  return found;
}

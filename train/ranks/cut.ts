/**
 * How a preset's batches are cut for several ranks: into as many micro-batches at least. The folder remembers for how many ranks its run
 * was begun, so that it goes on with the same micro-batches, and the same numbers, on more or fewer of them.
 */
import { join } from 'node:path';
import { existsSync } from 'node:fs';
import { readText } from '../../engine/host/plain.ts';
import { writeWhole } from '../loop/files.ts';
import type { Batching } from '../loop/accumulate.ts';
import type { Course } from '../presets/index.ts';
import { agreed, type Ranks } from './ranks.ts';

const fileOf = (folder: string): string => join(folder, 'ranks.json');

/** For how many ranks each job's batches are cut. @throws one line when the note of it is damaged */
function noted(folder: string): Record<string, unknown> {
  const path = fileOf(folder);
  if (!existsSync(path)) return {};
  try {
    const ranks = JSON.parse(readText(path)) as unknown;
    if (typeof ranks !== 'object' || !ranks || !Object.values(ranks).every((n) => Number.isSafeInteger(n) && n > 0))
      throw new Error('it holds no numbers of ranks by job');
    return ranks as Record<string, unknown>;
  } catch (error) {
    throw new Error(
      `[ranks] ${path} is damaged (${(error as Error).message}): put it back from a copy, or choose another folder`,
      { cause: error },
    );
  }
}

/** Micro-batches: a multiple of what was asked for and of the ranks, as few as divide the batch; nothing where none does. */
export function microBatches({ batch, accumulate }: Batching, ranks: number): number | undefined {
  for (let n = accumulate; n <= batch; n += accumulate) if (n % ranks === 0 && batch % n === 0) return n;
  return undefined;
}

/** A preset whose batches are cut for so many ranks. A job that cannot be is left as it is, and refuses when it is opened. */
export function cutFor<P extends Course>(p: P, ranks: number): P {
  if (ranks === 1) return p;
  // As a preset that was given with so many: `accumulate` stands behind `batch`.
  const cut = <S extends { batch: number; accumulate?: number | undefined }>(s: S): S => {
    const n = microBatches({ accumulate: 1, ...s }, ranks);
    if (n === undefined) return s;
    const { accumulate: _, ...whole } = s;
    const entries = Object.entries(whole).flatMap(([k, v]) =>
      k === 'batch'
        ? [
            [k, v],
            ['accumulate', n],
          ]
        : [[k, v]],
    );
    return Object.fromEntries(entries) as S;
  };
  return {
    ...p,
    trainVae: cut(p.trainVae),
    teacher: cut(p.teacher),
    priming: cut(p.priming),
    equilibrium: cut(p.equilibrium),
    baselines: { ...p.baselines, consistency: cut(p.baselines.consistency), meanflow: cut(p.baselines.meanflow) },
  };
}

/**
 * A preset with its batches cut as a job in `folder` has them, or for the ranks there are where it begins. The folder must be one that
 * all ranks see.
 * @param begun whether the job has begun
 * @throws one line where they do not
 */
export async function cutAsBegun<P extends Course>(
  p: P,
  { folder, job, begun }: { folder: string; job: string; begun: () => boolean },
  ranks?: Ranks,
): Promise<P> {
  const cut = await agreed(ranks, () => {
    const notes = noted(folder);
    const size = ranks?.size ?? 1;
    if (begun() || (notes[job] ?? 1) === size) return Number(notes[job] ?? 1);
    writeWhole(fileOf(folder), JSON.stringify({ ...notes, [job]: size }));
    return size;
  });
  if (ranks && cut > 1 && !existsSync(fileOf(folder)))
    throw new Error(
      `[ranks] ${ranks.host} does not see ${fileOf(folder)}: all machines need the run's folder, the data and the weights under the same paths`,
    );
  return cutFor(p, cut);
}

/** @throws one line where ranks would never have a micro-batch of their own */
export function checkShare(name: string, { batch, accumulate }: Batching, ranks: Ranks | undefined): void {
  if (ranks && accumulate < ranks.size)
    throw new Error(
      `[${name}] a batch of ${batch} clips in micro-batches of ${batch / accumulate} does not go round ${ranks.size} ranks: take ${accumulate} of them, or a run that begins with as many as divide ${batch}`,
    );
}

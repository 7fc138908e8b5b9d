/**
 * The processes that train one model together, each on its own GPU. Calls go through a queue in the order in which they are made, which is
 * the same on every rank; what a call needs may come later.
 */
import { unwatched } from '../loop/pending.ts';
import { Mpi } from './mpi.ts';

export class Ranks {
  readonly rank: number;
  readonly size: number;
  /** Among those on this machine. */
  readonly local: number;
  readonly host: string;
  readonly mpi: Mpi;
  private tail: Promise<unknown> = Promise.resolve();

  private constructor(mpi: Mpi) {
    this.mpi = mpi;
    ({ rank: this.rank, size: this.size, local: this.local, host: this.host } = mpi);
  }

  /** @returns nothing where this process was started alone; @throws one line where it was not, and the others cannot be reached */
  static async join(): Promise<Ranks | undefined> {
    const mpi = await Mpi.join();
    return mpi && new Ranks(mpi);
  }

  /** Runs `work` after what was queued before it. */
  queue<T>(work: (mpi: Mpi) => Promise<T>): Promise<T> {
    const mine = this.tail.then(() => work(this.mpi));
    this.tail = mine;
    return unwatched(mine);
  }

  /** Until all are here. */
  meet(): Promise<void> {
    return this.queue((mpi) => mpi.meet());
  }

  /** Everybody's numbers, as many from each; a promise of them may be given. */
  gather(numbers: Float32Array | Promise<Float32Array>): Promise<Float32Array[]> {
    return this.queue(async (mpi) => {
      const own = await numbers;
      const all = new Float32Array(own.length * this.size);
      await mpi.meet();
      await mpi.gather(own, all, Array<number>(this.size).fill(own.length));
      return Array.from({ length: this.size }, (_, i) => all.subarray(i * own.length, (i + 1) * own.length));
    });
  }

  /** What rank 0 makes, told to all: plain data. */
  told<T>(make: () => T | Promise<T>): Promise<T> {
    return this.queue(async (mpi) => {
      const text = this.rank === 0 ? new TextEncoder().encode(JSON.stringify((await make()) ?? null)) : undefined;
      await mpi.meet();
      const size = new Uint8Array(Uint32Array.of(text?.length ?? 0).buffer);
      await mpi.tell(size);
      const bytes = text ?? new Uint8Array(new Uint32Array(size.buffer)[0]!);
      await mpi.tell(bytes);
      return JSON.parse(new TextDecoder().decode(bytes)) as T;
    });
  }
}

/** Runs `work` on rank 0 before the others: what it has made in a folder, they find there. */
export async function leading<T>(ranks: Ranks | undefined, work: () => Promise<T>): Promise<T> {
  if (!ranks) return work();
  if (ranks.rank > 0) await ranks.meet();
  const made = await work();
  if (ranks.rank === 0) await ranks.meet();
  return made;
}

/** What rank 0 finds, on all; without ranks what is found. */
export const agreed = <T>(ranks: Ranks | undefined, find: () => T | Promise<T>): Promise<T> =>
  ranks ? ranks.told(find) : Promise.resolve(find());

/** Whether this process speaks for all: it logs, judges, draws and saves. */
export const isLeader = (ranks: Ranks | undefined): boolean => !ranks || ranks.rank === 0;

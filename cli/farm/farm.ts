/** The command's side of a farm: its items go into a queue, whoever takes them, and the results are kept as they come. */
import { mkdirSync } from 'node:fs';
import { hostname } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import type { Options } from 'yargs';
import { hashOf } from '../../train/loop/run.ts';
import { releaseLock, takeLock } from '../../train/loop/lock.ts';
import type { Spread } from '../../train/spread.ts';
import { printable } from '../common/errors.ts';
import { meter } from '../common/progress.ts';
import { VERSION } from '../common/root.ts';
import { untilInterrupted } from '../common/session.ts';
import { Offered } from './files.ts';
import { Queue, type ItemRecord } from './queue.ts';

export const queueOption = {
  queue: {
    type: 'string',
    describe:
      'a NATS server, as nats://host:4222: the work is done by the vpae worker --queue … that are there, on any machine (docs/scale.md)',
  },
} as const satisfies Record<string, Options>;

const POLL_MS = 200;
const LONELY_MS = 5000; // before it is said that nobody is there
const LEAVE_MS = 5000; // for a server that is gone when it is to be tidied

/** Items of one kind. */
interface Task<I> {
  kind: string;
  /** All that decides the results beside the items, files as `Offered` names them. Plain JSON. */
  settings: object;
  /** What is counted. */
  unit: string;
  name: (item: I) => string;
}

export class Farm {
  /** What workers may ask for. */
  readonly files = new Offered();
  private readonly queue: Queue;
  private readonly signal: AbortSignal;
  private readonly folder: string;

  private constructor(queue: Queue, folder: string, signal: AbortSignal) {
    [this.queue, this.folder, this.signal] = [queue, resolve(folder), signal];
  }

  /**
   * Runs `body` with a farm whose results go into `folder`, which one command at a time may fill so.
   * @param stopped what a person must know after Ctrl-C
   */
  static async open<R>(
    { address, folder, stopped }: { address: string; folder: string; stopped: string },
    body: (farm: Farm, signal: AbortSignal) => Promise<R>,
  ): Promise<R> {
    const queue = await Queue.open(address);
    try {
      const lock = join(folder, 'farm.lock');
      mkdirSync(folder, { recursive: true });
      const owner = takeLock(lock);
      if (owner)
        throw new Error(`[queue] ${folder} is being filled by process ${owner.pid} on ${owner.host}: wait for it`);
      try {
        return await untilInterrupted(stopped, (signal) => body(new Farm(queue, folder, signal), signal));
      } finally {
        releaseLock(lock);
      }
    } finally {
      await queue.close();
    }
  }

  /** Items are done by whoever takes them. What was done for an earlier start of the same command, which was killed, is taken as it is. */
  spread<I>(task: Task<I>): Spread<I> {
    return async (items, keep) => {
      if (!items.length) return;
      const run = new Run(this.queue, this.signal, this.files, task, this.folder);
      try {
        await run.all(items, keep);
      } finally {
        await Promise.race([run.clear(), wait(LEAVE_MS, undefined, { ref: false })]);
      }
    };
  }
}

type Keep = Parameters<Spread<never>>[1];

/** One list of items, from its first to its last. */
class Run<I> {
  private readonly queue: Queue;
  private readonly signal: AbortSignal;
  private readonly files: Offered;
  private readonly task: Task<I>;
  private readonly job: string;
  private next = 1; // place in the stream of results
  private record: Omit<ItemRecord, 'item'> | undefined;

  constructor(queue: Queue, signal: AbortSignal, files: Offered, task: Task<I>, folder: string) {
    [this.queue, this.signal, this.files, this.task] = [queue, signal, files, task];
    this.job = hashOf([VERSION, task.kind, task.settings, hostname(), folder]);
  }

  async all(items: readonly I[], keep: Keep): Promise<void> {
    const { queue, job, task, signal } = this;
    const left = new Map<string, number[]>(); // what two items ask for alike is done once
    for (const [at, item] of items.entries()) left.set(hashOf(item), [...(left.get(hashOf(item)) ?? []), at]);
    let done = 0;
    await queue.begin(job);
    const settings = await queue.storeBytes(job, new TextEncoder().encode(JSON.stringify(task.settings)));
    this.record = { version: VERSION, kind: task.kind, settings };
    queue.answer(job, (hash) => {
      const open = this.files.open(hash);
      if (open) queue.store(job, hash, open).catch((error: Error) => console.error(printable(error.message)));
    });
    const shown = meter(task.unit, { unit: task.unit, total: items.length });
    const told = new Set<string>();
    const since = Date.now();
    const collect = async (): Promise<boolean> => {
      const kept = await this.collect(items, left, keep);
      if (kept) shown.at((done += kept), this.hands());
      return kept !== undefined;
    };
    try {
      while (await collect());
      await this.put(items, [...left.values()].flat());
      while (left.size) {
        signal.throwIfAborted();
        if (await collect()) continue;
        for (const line of this.missing(since)) if (told.size < told.add(line).size) shown.say(line);
        await wait(POLL_MS);
      }
    } finally {
      shown.end();
    }
  }

  /** Takes back what nobody has begun, and leaves nothing on the server. */
  clear(): Promise<void> {
    return this.queue.withdraw(this.job, VERSION).catch(() => {}); // a server that is gone
  }

  private put(items: readonly I[], which: readonly number[]): Promise<void> {
    const records = which.map((at) => [hashOf(items[at]), { ...this.record!, item: items[at] }] as const);
    return this.queue.put(this.job, new Map(records));
  }

  /** Keeps the next result, if there is one. @returns how many items it is of. @throws one line where an item cannot be done */
  private async collect(items: readonly I[], left: Map<string, number[]>, keep: Keep): Promise<number | undefined> {
    const { queue, job, task } = this;
    const found = await queue.result(job, this.next);
    if (!found) return undefined;
    this.next = found.at + 1;
    const { id, result } = found;
    const at = left.get(id);
    if (!at) return 0; // done twice, or of a longer list
    if ('failed' in result) {
      await queue.forget(job, id);
      throw new Error(printable(`[queue] ${task.name(items[at[0]!]!)}: ${result.failed} (${result.by})`));
    }
    if (!(await queue.has(job, result.blob))) {
      await queue.forget(job, id); // told by one who came too late for an earlier start
      await this.put(items, at);
      return 0;
    }
    const bytes = await queue.bytes(job, result.blob);
    for (const each of at) await keep(each, bytes);
    left.delete(id);
    await queue.drop(job, result.blob);
    return at.length;
  }

  private hands(): string {
    const { length } = this.queue.workers().filter((w) => w.version === VERSION);
    return `${length} worker${length === 1 ? '' : 's'}`;
  }

  /** What keeps the work from being done. */
  private missing(since: number): string[] {
    const workers = this.queue.workers();
    const strange = workers
      .filter((w) => w.version !== VERSION)
      .map((w) =>
        printable(`${w.id} is vpae ${w.version}, this is ${VERSION}: it takes none of this, install the same there`),
      );
    const lonely = !workers.length && Date.now() - since > LONELY_MS;
    return lonely
      ? [...strange, `no worker is there: start vpae worker --queue ${this.queue.server} where there is a GPU`]
      : strange;
  }
}

/** A worker's day: it takes items from a queue, does them, and tells what came of them. */
import { mkdtempSync, rmSync } from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Device } from '../../engine/runtime/device.ts';
import { oneLine, printable } from '../common/errors.ts';
import { VERSION } from '../common/root.ts';
import { Forsaken, Inputs } from './files.ts';
import { kindNamed, type Doing, type Kind } from './kinds.ts';
import type { ItemRecord, Queue, Taken } from './queue.ts';

const ME = `${hostname()} ${process.pid}`;
const TRIES = 3; // of an item that fails, each on whatever worker takes it
const DEATHS = 20; // of workers that took an item and were never heard of again
const AGAIN_MS = 2000; // before a failed item is given to another
const LOOK_MS = 30_000; // between two looks for items of other versions

/** A job that this worker has opened. */
interface Opened {
  settings: string;
  job: string;
  kind: Kind;
  doing: Doing<unknown>;
}

type Item = Taken & { record: ItemRecord };

export class Labour {
  private readonly queue: Queue;
  private readonly device: Device;
  private readonly signal: AbortSignal;
  private readonly scratch = mkdtempSync(join(tmpdir(), 'vpae-worker-'));
  private opened: Opened | undefined;
  private looked = -LOOK_MS;
  private readonly told = new Set<string>();
  /** Items done. */
  count = 0;

  constructor(queue: Queue, device: Device, signal: AbortSignal) {
    [this.queue, this.device, this.signal] = [queue, device, signal];
  }

  /** Until the signal. */
  async live(): Promise<void> {
    const leave = this.queue.announce({ id: ME, version: VERSION, adapter: this.device.info.name });
    try {
      while (!this.signal.aborted) {
        const first = await this.queue.take(VERSION, 1);
        if (first.length) await this.doAll(first);
        else await this.lookAround();
      }
    } finally {
      leave();
      await this.shut().finally(() => rmSync(this.scratch, { recursive: true, force: true }));
    }
  }

  /** The items, and as many more as this worker should take at once. */
  private async doAll(taken: Taken[]): Promise<void> {
    const all = new Set(taken);
    try {
      const kind = taken[0]!.record && (await kindNamed(taken[0]!.record.kind));
      const workers = Math.max(1, this.queue.workers().filter((w) => w.version === VERSION).length);
      const share = Math.min((kind?.together ?? 1) - 1, Math.ceil(taken[0]!.waiting / (2 * workers)));
      if (share > 0) for (const more of await this.queue.take(VERSION, share)) all.add(more);
      for (const item of all) if (!(await this.isFit(item))) all.delete(item);
      const jobs = new Map<string, Item[]>();
      for (const item of all as Set<Item>) {
        const job = `${item.job} ${item.record.settings}`;
        jobs.set(job, [...(jobs.get(job) ?? []), item]);
      }
      for (const items of jobs.values()) await this.doThese(items, all);
    } finally {
      for (const item of all) item.back(); // another may take them at once
    }
  }

  /** Whether an item is one that can be done at all; one that cannot is over with. */
  private async isFit(item: Taken): Promise<boolean> {
    const { record, attempt } = item;
    const kind = record && record.version === VERSION ? await kindNamed(record.kind) : undefined;
    if (kind && attempt <= DEATHS) return true;
    const why = kind ? `${DEATHS} workers have ended while they were at it` : 'it is no item of this version';
    console.error(printable(`item ${item.id}: ${why}`));
    await this.fail(item, why);
    return false;
  }

  /** Items of one job. Each that is over with leaves `all`. */
  private async doThese(items: readonly Item[], all: Set<Taken>): Promise<void> {
    const start = performance.now();
    const left = new Set(items);
    const over = async (item: Item): Promise<void> => {
      await item.done();
      left.delete(item);
      all.delete(item);
    };
    try {
      const { kind, doing } = await this.open(items[0]!);
      const work = items.map((i) => kind.check(i.record.item));
      let before = start;
      await doing.spread(work, async (at, result) => {
        const item = items[at]!;
        const now = performance.now();
        const seconds = (now - before) / 1000;
        before = now;
        const blob = await this.queue.storeBytes(item.job, result);
        const first = await this.queue.finish(item.job, item.id, { blob, seconds, by: ME });
        await over(item);
        this.count++;
        console.log(`${item.record.kind} ${item.id}: ${seconds.toFixed(1)} s${first ? '' : ', done by another too'}`);
        this.signal.throwIfAborted();
      });
    } catch (error) {
      await this.shut();
      if (this.signal.aborted || this.device.lost) throw error;
      const message = oneLine((error as Error).message);
      console.error(`${items[0]!.record.kind}: ${message}`);
      if (items.length > 1) {
        for (const item of left) await this.doThese([item], all); // one of them is to blame
        return;
      }
      const [cause] = left;
      if (!cause) return;
      if (!(error instanceof Forsaken) && cause.attempt >= TRIES) {
        await this.fail(cause, message);
        await over(cause);
      } else {
        cause.back(AGAIN_MS);
        all.delete(cause);
      }
    }
  }

  private async fail(item: Taken, why: string): Promise<void> {
    if (item.record) await this.queue.finish(item.job, item.id, { failed: why.slice(0, 4000), by: ME });
    await item.done();
  }

  /** What a job's items are done with; the last job's stays open. */
  private async open({ job, record }: Item): Promise<Opened> {
    if (this.opened?.job === job && this.opened.settings === record.settings) return this.opened;
    await this.shut();
    const kind = (await kindNamed(record.kind))!;
    const { device, signal, scratch } = this;
    const settings: unknown = JSON.parse(new TextDecoder().decode(await this.queue.bytes(job, record.settings)));
    const inputs = new Inputs(this.queue, job, signal);
    this.opened = {
      job,
      settings: record.settings,
      kind,
      doing: await kind.open(settings, { device, signal, inputs, scratch }),
    };
    return this.opened;
  }

  private async shut(): Promise<void> {
    const { opened } = this;
    this.opened = undefined;
    await opened?.doing.close();
  }

  /** Says, once, of what versions items wait that nobody like this one may take. */
  private async lookAround(): Promise<void> {
    if (performance.now() - this.looked < LOOK_MS) return;
    this.looked = performance.now();
    for (const found of await this.queue.versions())
      if (!this.queue.isOf(VERSION, found) && this.told.size < this.told.add(found).size)
        console.error(
          printable(
            `items of vpae ${found.replaceAll('_', '.')} wait here; this is ${VERSION}: install that version to take them`,
          ),
        );
  }
}

/**
 * A work queue on JetStream. Items wait in one stream, from which a taken one is leased and gone once it is acknowledged; results are told
 * in another, once an item; bytes of any length lie in a bucket a job, named by their hash. Nobody trusts what comes out of any of them.
 */
import { createHash } from 'node:crypto';
import { setTimeout as wait } from 'node:timers/promises';
import type { Consumer, JsMsg, StreamConfig } from '@nats-io/jetstream';
import type { ObjectStore } from '@nats-io/obj';
import { z } from 'zod';
import { Draft } from '../../engine/host/draft.ts';
import { sha256 } from '../../train/data/seal.ts';
import { connect, type Nats } from './nats.ts';

export const HASH = /^[0-9a-f]{64}$/;
const ID = /^[0-9a-f]{16}$/;
const LEASE_MS = 15_000; // without a word of its worker an item goes to another
const HERE_MS = 4000; // between two words of a worker
const PATIENCE_MS = 60_000; // with a server that is being started anew
const RETRY_MS = 500;
const MOST_LEASED = 10_000;
const CHUNK = 512 * 1024; // bytes of an object's message
const AT_ONCE = 64; // messages under way

type Stream = Partial<StreamConfig> & { name: string };
const ITEMS: Stream = { name: 'VPAE_ITEMS', subjects: ['vpae.items.>'], retention: 'workqueue', storage: 'file' };
const DONE: Stream = { name: 'VPAE_DONE', subjects: ['vpae.done.>'], storage: 'file', allow_direct: true };
const HERE = 'vpae.here';

const itemSchema = z.strictObject({
  version: z.string().max(100),
  kind: z.string().max(100),
  /** Hash of the settings, which lie in the job's bucket. */
  settings: z.string().regex(HASH),
  item: z.unknown(),
});
export type ItemRecord = z.infer<typeof itemSchema>;

const resultSchema = z.union([
  z.strictObject({ blob: z.string().regex(HASH), seconds: z.number(), by: z.string().max(300) }),
  z.strictObject({ failed: z.string().max(4000), by: z.string().max(300) }),
]);
type ResultRecord = z.infer<typeof resultSchema>;

const hereSchema = z.strictObject({
  id: z.string().max(300),
  version: z.string().max(100),
  adapter: z.string().max(300),
});
/** What a worker says of itself every few seconds. */
export type Here = z.infer<typeof hereSchema>;

/** An item that this process has leased. */
export interface Taken {
  readonly job: string;
  readonly id: string;
  /** Undefined where the message is no item of ours. */
  readonly record: ItemRecord | undefined;
  /** How often it was taken, with this time. */
  readonly attempt: number;
  /** Items that nobody has taken yet. */
  readonly waiting: number;
  /** It is over with; nobody gets it again. */
  done(): Promise<void>;
  /** Another may take it. */
  back(afterMs?: number): void;
}

/** In JetStream's subjects a dot parts words. */
const word = (version: string): string => version.replace(/[^\w-]/g, '_');

const WRONG_SEQUENCE = 10071; // somebody has written there before
const codeOf = (error: unknown): unknown => (error as { code?: unknown }).code;
/** Answers of a server that works. */
const FINAL = [WRONG_SEQUENCE, 10003, 10014, 10037, 10059];

export class Queue {
  readonly server: string;
  private readonly nats: Nats;
  private readonly buckets = new Map<string, Promise<ObjectStore>>();
  private readonly consumers = new Map<string, Promise<Consumer>>();
  private readonly others = new Map<string, Here & { at: number }>();

  private constructor(nats: Nats) {
    this.nats = nats;
    this.server = nats.server;
  }

  /** @throws one line, as `connect` does */
  static async open(address: string): Promise<Queue> {
    const nats = await connect(address);
    const queue = new Queue(nats);
    try {
      for (const stream of [ITEMS, DONE]) await nats.manager.streams.add(stream);
    } catch (error) {
      await nats.connection.close();
      throw new Error(`[queue] ${nats.server} does not let us keep a queue: ${(error as Error).message}`, {
        cause: error,
      });
    }
    nats.connection.subscribe(HERE, {
      callback: (error, message) => {
        const here = error ? undefined : hereSchema.safeParse(jsonOf(message.data));
        if (here?.success) queue.others.set(here.data.id, { ...here.data, at: Date.now() });
      },
    });
    return queue;
  }

  /** Makes a job's bucket, before anything of it is put. */
  async begin(job: string): Promise<void> {
    const made = this.steady(() => this.nats.bucket(`vpae-${job}`, 'create'));
    this.buckets.set(job, made);
    await made;
  }

  /** Puts items that are not there already. */
  async put(job: string, items: ReadonlyMap<string, ItemRecord>): Promise<void> {
    const left = [...items];
    await Promise.all(
      Array.from({ length: AT_ONCE }, async () => {
        for (let next = left.shift(); next; next = left.shift()) {
          const [id, record] = next;
          await this.once(`vpae.items.${word(record.version)}.${job}.${id}`, record);
        }
      }),
    );
  }

  /** Waits a moment for items of this version and leases them, up to `most`. Nothing where there are none, or the server is gone. */
  async take(version: string, most: number): Promise<Taken[]> {
    const taken: Taken[] = [];
    try {
      const consumer = await this.consumer(version);
      for await (const message of await consumer.fetch({ max_messages: most, expires: most > 1 ? 1000 : 2000 }))
        taken.push(this.lease(message));
    } catch {
      this.consumers.clear();
      if (!taken.length) await wait(RETRY_MS);
    }
    return taken;
  }

  /** Tells a result, unless one was told. @returns whether it is this one */
  finish(job: string, id: string, result: ResultRecord): Promise<boolean> {
    return this.once(`vpae.done.${job}.${id}`, result);
  }

  /** The next result of a job from a place in the stream of results on, if there is one yet. */
  async result(job: string, from: number): Promise<{ id: string; result: ResultRecord; at: number } | undefined> {
    for (let seq = from; ;) {
      const found = await this.steady(() =>
        this.nats.manager.direct.getMessage(DONE.name, { seq, next_by_subj: `vpae.done.${job}.>` }),
      );
      if (!found) return undefined;
      const result = resultSchema.safeParse(jsonOf(found.data));
      const id = found.subject.split('.').at(-1)!;
      if (result.success && ID.test(id)) return { id, result: result.data, at: found.seq };
      seq = found.seq + 1;
    }
  }

  /** A result that was told is forgotten: what it tells of is not there. */
  async forget(job: string, id: string): Promise<void> {
    await this.steady(() => this.nats.manager.streams.purge(DONE.name, { filter: `vpae.done.${job}.${id}` }));
  }

  /** Items that nobody has begun are taken back, and what the job has left is cleared away. */
  async withdraw(job: string, version: string): Promise<void> {
    const { streams } = this.nats.manager;
    const bucket = await this.bucket(job);
    await this.steady(() => streams.purge(ITEMS.name, { filter: `vpae.items.${word(version)}.${job}.>` }));
    await this.steady(() => streams.purge(DONE.name, { filter: `vpae.done.${job}.>` }));
    await this.steady(() => bucket.destroy()).catch(() => {}); // gone already
    this.buckets.delete(job);
  }

  /** Whether a job's bucket holds bytes of this hash. */
  async has(job: string, hash: string): Promise<boolean> {
    const bucket = await this.bucket(job);
    return this.steady(async () => {
      const info = await bucket.info(hash);
      return info !== null && !info.deleted;
    });
  }

  /** Stores bytes under their hash, once. @param chunks opened anew where the server was lost on the way */
  async store(job: string, hash: string, chunks: () => ReadableStream<Uint8Array>): Promise<void> {
    if (await this.has(job, hash)) return;
    const bucket = await this.bucket(job);
    await this.steady(() => bucket.put({ name: hash, options: { max_chunk_size: CHUNK } }, chunks()));
  }

  async storeBytes(job: string, bytes: Uint8Array): Promise<string> {
    const hash = sha256(bytes);
    await this.store(job, hash, () => new Blob([bytes as Uint8Array<ArrayBuffer>]).stream());
    return hash;
  }

  /** The bytes of a hash. @throws where they are not there, or others */
  async bytes(job: string, hash: string): Promise<Uint8Array> {
    const bucket = await this.bucket(job);
    const found = await this.steady(() => bucket.getBlob(hash));
    if (!found || sha256(found) !== hash)
      throw new Error(`[queue] the object ${hash.slice(0, 16)} is missing or damaged`);
    return found;
  }

  /** The same, into a file that comes to stand whole or not at all. @throws likewise */
  async fetch(job: string, hash: string, path: string): Promise<void> {
    const bucket = await this.bucket(job);
    await this.steady(async () => {
      const found = await bucket.get(hash);
      const draft = new Draft(path);
      try {
        const sum = createHash('sha256');
        for await (const chunk of found?.data ?? []) {
          sum.update(chunk);
          draft.write(chunk);
        }
        const error = await found?.error;
        if (error) throw error;
        if (sum.digest('hex') !== hash)
          throw new Error(`[queue] the object ${hash.slice(0, 16)} is missing or damaged`);
        draft.keep();
      } catch (error) {
        draft.drop();
        throw error;
      }
    });
  }

  /** Bytes that were taken out need not stay. */
  async drop(job: string, hash: string): Promise<void> {
    const bucket = await this.bucket(job);
    await this.steady(() => bucket.delete(hash)).catch(() => {}); // a restarted server may have done it
  }

  /** Answers those who need a file of a job: `give` puts it into the bucket. */
  answer(job: string, give: (hash: string) => void): void {
    this.nats.connection.subscribe(`vpae.give.${job}`, {
      callback: (error, message) => {
        if (error) return;
        const hash = message.string();
        if (HASH.test(hash)) give(hash);
        message.respond();
      },
    });
  }

  /** Asks for a file of a job. @returns whether anybody is there to bring it */
  async ask(job: string, hash: string): Promise<boolean> {
    return this.nats.connection.request(`vpae.give.${job}`, hash, { timeout: 5000 }).then(
      () => true,
      () => false,
    );
  }

  /** Says that a worker is here, until it is told to stop. */
  announce(here: Here): () => void {
    const say = (): void => this.nats.connection.publish(HERE, JSON.stringify(here));
    say();
    const timer = setInterval(say, HERE_MS);
    return () => clearInterval(timer);
  }

  /** Workers that were heard of lately. */
  workers(): Here[] {
    const since = Date.now() - 3 * HERE_MS;
    return [...this.others.values()].filter((w) => w.at > since);
  }

  /** Versions, as words of a subject, whose items wait. */
  async versions(): Promise<string[]> {
    const info = await this.steady(() =>
      this.nats.manager.streams.info(ITEMS.name, { subjects_filter: 'vpae.items.>' }),
    );
    return [...new Set(Object.keys(info.state.subjects ?? {}).map((s) => s.split('.')[2]!))];
  }

  isOf(version: string, found: string): boolean {
    return word(version) === found;
  }

  async close(): Promise<void> {
    await this.nats.connection.close();
  }

  private bucket(job: string): Promise<ObjectStore> {
    const known = this.buckets.get(job) ?? this.steady(() => this.nats.bucket(`vpae-${job}`, 'open'));
    this.buckets.set(job, known);
    return known;
  }

  private consumer(version: string): Promise<Consumer> {
    const name = `workers-${word(version)}`;
    const open = async (): Promise<Consumer> => {
      await this.nats.manager.consumers.add(ITEMS.name, {
        durable_name: name,
        filter_subject: `vpae.items.${word(version)}.>`,
        ack_policy: 'explicit',
        ack_wait: LEASE_MS * 1e6, // ns
        max_ack_pending: MOST_LEASED,
      });
      return this.nats.jetstream.consumers.get(ITEMS.name, name);
    };
    const known = this.consumers.get(name) ?? open();
    this.consumers.set(name, known);
    return known;
  }

  /** The lease is kept up until `done` or `back`. */
  private lease(message: JsMsg): Taken {
    const timer = setInterval(() => message.working(), LEASE_MS / 4);
    const [, , , job = '', id = ''] = message.subject.split('.');
    const record = itemSchema.safeParse(jsonOf(message.data));
    return {
      job,
      id,
      record: record.success && ID.test(job) && ID.test(id) ? record.data : undefined,
      attempt: message.info.deliveryCount,
      waiting: message.info.pending,
      done: async () => {
        clearInterval(timer);
        await message.ackAck().catch(() => {}); // it comes once more, and its result is there
      },
      back: (afterMs) => {
        clearInterval(timer);
        message.nak(afterMs);
      },
    };
  }

  /** @returns false where something stands there already */
  private once(subject: string, record: object): Promise<boolean> {
    const publish = async (): Promise<boolean> => {
      await this.nats.jetstream.publish(subject, JSON.stringify(record), { expect: { lastSubjectSequence: 0 } });
      return true;
    };
    return this.steady(publish).catch((error: unknown) => {
      if (codeOf(error) === WRONG_SEQUENCE) return false;
      throw error;
    });
  }

  /** A call that may find the server gone: it is made again until there is one, for a while. */
  private async steady<T>(call: () => Promise<T>): Promise<T> {
    const until = Date.now() + PATIENCE_MS;
    for (;;) {
      try {
        return await call();
      } catch (error) {
        if (FINAL.includes(codeOf(error) as number) || (error as Error).message.startsWith('[')) throw error;
        if (Date.now() > until)
          throw new Error(`[queue] ${this.server} does not answer any more: ${(error as Error).message}`, {
            cause: error,
          });
        await wait(RETRY_MS);
      }
    }
  }
}

function jsonOf(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return undefined;
  }
}

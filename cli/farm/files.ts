/** Files that items are made from, named by the hash of their bytes: opened where a worker has them, else brought by the queue. */
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  createReadStream,
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  statSync,
  symlinkSync,
} from 'node:fs';
import { dirname, extname, join, resolve } from 'node:path';
import { Readable } from 'node:stream';
import { setTimeout as wait } from 'node:timers/promises';
import { z } from 'zod';
import { cacheDir } from '../../engine/host/runtime.ts';
import { hashOf } from '../../train/loop/run.ts';
import { HASH, type Queue } from './queue.ts';

/** Below a folder, in whatever system: no way leads out of it. */
const isInside = (name: string): boolean =>
  name.length <= 1000 &&
  name.split('/').every((part) => /^[^\\/:*?"<>|\p{C}]+$/u.test(part) && !/^\.+$|[. ]$/.test(part));

const bytesOf = { bytes: z.int().nonnegative(), sha256: z.string().regex(HASH) };
const path = z.string().min(1).max(4096);
export const fileSchema = z.strictObject({ path, ...bytesOf });
export const folderSchema = z.strictObject({
  path,
  files: z.array(z.strictObject({ name: z.string().refine(isInside), ...bytesOf })).max(10_000),
});
/** A file as the command has it. */
type FileRef = z.infer<typeof fileSchema>;
export type FolderRef = z.infer<typeof folderSchema>;

const hashes = new Map<string, Promise<string>>();

/** SHA-256 of a file's bytes, read once in this process as long as it is not written to. */
function hashFile(file: string): Promise<string> {
  const { size, mtimeMs } = statSync(file);
  const key = `${resolve(file)} ${size} ${mtimeMs}`;
  const read = async (): Promise<string> => {
    const sum = createHash('sha256');
    for await (const chunk of createReadStream(file)) sum.update(chunk as Uint8Array);
    return sum.digest('hex');
  };
  const known = hashes.get(key) ?? read();
  hashes.set(key, known);
  return known;
}

/** What a command gives to workers; kept by hash, for those who ask. */
export class Offered {
  private readonly files = new Map<string, string>();

  async file(name: string): Promise<FileRef> {
    const sha256 = await hashFile(name);
    this.files.set(sha256, name);
    return { path: resolve(name), bytes: statSync(name).size, sha256 };
  }

  /** @param names of the files in it, all unless given */
  async folder(name: string, names = filesBelow(name)): Promise<FolderRef> {
    const files = [];
    for (const each of names) {
      const { bytes, sha256 } = await this.file(join(name, each));
      files.push({ name: each, bytes, sha256 });
    }
    return { path: resolve(name), files };
  }

  /** The bytes of a hash, if they were offered. */
  open(hash: string): (() => ReadableStream<Uint8Array>) | undefined {
    const file = this.files.get(hash);
    return file === undefined ? undefined : () => Readable.toWeb(createReadStream(file)) as ReadableStream<Uint8Array>;
  }
}

/** Files of a folder and those in it, hidden ones left out. */
function filesBelow(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true })
    .filter((entry) => !entry.name.startsWith('.'))
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .flatMap((entry) => {
      const below = join(folder, entry.name);
      return statSync(below).isDirectory() ? filesBelow(below).map((name) => `${entry.name}/${name}`) : [entry.name];
    });
}

/** The command that waits for an item is gone, and with it what the item is made from. */
export class Forsaken extends Error {}

/** What a worker opens for a job. */
export class Inputs {
  private readonly queue: Queue;
  private readonly job: string;
  private readonly signal: AbortSignal;

  constructor(queue: Queue, job: string, signal: AbortSignal) {
    [this.queue, this.job, this.signal] = [queue, job, signal];
  }

  /**
   * A path of this machine with a file's bytes. One under the file's own path is taken only if its bytes are those: nobody learns by the
   * queue what else lies here.
   */
  async file(ref: FileRef): Promise<string> {
    return (await isSame(ref.path, ref)) ? ref.path : this.fetched(ref, extname(ref.path));
  }

  /** A folder of this machine with the same files under the same names. */
  async folder(ref: FolderRef): Promise<string> {
    const same = await Promise.all(ref.files.map((f) => isSame(join(ref.path, f.name), f)));
    if (same.every(Boolean)) return ref.path;
    const folder = cacheDir('farm', 'folders', hashOf(ref.files));
    for (const [i, { name, ...bytes }] of ref.files.entries()) {
      const place = join(folder, name);
      if (existsSync(place)) continue;
      mkdirSync(dirname(place), { recursive: true });
      link(same[i] ? join(ref.path, name) : await this.fetched(bytes, extname(name)), place);
    }
    return folder;
  }

  private async fetched({ bytes, sha256 }: Omit<FileRef, 'path'>, ending: string): Promise<string> {
    const file = cacheDir('farm', 'files', `${sha256}${/^\.\w{1,16}$/.test(ending) ? ending : ''}`);
    if (statSync(file, { throwIfNoEntry: false })?.size === bytes) return file;
    while (!(await this.queue.has(this.job, sha256))) {
      this.signal.throwIfAborted();
      if (!(await this.queue.ask(this.job, sha256)))
        throw new Forsaken('the command that it is for does not answer any more');
      await wait(200);
    }
    mkdirSync(dirname(file), { recursive: true });
    await this.queue.fetch(this.job, sha256, file);
    return file;
  }
}

async function isSame(file: string, { bytes, sha256 }: Omit<FileRef, 'path'>): Promise<boolean> {
  try {
    const stat = statSync(file);
    return stat.isFile() && stat.size === bytes && (await hashFile(file)) === sha256;
  } catch {
    return false;
  }
}

/** The same file in another place, without its bytes where the system can. */
function link(from: string, to: string): void {
  for (const way of [linkSync, symlinkSync]) {
    try {
      return way(resolve(from), to);
    } catch {
      if (existsSync(to)) return;
    }
  }
  copyFileSync(from, to);
}

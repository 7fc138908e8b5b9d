/**
 * Lock files: one process at a time, and none is kept out by one that is gone.
 *
 * A lock is a filled file linked to its place, so that nobody ever sees half of one and the link is the test and the set. A dead owner's
 * lock is not moved away, for another may have replaced it meanwhile: it is inherited. Whoever links the file named after that lock's
 * content is its one heir, and replaces it; an heir that dies first has an heir in turn.
 */
import { createHash, randomBytes } from 'node:crypto';
import { constants, copyFileSync, linkSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { disown, isRunning, partOf, startOf } from '../../engine/host/draft.ts';
import { readText } from '../../engine/host/plain.ts';

interface Owner {
  pid: number;
  host: string;
  /** When the process began, where its system tells: numbers come round again. */
  start?: string | undefined;
}

const MOST = 4096; // bytes of a lock
const FILLED_MS = 2000; // a lock that cannot be read may be of a file system without links, and being filled
const UNLINKED = ['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS'];

/** What this process has written into the locks that it holds, by path. */
const held = new Map<string, string>();

/** A lock's text; nothing where there is none. @throws when something else stands there */
function textOf(path: string): string | undefined {
  try {
    return readText(path, MOST);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new Error(`[lock] ${path} ${(error as Error).message}: remove it`, { cause: error });
  }
}

function parse(text: string | undefined): Owner | undefined {
  try {
    const { pid, host, start } = JSON.parse(text ?? '') as Partial<Owner>;
    if (!Number.isSafeInteger(pid) || pid! <= 0 || typeof host !== 'string') return undefined;
    return { pid: pid!, host, start: typeof start === 'string' ? start : undefined };
  } catch {
    return undefined;
  }
}

/** Who wrote a lock; nobody where there is none, or none that can be read. */
export function ownerOf(path: string): Owner | undefined {
  try {
    return parse(textOf(path));
  } catch {
    return undefined;
  }
}

/** Whether a process still runs: one on another host is taken at its word. */
export const isThere = ({ pid, host, start }: Owner): boolean => host !== hostname() || isRunning(pid, start);

/** Makes `to` the same file as `from`, unless there is one. @returns whether it did */
function link(from: string, to: string): boolean {
  try {
    linkSync(from, to);
    return true;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EEXIST') return false;
    if (!UNLINKED.includes(code ?? '')) throw error;
  }
  try {
    copyFileSync(from, to, constants.COPYFILE_EXCL);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}

const heirOf = (path: string, text: string): string =>
  `${path}.${createHash('sha256').update(text).digest('hex').slice(0, 16)}.heir`;

/** One that cannot be read, and may be under way. */
const isFresh = (path: string): boolean =>
  Date.now() - (statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0) < FILLED_MS;

const pause = (ms: number): unknown => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);

/**
 * Takes a lock, also one left by a process that is gone.
 * @returns who has it instead
 * @throws what the file system throws: the folder is missing, or cannot be written
 */
export function takeLock(path: string): Owner | undefined {
  const me: Owner = { pid: process.pid, host: hostname(), start: startOf(process.pid) };
  if (isHeld(path)) return me;
  const text = JSON.stringify({ ...me, key: randomBytes(12).toString('hex') });
  const filled = partOf(`${path}.${randomBytes(4).toString('hex')}`);
  writeFileSync(filled, text, { flag: 'wx' });
  try {
    const owner = inherit(path, filled);
    if (!owner) held.set(resolve(path), text);
    return owner;
  } finally {
    rmSync(filled, { force: true });
    disown(filled);
  }
}

function inherit(path: string, filled: string): Owner | undefined {
  for (let [at, root]: [string, string | undefined] = [path, undefined]; ;) {
    const found = textOf(at);
    if (found !== undefined) {
      const owner = parse(found);
      const isMine = owner?.pid === process.pid && owner.host === hostname(); // or rather an earlier process's of this number
      if (owner && !isMine && isThere(owner)) return owner;
      if (!owner && isFresh(at)) {
        pause(50);
        continue;
      }
      root ??= found;
      at = heirOf(path, found);
    } else if (link(filled, at)) {
      if (at === path) return undefined;
      // The one heir, unless the inheritance was over before: then the lock is another by now.
      if (textOf(path) === root) {
        renameSync(filled, path);
        clearHeirs(path);
        return undefined;
      }
      rmSync(at, { force: true });
      [at, root] = [path, undefined];
    }
  }
}

/** By the owner alone, whom nobody inherits from while it lives. */
function clearHeirs(path: string): void {
  for (const name of readdirSync(dirname(path)))
    if (name.startsWith(`${basename(path)}.`) && name.endsWith('.heir'))
      rmSync(join(dirname(path), name), { force: true });
}

/** Whether this process has the lock, and it still stands. */
export function isHeld(path: string): boolean {
  const text = held.get(resolve(path));
  try {
    return text !== undefined && textOf(path) === text;
  } catch {
    return false;
  }
}

/** Gives a lock back; one that is another's by now stays. */
export function releaseLock(path: string): void {
  if (isHeld(path)) rmSync(path, { force: true });
  held.delete(resolve(path));
}

/** Lock files: one process at a time, and none is kept out by one that is gone. */
import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';

export interface Owner {
  pid: number;
  host: string;
}

const same = (a: Owner, b: Owner): boolean => a.pid === b.pid && a.host === b.host;
const me = (): Owner => ({ pid: process.pid, host: hostname() });

/** Who wrote a lock; nobody where there is none, or none that can be read. */
export function ownerOf(path: string): Owner | undefined {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as Owner;
  } catch {
    return undefined;
  }
}

/** Whether a process still runs: one on another host is taken at its word. */
export function isThere({ pid, host }: Owner): boolean {
  if (host !== hostname()) return true;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/**
 * Takes a lock, also one left by a process that is gone.
 * @returns who has it instead
 * @throws what the file system throws: the folder is missing, or cannot be written
 */
export function takeLock(path: string): Owner | undefined {
  for (;;) {
    try {
      writeFileSync(path, JSON.stringify(me()), { flag: 'wx' });
      return undefined;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
    const owner = ownerOf(path);
    if (owner && isThere(owner) && !same(owner, me())) return owner;
    clearAway(path, owner);
  }
}

/** Of several that find the same old lock, one moves it away; a new one that stands there by now goes back. */
function clearAway(path: string, old: Owner | undefined): void {
  const aside = `${path}.${process.pid}.old`;
  try {
    renameSync(path, aside);
  } catch {
    return; // another one was first
  }
  const found = ownerOf(aside);
  if (found && !(old && same(found, old))) renameSync(aside, path);
  else rmSync(aside);
}

export const releaseLock = (path: string): void => rmSync(path, { force: true });

/** Files that come to stand whole or not at all, and what killed writers of such have left. */
import { createHash } from 'node:crypto';
import {
  closeSync,
  fsyncSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { hostname } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import process from 'node:process';

const LARGEST_WRITE = 2 ** 30; // bytes; some systems take no more at once
const DAY_MS = 86_400_000;

const EXITING = 4; // the kernel's PF_EXITING

/** What Linux tells of a process: whether it is over, and when it began, in ticks since the system did. Nothing elsewhere, or of none. */
function told(pid: number): { isOver: boolean; start: string } | undefined {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
      .replace(/^.*\) /s, '')
      .split(' '); // from the third on
    return { isOver: /[ZX]/.test(fields[0]!) || (Number(fields[6]) & EXITING) !== 0, start: fields[19]! };
  } catch {
    return undefined;
  }
}

/** When a process began, where the system tells: that tells it from a later one of the same number. */
export const startOf = (pid: number): string | undefined => told(pid)?.start;

/**
 * Whether a process of this machine still runs. One that has ended does not, though its parent may not have asked.
 * @param start by `startOf`
 */
export function isRunning(pid: number, start?: string): boolean {
  try {
    process.kill(pid, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') return false;
  }
  const now = told(pid);
  return !now || (!now.isOver && (start === undefined || start === now.start));
}

const HOST = createHash('sha256').update(hostname()).digest('hex').slice(0, 6);
const PART = /\.(\d+)(?:\.([0-9a-f]{6}))?\.part$/;

/** Parts that this process is writing: gone when it leaves in the middle of one. */
const own = new Set<string>();
const swept = new Set<string>();
process.on('exit', () => own.forEach((part) => rmSync(part, { force: true })));

/**
 * A name beside `path` for what is to be moved there, this process's own until `disown`. Clears the folder once of what the dead have left.
 */
export function partOf(path: string): string {
  const folder = resolve(dirname(path));
  if (!swept.has(folder)) sweepParts(folder);
  swept.add(folder);
  const part = `${path}.${process.pid}.${HOST}.part`;
  own.add(resolve(part));
  return part;
}

/** It was moved to its place, or removed. */
export const disown = (part: string): void => void own.delete(resolve(part));

/** Removes parts whose writers are gone; whether one on another machine is, only a day without a write tells. */
export function sweepParts(folder: string): void {
  let names: string[];
  try {
    names = readdirSync(folder).filter((name) => PART.test(name));
  } catch {
    return; // there is no such folder yet
  }
  for (const path of names.map((name) => resolve(join(folder, name)))) {
    const [, pid, host = HOST] = PART.exec(path)!;
    const age = Date.now() - (statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0);
    const alive = host !== HOST ? age < DAY_MS : Number(pid) === process.pid ? own.has(path) : isRunning(Number(pid));
    if (!alive) rmSync(path, { force: true });
  }
}

/** Filled beside its place, flushed to the disk, and renamed there. Until then what stood there stands. */
export class Draft {
  private readonly path: string;
  private readonly temporary: string;
  private readonly file: number;
  private isOpen = true;

  constructor(path: string) {
    [this.path, this.temporary] = [path, partOf(path)];
    this.file = openSync(this.temporary, 'w');
  }

  /** Behind what was written before. */
  write(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length;)
      at += writeSync(this.file, bytes, at, Math.min(LARGEST_WRITE, bytes.length - at));
  }

  /** It takes its place. */
  keep(): void {
    fsyncSync(this.file);
    this.close();
    renameSync(this.temporary, this.path);
    disown(this.temporary);
  }

  /** Nothing of it stays. */
  drop(): void {
    this.close();
    rmSync(this.temporary, { force: true });
    disown(this.temporary);
  }

  private close(): void {
    if (this.isOpen) closeSync(this.file);
    this.isOpen = false;
  }
}

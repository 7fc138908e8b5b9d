/**
 * The folder of one training run: config.json, environment.json, metrics.jsonl (steps, judgements, alarms), checkpoints,
 * samples/*.webp, and a lock that keeps a second process out.
 */
import { createHash } from 'node:crypto';
import { appendFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { sweepParts } from '../../engine/host/draft.ts';
import { canonical } from './canonical.ts';
import { readText, textOr } from '../../engine/host/plain.ts';
import { underNamesBefore, underNamesNow } from '../presets/renamed.ts';
import { quoted } from '../../model/files/json.ts';
import { writeError, writeWhole } from './files.ts';
import { isHeld, isThere, ownerOf, releaseLock, takeLock } from './lock.ts';

export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };

const LOCK = 'run.lock';
const LARGEST_LOG = 2 ** 29; // bytes: a string's limit

/** 16 hex digits that name a configuration or the bytes of a file. */
export const hashOf = (value: unknown): string =>
  createHash('sha256')
    .update(value instanceof Uint8Array ? value : canonical(value))
    .digest('hex')
    .slice(0, 16);

export class RunFolder {
  readonly path: string;
  hash: string;

  private constructor(path: string, hash: string) {
    this.path = path;
    this.hash = hash;
  }

  /**
   * Makes or reopens a run's folder and locks it.
   * @param config everything that decides the run's numbers; a folder with another one is refused, but for more steps of its job
   * @throws one line: not writable, in use, or made with other settings
   */
  static async open(path: string, config: Json, environment: Json): Promise<RunFolder> {
    try {
      await mkdir(path, { recursive: true });
      lock(path);
    } catch (error) {
      if (!(error as NodeJS.ErrnoException).code) throw error;
      throw writeError('run', path, error);
    }
    const folder = new RunFolder(path, hashOf(config));
    try {
      for (const each of [path, join(path, 'samples')]) sweepParts(each);
      const before = savedConfig(join(path, 'config.json'));
      if (before === undefined) writeWhole(join(path, 'config.json'), JSON.stringify(config, null, 1));
      else {
        const { began, ...was } = before;
        const now = underNamesNow(was);
        const begun = asBegun(now, config);
        refuseOther(path, now, JSON.parse(JSON.stringify(begun)));
        // Its checkpoints carry the hash of the settings, under the names, that it began with.
        folder.hash = began ?? hashOf(canonical(now) === canonical(was) ? begun : underNamesBefore(begun as object));
        if (begun !== config)
          writeWhole(join(path, 'config.json'), JSON.stringify({ ...(config as object), began: folder.hash }, null, 1));
      }
      writeWhole(join(path, 'environment.json'), JSON.stringify(environment, null, 1));
    } catch (error) {
      folder.close();
      throw error;
    }
    return folder;
  }

  /**
   * @throws one line when the folder was removed, or given to another process, since it was opened: nothing may be written there any more
   */
  check(): void {
    if (!isHeld(join(this.path, LOCK)))
      throw new Error(
        `[run] ${this.path} was removed or taken by another process while this one trained: it stops, and writes nothing more there`,
      );
  }

  /** Appends one line to metrics.jsonl. */
  log(record: Record<string, unknown>): void {
    this.check();
    try {
      appendFileSync(join(this.path, 'metrics.jsonl'), `${JSON.stringify(record)}\n`);
    } catch (error) {
      throw writeError('run', join(this.path, 'metrics.jsonl'), error);
    }
  }

  /** Drops the lines of steps that a resumed run will repeat, and a line that a kill cut short. @returns what stays */
  rewind(step: number): LogRecord[] {
    this.check();
    const path = join(this.path, 'metrics.jsonl');
    const text = textOr(path, LARGEST_LOG) ?? '';
    const kept = parseLines(text).filter((record) => record.step < step);
    if (text) writeWhole(path, kept.map((record) => `${JSON.stringify(record)}\n`).join(''));
    return kept;
  }

  close(): void {
    releaseLock(join(this.path, LOCK));
  }
}

/** One line of metrics.jsonl: the numbers of a step, or an alarm that it raised. */
export type LogRecord = { step: number } & Record<string, unknown>;

/** The records of metrics.jsonl; a line that was cut short, or is another's, is left out. */
export function parseLines(text: string): LogRecord[] {
  return text.split('\n').flatMap((line) => {
    try {
      const record = JSON.parse(line) as Partial<LogRecord> | null;
      return Number.isSafeInteger(record?.step) && record!.step! >= 0 ? [record as LogRecord] : [];
    } catch {
      return [];
    }
  });
}

/** The steps' numbers among records; one that is not finite is written as null and left out. */
export const numbersOf = (records: readonly LogRecord[]): ({ step: number } & Record<string, number>)[] =>
  records
    .filter((r) => !('alarm' in r))
    .map((r) => Object.fromEntries(Object.entries(r).filter(([, x]) => typeof x === 'number')) as { step: number });

/** Takes the lock of a folder; one left by a process that is gone is taken over. */
function lock(folder: string): void {
  const path = join(folder, LOCK);
  if (isHeld(path)) throw new Error(`[run] ${folder} is in use by another run of this process`);
  const owner = takeLock(path);
  if (owner)
    throw new Error(
      `[run] ${folder} is in use by process ${owner.pid} on ${owner.host}; wait for it, or choose another folder (if it is gone, remove ${path})`,
    );
}

/** Whether a process is writing to a run's folder: one on another host is taken at its word. */
export function isInUse(folder: string): boolean {
  const owner = ownerOf(join(folder, LOCK));
  return owner !== undefined && isThere(owner);
}

/** Of the run that was there before, if there was one; `began` if it is trained on for longer than it was begun for. */
function savedConfig(path: string): ({ began?: string } & Record<string, unknown>) | undefined {
  try {
    const saved = JSON.parse(readText(path)) as unknown;
    if (typeof saved !== 'object' || !saved || Array.isArray(saved)) throw new Error('it holds no settings');
    return saved as Record<string, unknown>;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new Error(
      `[resume] ${path} is damaged (${(error as Error).message}): put it back from a copy, or choose another folder`,
      { cause: error },
    );
  }
}

/** The first settings in which two configurations differ, in words; nothing where they do not. */
export function differences(was: unknown, now: unknown): string {
  const found: string[] = [];
  const isBranch = (x: unknown): x is Record<string, unknown> =>
    typeof x === 'object' && x !== null && !Array.isArray(x);
  const walk = (a: unknown, b: unknown, at: string): void => {
    if (isBranch(a) && isBranch(b)) {
      for (const k of new Set([...Object.keys(a), ...Object.keys(b)])) walk(a[k], b[k], at ? `${at}.${k}` : k);
    } else if (canonical(a ?? null) !== canonical(b ?? null))
      found.push(`${at.slice(0, 100)} was ${quoted(a)}, now ${quoted(b)}`);
  };
  walk(was, now, '');
  return found.slice(0, 3).join('; ') + (found.length > 3 ? ` and ${found.length - 3} more` : '');
}

/** Jobs whose settings have another name than they. */
const SETTINGS: Record<string, string> = { vae: 'trainVae' };

/** `now` with as many steps of its job as it had when it began, if those were fewer: a finished run may be trained on. */
function asBegun(was: unknown, now: Json): Json {
  const job = (now as { job?: Json }).job;
  if (typeof job !== 'string') return now;
  const settings = now as Record<string, Record<string, Json> | undefined>;
  const key = SETTINGS[job] ?? job;
  const [before, after] = [was as typeof settings, settings].map((config) => config[key]?.['steps']);
  if (typeof before !== 'number' || typeof after !== 'number' || after <= before) return now;
  return { ...(now as Record<string, Json>), [key]: { ...settings[key], steps: before } };
}

/** Throws with the first settings in which two configurations differ. */
function refuseOther(path: string, was: unknown, now: unknown): void {
  const found = differences(was, now);
  if (found)
    throw new Error(`[resume] ${path} holds a run with other settings: ${found}. Use those, or another folder`);
}

/**
 * What a folder of video records holds: an index of clips by shard, and beside each shard's records what they are. The index grows with the
 * videos: a clip that is there stays where it lies, new ones make new shards, and one that is gone is left aside.
 */
import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { writeWhole } from '../loop/files.ts';
import { releaseLock, takeLock } from '../loop/lock.ts';
import { differences, hashOf } from '../loop/run.ts';
import { readSealed, sealed } from './seal.ts';

const VERSION = 2; // of the layout on disk
const WAIT_MS = 20; // for another process that plans

/** Why a video can't become a record, on whatever machine: it is damaged, or too short. All other errors stop the work. */
export class Unusable extends Error {}

export interface Refused {
  file: string;
  why: string;
}
type Keyed = { key: string };

/** What stands beside a shard's records, which lie one after the other in the file of the same name. */
export interface Shard {
  /** Of the settings. */
  made: string;
  /** `sha256` of a record's bytes; those of before there were checksums have none. */
  records: (Keyed & { file: string; caption: string; latent: readonly number[]; bytes: number; sha256?: string })[];
  refused: (Keyed & Refused)[];
}

interface Index {
  version: number;
  /** Of the settings. */
  made: string;
  settings: unknown;
  textLen: number;
  /** Keys of the clips that each shard holds or is to hold. */
  shards: Planned[];
}
interface Planned {
  readonly number: number;
  readonly clips: readonly string[];
}

/** Names a clip: another caption, or a file of another size, is another clip. */
export const keyOf = ({ file, caption, bytes }: { file: string; caption: string; bytes: number }): string =>
  hashOf([file, caption, bytes]);

/** Written last: a shard without it is not made. */
export const shardIndex = (dir: string, s: number): string => join(dir, `shard-${String(s).padStart(5, '0')}.json`);
export const shardData = (dir: string, s: number): string => shardIndex(dir, s).replace(/json$/, 'msgpack');
export const isMade = (dir: string, s: number): boolean => existsSync(shardIndex(dir, s));
export const claimOf = (dir: string, s: number): string => join(dir, 'claims', `${s}.lock`);

const indexFile = (dir: string): string => join(dir, 'index.json');

export function readIndex(dir: string): Index {
  const path = indexFile(dir);
  const refuse = (why: string): Error =>
    new Error(`[videos] ${path} is ${why}: make the data first, or name the folder that holds it`);
  let index: Partial<Index>;
  try {
    index = readSealed(path);
  } catch (error) {
    throw (error as NodeJS.ErrnoException).code === 'ENOENT'
      ? refuse('missing')
      : refuse(`no index of video shards (${(error as Error).message})`);
  }
  if (typeof index.made !== 'string') throw refuse('no index of video shards');
  const strange = Object.keys(index).find((k) => !['version', 'made', 'settings', 'textLen', 'shards'].includes(k));
  if (index.version === VERSION && strange !== undefined)
    throw refuse(`no index of video shards (it has ${JSON.stringify(strange)})`);
  if (index.version === VERSION && Array.isArray(index.shards)) return index as Index;
  throw new Error(`[videos] ${path} was made by another version of this program: make the records anew elsewhere`);
}

/** @throws one line when it is damaged */
export function readShard(dir: string, s: number): Shard {
  const path = shardIndex(dir, s);
  try {
    const shard = readSealed(path) as Partial<Shard>;
    const strange = Object.keys(shard).find((k) => !['made', 'records', 'refused'].includes(k)); // as a damaged seal is
    if (strange !== undefined) throw new Error(`it has ${JSON.stringify(strange)}`);
    if (Array.isArray(shard.records) && Array.isArray(shard.refused)) return shard as Shard;
    throw new Error('it holds no records');
  } catch (error) {
    throw new Error(
      `[videos] ${path} is no index of a shard (${(error as Error).message}): remove this file and make the data again`,
      { cause: error },
    );
  }
}

/** What a set of records is, for a run that is trained on it. */
export const madeOf = ({ made, shards }: Index): string => hashOf([made, shards.flatMap((s) => s.clips)]);

/** Clips that a shard can give: those that it has, once it is made. */
function held(dir: string, { number, clips }: Planned): readonly string[] {
  if (!isMade(dir, number)) return clips;
  const { records, refused } = readShard(dir, number);
  return [...records, ...refused].map((r) => r.key);
}

/**
 * Takes clips into a folder's index, for as long as no other process does.
 * @param settings what decides the records beside files and captions
 * @throws one line when the folder holds records of other settings
 */
export async function planShards(
  dir: string,
  {
    settings,
    textLen,
    keys,
    shardClips,
  }: { settings: unknown; textLen: number; keys: readonly string[]; shardClips: number },
): Promise<Index> {
  mkdirSync(join(dir, 'claims'), { recursive: true });
  const lock = join(dir, 'claims', 'index.lock');
  while (takeLock(lock)) await wait(WAIT_MS);
  try {
    const before = existsSync(indexFile(dir)) ? readIndex(dir) : undefined;
    const made = hashOf(settings);
    if (before && before.made !== made)
      throw new Error(
        `[videos] ${dir} holds records of other settings: ${differences(before.settings, settings)}. Use those, or choose another folder`,
      );
    const wanted = new Set(keys);
    const shards = (before?.shards ?? [])
      .map((s): Planned => ({ number: s.number, clips: held(dir, s).filter((key) => wanted.has(key)) }))
      .filter((s) => s.clips.length > 0 || isMade(dir, s.number)); // what is made stays, for its videos may come back
    const planned = new Set(shards.flatMap((s) => s.clips));
    const fresh = [...wanted].filter((key) => !planned.has(key));
    const taken = readdirSync(dir).map((f) => Number(/^shard-(\d+)\./.exec(f)?.[1] ?? -1));
    let number = Math.max(-1, ...taken, ...(before?.shards ?? []).map((s) => s.number));
    for (let i = 0; i < fresh.length; i += shardClips)
      shards.push({ number: ++number, clips: fresh.slice(i, i + shardClips) });
    const index: Index = { version: VERSION, made, settings, textLen, shards };
    if (JSON.stringify(index) !== JSON.stringify(before)) writeWhole(indexFile(dir), sealed(index));
    return index;
  } finally {
    releaseLock(lock);
  }
}

/**
 * Records and refusals of the clips that the index names, from the shards that are made; and how many records are of videos that are gone.
 */
export function liveOf(dir: string, { shards }: Index): { records: number; refused: Refused[]; aside: number } {
  const made = shards
    .filter((s) => isMade(dir, s.number))
    .map((s) => ({ ...readShard(dir, s.number), clips: s.clips }));
  const count = (live: boolean) =>
    made.reduce((n, { records, clips }) => n + records.filter((r) => clips.includes(r.key) === live).length, 0);
  return {
    records: count(true),
    refused: made.flatMap(({ refused, clips }) => refused.filter((r) => clips.includes(r.key))),
    aside: count(false),
  };
}

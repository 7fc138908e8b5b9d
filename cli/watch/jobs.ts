/** What a run's folder holds, read as it grows: each log from where it was read last, each picture by name. */
import { constants, existsSync, realpathSync } from 'node:fs';
import { lstat, open, readdir, realpath, stat, type FileHandle } from 'node:fs/promises';
import { basename, dirname, join, relative, resolve, sep } from 'node:path';
import { readText } from '../../engine/host/plain.ts';
import { isInUse, numbersOf, parseLines, type LogRecord } from '../../train/loop/run.ts';
import { Curves, type CurveData } from './curves.ts';

const CHUNK = 2 ** 20;
const LONGEST = 2 ** 16; // characters of a log's line: what is longer is none of ours
const ALARMS = 200; // kept, the latest
const DEPTH = 3;
const LOG = 'metrics.jsonl';

/** Opens a file of a run for reading, if it is one, and no link out of the run: whoever wrote the run may not be whoever looks at it. */
export async function openInside(root: string, path: string): Promise<FileHandle | undefined> {
  try {
    const real = await realpath(path);
    if (!real.startsWith(root + sep) || !(await lstat(real)).isFile()) return undefined;
    const flags = constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0) | (constants.O_NONBLOCK ?? 0);
    return await open(real, flags);
  } catch {
    return undefined;
  }
}

/** One training job of a run, by the path of its folder below the run's. */
export interface JobSummary {
  name: string;
  /** Steps done, and in all where the run has said so. */
  step: number;
  steps?: number | undefined;
  running: boolean;
  /** Seconds a step, lately. */
  seconds?: number | undefined;
  alarms: number;
}

export interface JobDetail {
  /** Every step's numbers, and those of the judged ones. */
  curves: CurveData;
  judged: CurveData;
  /** Oldest first. */
  alarms: readonly AlarmLine[];
  /** Steps that have a picture. */
  samples: number[];
}

/** An alarm as logged; words that a line lacks are empty. */
interface AlarmLine {
  alarm: string;
  step: number;
  of: string;
  value: number | null;
  cause: string;
  remedy: string;
}

class Job {
  readonly folder: string;
  readonly name: string;
  private readonly root: string;
  private offset = 0;
  /** Which file was read: a log that is rewritten is another. */
  private file = '';
  private rest = '';
  /** Within a line that is too long to be ours. */
  private skipping = false;
  private decoder = new TextDecoder();
  private curves = new Curves();
  private judged = new Curves();
  private alarms: AlarmLine[] = [];
  private step = 0;
  private seconds: number | undefined;

  constructor(root: string, folder: string, name: string) {
    [this.root, this.folder, this.name] = [root, folder, name];
  }

  /** Reads what was appended; a log that was rewritten (a resumed run drops lines) is read anew. One call at a time. */
  async update(): Promise<void> {
    const file = await openInside(this.root, join(this.folder, LOG));
    if (!file) return;
    try {
      const { ino, birthtimeMs, size } = await file.stat();
      const which = `${ino} ${birthtimeMs}`;
      if (which !== this.file || size < this.offset) this.reset(which);
      const buffer = Buffer.alloc(Math.min(CHUNK, size - this.offset));
      while (this.offset < size) {
        const { bytesRead } = await file.read(buffer, 0, Math.min(buffer.length, size - this.offset), this.offset);
        if (!bytesRead) break;
        this.offset += bytesRead;
        this.append(this.decoder.decode(buffer.subarray(0, bytesRead), { stream: true }));
      }
    } finally {
      await file.close();
    }
  }

  private reset(file: string): void {
    this.file = file;
    [this.offset, this.rest, this.skipping, this.step, this.seconds, this.alarms] = [0, '', false, 0, undefined, []];
    [this.curves, this.judged, this.decoder] = [new Curves(), new Curves(), new TextDecoder()];
  }

  private append(text: string): void {
    const lines = (this.rest + text).split('\n');
    if (this.skipping && lines.length > 1) lines.shift();
    this.skipping &&= lines.length === 1;
    this.rest = this.skipping ? '' : lines.pop()!;
    this.take(parseLines(lines.filter((l) => l.length <= LONGEST).join('\n')));
    if (this.rest.length > LONGEST) [this.rest, this.skipping] = ['', true];
  }

  private take(records: readonly LogRecord[]): void {
    for (const { step, ...numbers } of numbersOf(records)) {
      const { seconds, ...metrics } = numbers as Record<string, number>;
      if ('score' in metrics) this.judged.add(step, metrics);
      else this.curves.add(step, metrics);
      this.step = Math.max(this.step, step + 1);
      if (seconds !== undefined)
        this.seconds = this.seconds === undefined ? seconds : 0.95 * this.seconds + 0.05 * seconds;
    }
    this.alarms = [...this.alarms, ...records.flatMap(alarmOf)].slice(-ALARMS);
  }

  async summary(): Promise<JobSummary> {
    return {
      name: this.name,
      step: this.step,
      steps: await stepsOf(this.root, this.folder),
      running: isInUse(this.folder),
      seconds: this.seconds,
      alarms: this.alarms.length,
    };
  }

  async detail(): Promise<JobDetail> {
    const files = await readdir(join(this.folder, 'samples')).catch((): string[] => []);
    const samples = files
      .flatMap((f) => (/^\d{8}\.webp$/.test(f) ? [Number.parseInt(f, 10)] : []))
      .sort((a, b) => a - b);
    return { curves: this.curves.data(), judged: this.judged.data(), alarms: this.alarms, samples };
  }
}

function alarmOf({ step, ...rest }: LogRecord): AlarmLine[] {
  const word = (name: string): string => (typeof rest[name] === 'string' ? rest[name] : '');
  const value = typeof rest['value'] === 'number' ? rest['value'] : null;
  if (typeof rest['alarm'] !== 'string') return [];
  return [{ alarm: rest['alarm'], step, of: word('of'), value, cause: word('cause'), remedy: word('remedy') }];
}

/** As the loop noted it when it opened the folder. */
async function stepsOf(root: string, folder: string): Promise<number | undefined> {
  const path = join(folder, 'environment.json');
  const file = await openInside(root, path);
  await file?.close();
  try {
    const { steps } = JSON.parse(file ? readText(path) : '{}') as { steps?: unknown };
    return typeof steps === 'number' ? steps : undefined;
  } catch {
    return undefined;
  }
}

/** What the page shows. */
export interface View {
  jobs: JobSummary[];
  shown: string | undefined;
  detail: JobDetail | undefined;
}

/** A run's folder, or one job's folder in it. */
export class Jobs {
  readonly root: string;
  private readonly known = new Map<string, Job>();
  /** Of every question before: the logs are read by one at a time. */
  private last: Promise<unknown> = Promise.resolve();
  /** Questions that wait their turn, by what they ask: who asks the same waits with them. */
  private readonly waiting = new Map<string, Promise<View>>();

  /** @throws one line when there is no such folder */
  constructor(run: string) {
    if (!existsSync(run))
      throw new Error(`[watch] there is no folder ${run}: name the run that train or distill writes`);
    this.root = realpathSync(existsSync(join(run, LOG)) ? dirname(resolve(run)) : run);
  }

  /** Everything up to date, as of one moment. @param wanted the job to show; else the one that runs, or the last */
  look(wanted: string): Promise<View> {
    const before = this.waiting.get(wanted);
    if (before) return before;
    const view = this.last.then(() => {
      this.waiting.delete(wanted);
      return this.view(wanted);
    });
    this.waiting.set(wanted, view);
    this.last = view.catch(() => {});
    return view;
  }

  private async view(wanted: string): Promise<View> {
    const jobs = await this.list();
    const shown =
      jobs.find((j) => j.name === wanted)?.name ?? jobs.findLast((j) => j.running)?.name ?? jobs.at(-1)?.name;
    return { jobs, shown, detail: shown === undefined ? undefined : await this.known.get(shown)?.detail() };
  }

  /** Brings everything up to date and lists the jobs, oldest first. */
  private async list(): Promise<JobSummary[]> {
    const found: { folder: string; born: number }[] = [];
    const look = async (dir: string, depth: number): Promise<void> => {
      for (const entry of await readdir(dir, { withFileTypes: true }).catch(() => [])) {
        const folder = join(dir, entry.name);
        if (!entry.isDirectory() || basename(folder).startsWith('.')) continue;
        const begun = await stat(join(folder, 'config.json')).catch(() => undefined);
        if (begun) found.push({ folder, born: begun.birthtimeMs });
        else if (depth > 1) await look(folder, depth - 1);
      }
    };
    await look(this.root, DEPTH);
    found.sort((a, b) => a.born - b.born);
    const jobs = found.map(({ folder }) => {
      const name = relative(this.root, folder);
      const job = this.known.get(name) ?? new Job(this.root, folder, name);
      this.known.set(name, job);
      return job;
    });
    await Promise.all(jobs.map((j) => j.update()));
    return Promise.all(jobs.map((j) => j.summary()));
  }

  /** A job's picture, open for reading, if there is one; for the caller to close. */
  async picture(name: string, step: number): Promise<FileHandle | undefined> {
    const job = this.known.get(name);
    return job && openInside(this.root, join(job.folder, 'samples', `${String(step).padStart(8, '0')}.webp`));
  }
}

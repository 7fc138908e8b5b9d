/** What a run's folder holds, read as it grows: each log from where it was read last, each picture by name. */
import { existsSync, readFileSync } from 'node:fs';
import { open, readdir, stat } from 'node:fs/promises';
import { basename, dirname, join, relative, resolve } from 'node:path';
import { isInUse, numbersOf, parseLines, type LogRecord } from '../../train/loop/run.ts';
import { Curves, type CurveData } from './curves.ts';

const CHUNK = 2 ** 20;
const ALARMS = 200; // kept, the latest
const DEPTH = 3;
const LOG = 'metrics.jsonl';

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
  /** As logged: `alarm` is the kind; oldest first. */
  alarms: readonly LogRecord[];
  /** Steps that have a picture. */
  samples: number[];
}

class Job {
  readonly folder: string;
  readonly name: string;
  private offset = 0;
  private inode = -1;
  private rest = '';
  private decoder = new TextDecoder();
  private curves = new Curves();
  private judged = new Curves();
  private alarms: LogRecord[] = [];
  private step = 0;
  private seconds: number | undefined;

  constructor(folder: string, name: string) {
    this.folder = folder;
    this.name = name;
  }

  /** Reads what was appended; a log that was rewritten (a resumed run drops lines) is read anew. */
  async update(): Promise<void> {
    const file = await open(join(this.folder, LOG)).catch(() => undefined);
    if (!file) return;
    try {
      const { ino, size } = await file.stat();
      if (ino !== this.inode || size < this.offset) this.reset(ino);
      const buffer = Buffer.alloc(Math.min(CHUNK, size - this.offset));
      while (this.offset < size) {
        const { bytesRead } = await file.read(buffer, 0, Math.min(buffer.length, size - this.offset), this.offset);
        if (!bytesRead) break;
        this.offset += bytesRead;
        const lines = (this.rest + this.decoder.decode(buffer.subarray(0, bytesRead), { stream: true })).split('\n');
        this.rest = lines.pop()!;
        this.take(parseLines(lines.join('\n')));
      }
    } finally {
      await file.close();
    }
  }

  private reset(inode: number): void {
    this.inode = inode;
    [this.offset, this.rest, this.step, this.alarms] = [0, '', 0, []];
    [this.curves, this.judged, this.decoder] = [new Curves(), new Curves(), new TextDecoder()];
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
    this.alarms = [...this.alarms, ...records.filter((r) => 'alarm' in r)].slice(-ALARMS);
  }

  async summary(): Promise<JobSummary> {
    return {
      name: this.name,
      step: this.step,
      steps: stepsOf(this.folder),
      running: isInUse(this.folder),
      seconds: this.seconds,
      alarms: this.alarms.length,
    };
  }

  async detail(): Promise<JobDetail> {
    const files = await readdir(join(this.folder, 'samples')).catch(() => []);
    const samples = files
      .flatMap((f) => (/^\d{8}\.webp$/.test(f) ? [Number.parseInt(f, 10)] : []))
      .sort((a, b) => a - b);
    return { curves: this.curves.data(), judged: this.judged.data(), alarms: this.alarms, samples };
  }
}

/** As the loop noted it when it opened the folder. */
function stepsOf(folder: string): number | undefined {
  try {
    return (JSON.parse(readFileSync(join(folder, 'environment.json'), 'utf8')) as { steps?: number }).steps;
  } catch {
    return undefined;
  }
}

/** A run's folder, or one job's folder in it. */
export class Jobs {
  readonly root: string;
  private readonly known = new Map<string, Job>();

  /** @throws one line when there is no such folder */
  constructor(run: string) {
    if (!existsSync(run))
      throw new Error(`[watch] there is no folder ${run}: name the run that train or distill writes`);
    this.root = resolve(existsSync(join(run, LOG)) ? dirname(resolve(run)) : run);
  }

  /** Brings everything up to date and lists the jobs, oldest first. */
  async list(): Promise<JobSummary[]> {
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
      const job = this.known.get(name) ?? new Job(folder, name);
      this.known.set(name, job);
      return job;
    });
    await Promise.all(jobs.map((j) => j.update()));
    return Promise.all(jobs.map((j) => j.summary()));
  }

  /** A job that `list` has told of. */
  detail(name: string): Promise<JobDetail> | undefined {
    return this.known.get(name)?.detail();
  }

  /** Path of a job's picture, if such a job is known. */
  picture(name: string, step: number): string | undefined {
    const job = this.known.get(name);
    return job && join(job.folder, 'samples', `${String(step).padStart(8, '0')}.webp`);
  }
}

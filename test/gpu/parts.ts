/** Parts of a session: programs run one after the other, each within its share of the time that is left, whatever became of the others. */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import process from 'node:process';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

export interface Part {
  name: string;
  /** Of the time that is left to it and to those after it. */
  share: number;
  /** Arguments of Node, told how many seconds it has; or why there is nothing to run. */
  run: ((seconds: number) => readonly string[]) | { not: string };
}

export interface Outcome {
  name: string;
  command?: string;
  ok: boolean;
  /** Why it is not ok. */
  reason?: string;
  seconds: number;
  limit: number;
  /** What it printed as its last line on stdout, where that is JSON. */
  result?: unknown;
  /** The end of all it said. */
  said: string[];
}

/** Of a limit, and at most: in which a part that was told to stop brings things to a good end. */
const GRACE = { share: 0.1, seconds: 10 };
const SAID_LINES = 400;

/** A signal to a part and to all that it has started. */
function signal(child: ChildProcess, name: NodeJS.Signals): void {
  try {
    if (process.platform !== 'win32') process.kill(-child.pid!, name);
    else if (name === 'SIGKILL') spawnSync('taskkill', ['/pid', String(child.pid), '/t', '/f']);
  } catch {
    // it is gone
  }
}

/** The last line, if it is JSON. */
function resultOf(stdout: string): unknown {
  try {
    return JSON.parse(stdout.trim().split('\n').at(-1)!) as unknown;
  } catch {
    return undefined;
  }
}

/** Runs Node in the project's folder for `limit` seconds at most. */
export function runPart(name: string, args: readonly string[], limit: number): Promise<Outcome> {
  const start = performance.now();
  const grace = Math.min(GRACE.seconds, GRACE.share * limit);
  return new Promise((resolve) => {
    let [stdout, said, stopped] = ['', '', false];
    const child = spawn(process.execPath, ['--import', 'tsx', ...args], {
      cwd: ROOT,
      env: { ...process.env, FORCE_COLOR: '0', NO_COLOR: '1' },
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: process.platform !== 'win32', // a group of its own, which signals reach as a whole
    });
    const timers = [
      setTimeout(() => ((stopped = true), signal(child, 'SIGINT')), 1000 * (limit - grace)),
      setTimeout(() => signal(child, 'SIGKILL'), 1000 * limit),
    ];
    child.stdout.on('data', (d: Buffer) => {
      stdout += d.toString();
      said += d.toString();
    });
    child.stderr.on('data', (d: Buffer) => {
      said += d.toString();
    });
    const end = (reason: string | undefined) => {
      timers.forEach(clearTimeout);
      signal(child, 'SIGKILL'); // what it left running
      const result = resultOf(stdout);
      resolve({
        name,
        command: ['node', '--import', 'tsx', ...args].join(' '),
        ok: reason === undefined,
        ...(reason !== undefined && { reason }),
        seconds: (performance.now() - start) / 1000,
        limit,
        ...(result !== undefined && { result }),
        said: said.trimEnd().split('\n').slice(-SAID_LINES),
      });
    };
    child.on('error', (error) => end(error.message));
    child.on('close', (code, by) =>
      end(
        stopped
          ? `stopped after ${Math.round(limit - grace)} s`
          : by
            ? `ended by ${by}`
            : code
              ? `exit code ${code}`
              : undefined,
      ),
    );
  });
}

/**
 * Runs all parts.
 * @param until when all must be done, by `performance.now()`
 * @param done hears of each as soon as it is over
 */
export async function runParts(parts: readonly Part[], until: number, done: (outcome: Outcome) => void): Promise<void> {
  for (const [i, { name, share, run }] of parts.entries()) {
    const later = parts.slice(i).reduce((sum, p) => sum + ('not' in p.run ? 0 : p.share), 0);
    const limit = (Math.max(0, until - performance.now()) / 1000) * (share / later);
    if ('not' in run) done({ name, ok: false, reason: `not run: ${run.not}`, seconds: 0, limit: 0, said: [] });
    else done(await runPart(name, run(limit * (1 - GRACE.share)), limit));
  }
}

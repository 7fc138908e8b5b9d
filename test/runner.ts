/** Runs one test file in a process of its own, and says what came of it and how the process ended. */
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { mib } from '../engine/host/errors.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const tsx = createRequire(import.meta.url).resolve('tsx');
const SAMPLE_MS = 250;

export interface Outcome {
  passed: number;
  failed: number;
  total: number;
  seconds: number;
  /** All that it printed. */
  text: string;
  /** How the process ended where it did not run to its end: `SIGSEGV, peak memory 812.0 MiB`, `exit code 3`. */
  death?: string;
}

/** Peak resident memory in bytes, where the system tells (Linux); undefined elsewhere, and once the process is gone. */
function peakOf(pid: number | undefined): number | undefined {
  try {
    const kib = /VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1];
    return kib === undefined ? undefined : Number(kib) * 1024;
  } catch {
    return undefined;
  }
}

/** Runs a file of uvu's tests; one whose process ends before it has printed its total has failed, whatever its exit code. */
export function runFile(path: string): Promise<Outcome> {
  const from = performance.now();
  return new Promise((done) => {
    let text = '';
    const child = spawn(process.execPath, ['--import', tsx, path], {
      cwd: root,
      env: { ...process.env, FORCE_COLOR: '0', NO_COLOR: '1' },
    });
    const hear = (d: Buffer): void => {
      text += d.toString();
    };
    child.stdout.on('data', hear);
    child.stderr.on('data', hear);
    let peak = peakOf(child.pid);
    const sampling = setInterval(() => {
      peak = peakOf(child.pid) ?? peak;
    }, SAMPLE_MS);
    child.on('close', (code, signal) => {
      clearInterval(sampling);
      const count = (what: string): number => Number(new RegExp(`${what}:\\s+(\\d+)`).exec(text)?.[1] ?? 0);
      const whole = /Total:\s+\d+/.test(text);
      const [total, passed] = [count('Total'), count('Passed')];
      const clean = whole && code === (passed < total ? 1 : 0);
      const how = signal ?? `exit code ${code}`;
      done({
        passed,
        total,
        failed: Math.max(total - passed, clean ? 0 : 1),
        seconds: (performance.now() - from) / 1000,
        text,
        ...(!clean && {
          death: `${how}${whole ? '' : ' before its tests were over'}${peak ? `, peak memory ${mib(peak)}` : ''}`,
        }),
      });
    });
  });
}

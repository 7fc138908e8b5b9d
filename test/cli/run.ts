/** Runs the command line as a person would. */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

export interface Result {
  /** As a shell tells it: 130 after SIGINT. */
  code: number | null;
  stdout: string;
  stderr: string;
  /** stderr without what Dawn's driver and the session say. */ said: string[];
}

/** @param watch gets everything on stderr so far, and may send signals */
export function vpae(
  args: readonly string[],
  env: Record<string, string> = {},
  watch?: (stderr: string, kill: (signal: NodeJS.Signals) => void) => void,
  program = 'cli/main.ts',
): Promise<Result> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, ['--import', 'tsx', program, ...args], {
      cwd: ROOT,
      env: { ...process.env, DEBUG: '', ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let [stdout, stderr] = ['', ''];
    child.stdout.on('data', (d: Buffer) => {
      stdout += d.toString();
    });
    child.stderr.on('data', (d: Buffer) => {
      stderr += d.toString();
      watch?.(stderr, (signal) => child.kill(signal));
    });
    child.on('close', (code, signal) =>
      resolve({
        code: signal === 'SIGINT' ? 130 : code,
        stdout,
        stderr,
        said: stderr.split('\n').filter((l) => l && !/^(Warning: |    at |adapter: |lavapipe: )/.test(l)),
      }),
    );
  });
}

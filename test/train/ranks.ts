/** Runs the command line under mpirun, where Open MPI and koffi are installed. */
import { spawn, spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import * as assert from 'uvu/assert';
import { needing } from '../needs.ts';

export const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/** Why there can be no ranks here; nothing where there can be. */
function noRanks(): string | undefined {
  const { status, stdout } = spawnSync('mpirun', ['--version'], { encoding: 'utf8' });
  if (status !== 0 || !/Open MPI/.test(stdout))
    return 'there is no Open MPI on the PATH (Debian: apt install openmpi-bin): ranks are not tried';
  try {
    createRequire(import.meta.url).resolve('koffi');
    return undefined;
  } catch {
    return 'koffi is not installed: ranks are not tried';
  }
}

/** A test of several ranks; skipped, with the reason, where there are none. */
export const onSeveral = needing(noRanks());

export interface Ended {
  /** As mpirun leaves. */
  code: number | null;
  stdout: string;
  stderr: string;
  /** Lines on stderr, without what Dawn's driver and the launcher say. */
  said: string[];
}

export interface Launch {
  env?: Record<string, string>;
  /** What starts mpirun. */
  through?: readonly string[];
  /** More of mpirun's words. */
  flags?: readonly string[];
  /** Gets everything on stderr so far, and the launcher's process. */
  watch?: (stderr: string, launcher: number) => void;
}

/** A module with its arguments on so many ranks. */
export function onRanks(
  count: number,
  module: readonly string[],
  { env, through = [], flags = [], watch }: Launch = {},
): Promise<Ended> {
  return new Promise((resolve) => {
    const [command, ...words] = [
      ...through,
      'mpirun',
      '-q',
      '--oversubscribe',
      '-n',
      String(count),
      ...flags,
      process.execPath,
      '--import',
      'tsx',
      ...module,
    ];
    const child = spawn(command!, words, {
      cwd: ROOT,
      env: { ...process.env, DEBUG: '', OMPI_ALLOW_RUN_AS_ROOT: '1', OMPI_ALLOW_RUN_AS_ROOT_CONFIRM: '1', ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let [stdout, stderr] = ['', ''];
    child.stdout.on('data', (d: Buffer) => (stdout += d.toString()));
    child.stderr.on('data', (d: Buffer) => {
      stderr += d.toString();
      watch?.(stderr, child.pid!);
    });
    child.on('close', (code) =>
      resolve({ code, stdout, stderr, said: stderr.split('\n').filter((l) => /^vpae: |^alarm/.test(l)) }),
    );
  });
}

/** A module that must end well on so many ranks. @throws with all it said where it does not */
export async function finished(...launch: Parameters<typeof onRanks>): Promise<Ended> {
  const ended = await onRanks(...launch);
  assert.is(ended.code, 0, `${launch[1].join(' ')} on ${launch[0]} ranks: code ${ended.code}\n${ended.stderr}`);
  return ended;
}

/** `vpae ARGS` on so many ranks. */
export const ranked = (count: number, args: readonly string[], launch: Launch = {}): Promise<Ended> =>
  onRanks(count, ['cli/main.ts', ...args], launch);

/**
 * Damaged files of every format by the thousand, in processes of their own: none
 * crashes, hangs, takes the memory or gives other data in silence.
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { FORMATS } from './formats.ts';
import type { Outcome } from './random.ts';

const CHILD = fileURLToPath(new URL('mutantchild.ts', import.meta.url));
const HEAP_MB = 1024;
const HANG_MS = 120_000; // without a sign of life
const TOLD = 10; // findings of one format

interface Line {
  at?: number;
  finding?: string;
}

/** Mutants `from` to `to` of a format. @returns how far it got, and what it found */
function read(
  name: string,
  seed: number,
  from: number,
  to: number,
  root: string,
): Promise<{ at: number; findings: string[] }> {
  return new Promise((done) => {
    const args = [
      '--import',
      'tsx',
      `--max-old-space-size=${HEAP_MB}`,
      CHILD,
      name,
      String(seed),
      String(from),
      String(to),
      root,
    ];
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    let [at, rest, stderr, hung] = [from, '', '', false];
    const findings: string[] = [];
    const end = () => {
      hung = true;
      child.kill('SIGKILL');
    };
    let timer = setTimeout(end, HANG_MS);
    child.stdout.on('data', (d: Buffer) => {
      clearTimeout(timer);
      timer = setTimeout(end, HANG_MS);
      const lines = (rest + d.toString()).split('\n');
      rest = lines.pop()!;
      for (const line of lines.map((l) => JSON.parse(l) as Line)) {
        at = line.at ?? at;
        if (line.finding) findings.push(`${name}: ${line.finding}`);
      }
    });
    child.stderr.on('data', (d: Buffer) => {
      stderr = (stderr + d.toString()).slice(-1000);
    });
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      if (hung) findings.push(`${name}: hangs after mutant ${at}`);
      else if (code !== 0) findings.push(`${name}: ended by ${signal ?? code} after mutant ${at}: ${stderr}`);
      done({ at, findings });
    });
  });
}

/** @param only names of formats; all unless given */
export async function mutantCampaign(
  mutants: number,
  seed: number,
  tmp: string,
  say: (line: string) => void,
  only: readonly string[] = Object.keys(FORMATS),
): Promise<Outcome> {
  const root = mkdtempSync(join(tmp, 'mutants-'));
  const count = Math.ceil(mutants / only.length);
  const queue = [...only];
  const findings: string[] = [];
  const work = async (): Promise<void> => {
    for (let name = queue.shift(); name !== undefined; name = queue.shift()) {
      const own: string[] = [];
      for (let at = 0; at < count && own.length < TOLD;) {
        const part = await read(name, seed, at, count, root);
        own.push(...part.findings);
        at = part.at >= count ? count : part.at + 20; // past what it did not survive
      }
      findings.push(...own.slice(0, TOLD));
      say(`${name}: ${count} mutants, ${own.length} findings`);
    }
  };
  try {
    await Promise.all([work(), work()]);
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
  return { tried: `${count * only.length} mutants of ${only.length} formats`, findings };
}

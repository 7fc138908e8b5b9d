/** Many at one instant: processes that want one lock and die with it, and tabs that look at a log while it grows and is rewritten. */
import { spawn } from 'node:child_process';
import { appendFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Jobs, type View } from '../../cli/watch/jobs.ts';
import { writeWhole } from '../../train/loop/files.ts';
import type { Outcome } from './random.ts';

const CHILD = fileURLToPath(new URL('lockchild.ts', import.meta.url));
const START_MS = 3000; // until all of them run, on a busy machine

/** Processes that all try to take a lock at the same instants. @param die each with the lock, instead of giving it back */
export async function lockRace(
  lock: string,
  { rounds, processes, die }: { rounds: number; processes: number; die: boolean },
): Promise<{ taken: number; findings: string[] }> {
  const args = ['--import', 'tsx', CHILD, lock, String(Date.now() + START_MS), String(rounds), die ? 'die' : 'live'];
  const one = () => new Promise((done) => spawn(process.execPath, args, { stdio: 'inherit' }).on('close', done));
  await Promise.all(Array.from({ length: processes }, one));
  const lines = existsSync(`${lock}.log`) ? readFileSync(`${lock}.log`, 'utf8').trim().split('\n') : [];
  const findings: string[] = [];
  for (let i = 0; i < lines.length; i += 2)
    if (!lines[i]!.startsWith('takes ') || lines[i + 1] !== lines[i]!.replace('takes', 'gives'))
      findings.push(`two owners of a lock: ${lines.slice(i, i + 4).join(', ')}`);
  if (!lines.length) findings.push('nobody ever had the lock');
  return { taken: lines.length / 2, findings };
}

const line = (step: number): string => `${JSON.stringify({ step, x: step / 7, seconds: 1 })}\n`;

/** Every view must have each step of the log once, whatever was asked beside it. */
export async function tabRace(dir: string, rounds: number, tabs: number): Promise<string[]> {
  mkdirSync(join(dir, 'job'), { recursive: true });
  writeFileSync(join(dir, 'job', 'config.json'), '{}');
  const log = join(dir, 'job', 'metrics.jsonl');
  const jobs = new Jobs(dir);
  const findings: string[] = [];
  let written = 0;
  const check = ({ detail, jobs: [job] }: View, least: number): void => {
    const { at, metrics } = detail!.curves;
    const x = metrics['x'];
    const once = at.every((step, i) => step === i && x?.low[i] === x?.high[i]);
    if (!once || at.length < least || at.length > written || job!.step !== at.length)
      findings.push(`a tab saw ${at.length} of ${written} steps, from ${at[0]} to ${at.at(-1)}, step ${job!.step}`);
  };
  for (let round = 0; round < rounds; round++) {
    const before = written;
    const more = Array.from({ length: 20 }, (_, i) => i);
    const isNew = round % 12 === 11;
    if (isNew) writeWhole(log, more.map(line).join(''));
    else appendFileSync(log, more.map((i) => line(before + i)).join(''));
    written = isNew ? 20 : before + 20;
    const views = Array.from({ length: tabs }, (_, tab) => jobs.look(tab % 3 ? 'job' : ''));
    for (const view of await Promise.all(views)) check(view, written);
    check(await jobs.look('job'), written);
  }
  return findings;
}

export async function raceCampaign(rounds: number, tmp: string, say: (line: string) => void): Promise<Outcome> {
  const dir = mkdtempSync(join(tmp, 'races-'));
  const findings: string[] = [];
  let taken = 0;
  try {
    const races = [
      { rounds, processes: 2, die: false },
      { rounds, processes: 6, die: false },
      { rounds, processes: 8, die: true },
    ];
    const ended = await Promise.all(races.map((race, i) => lockRace(join(dir, `${i}.lock`), race)));
    for (const race of ended) {
      taken += race.taken;
      findings.push(...race.findings);
      say(`a lock was taken ${race.taken} times, ${race.findings.length} findings`);
    }
    findings.push(...(await tabRace(join(dir, 'run'), rounds, 24)));
  } finally {
    rmSync(dir, { recursive: true });
  }
  return { tried: `${rounds} rounds of three races for a lock, taken ${taken} times, and of 24 tabs`, findings };
}

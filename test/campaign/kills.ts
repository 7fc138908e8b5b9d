/**
 * Commands killed at random moments and started again until they are done: the same files, to the bit, as without a kill, and no others.
 */
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { generator, type Outcome } from './random.ts';
import { baseCommands, contents, victims, type Victim } from './victims.ts';

const MOST_KILLS = 4; // of one folder, before it is let come to its end
const LONGEST_MS = 400_000; // of a command that is not killed

interface Ended {
  code: number | null;
  stderr: string;
  ms: number;
}

/** @param after milliseconds until it is killed; never unless given */
function start(args: readonly string[], after?: number): Promise<Ended> {
  const begun = performance.now();
  return new Promise((done) => {
    const child = spawn(process.execPath, ['--import', 'tsx', ...args], {
      env: { ...process.env, DEBUG: '' },
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let stderr = '';
    child.stderr.on('data', (d: Buffer) => {
      stderr = (stderr + d.toString()).slice(-2000);
    });
    const timer = setTimeout(() => child.kill('SIGKILL'), after ?? LONGEST_MS);
    child.on('close', (code) => {
      clearTimeout(timer);
      done({ code, stderr, ms: performance.now() - begun });
    });
  });
}

/** Kills one victim at random moments of its run, as often as its share asks. @param say told how far it is */
async function killOne(
  root: string,
  victim: Victim,
  kills: number,
  random: (n: number) => number,
  say: (line: string) => void,
): Promise<string[]> {
  const findings: string[] = [];
  const fresh = (name: string): string => {
    const dir = join(root, `${victim.name.replace(' ', '-')}-${name}`);
    mkdirSync(dir, { recursive: true });
    victim.prepare(dir);
    return dir;
  };
  const whole = fresh('whole');
  await start(victim.args(whole)); // fills the caches of compiled kernels
  rmSync(whole, { recursive: true });
  fresh('whole');
  const { code, stderr, ms } = await start(victim.args(whole));
  if (code !== 0) return [`${victim.name}: ended with ${code} without a kill: ${stderr}`];
  const expected = contents(whole);
  for (let killed = 0, round = 0; killed < kills; round++) {
    const dir = fresh(String(round));
    let ended: Ended | undefined;
    for (let n = 1 + random(MOST_KILLS); n > 0 && killed < kills; n--) {
      ended = await start(victim.args(dir), (ms * random(1000)) / 1000);
      if (ended.code !== null) break; // it was done before
      killed++;
    }
    if (ended?.code !== 0) ended = await start(victim.args(dir));
    if (ended.code !== 0) findings.push(`${victim.name}, round ${round}: ended with ${ended.code}: ${ended.stderr}`);
    const found = contents(dir);
    const wrong = [
      ...[...expected.keys()].filter((f) => !found.has(f)).map((f) => `${f} is missing`),
      ...[...found.keys()].filter((f) => !expected.has(f)).map((f) => `${f} is left`),
      ...[...found].filter(([f, hash]) => expected.has(f) && expected.get(f) !== hash).map(([f]) => `${f} differs`),
    ];
    if (wrong.length) findings.push(`${victim.name}, round ${round}: ${wrong.join(', ')}`);
    say(`${victim.name}: ${killed} of ${kills} kills, ${findings.length} findings`);
    rmSync(dir, { recursive: true });
  }
  return findings;
}

/** @param only names of victims; all unless given */
export async function killCampaign(
  kills: number,
  seed: number,
  tmp: string,
  say: (line: string) => void,
  only?: readonly string[],
): Promise<Outcome> {
  const root = mkdtempSync(join(tmp, 'kills-'));
  try {
    const base = join(root, 'base');
    const all = victims(base).filter((v) => !only || only.includes(v.name));
    if (all.some((v) => v.args('').includes('digits-test')))
      for (const command of baseCommands(base)) {
        const { code, stderr } = await start(command);
        if (code !== 0) return { tried: '0 kills', findings: [`the base was not made: ${stderr}`] };
      }
    const shares = all.reduce((sum, v) => sum + v.share, 0);
    const findings: string[] = [];
    let total = 0;
    for (const [i, victim] of all.entries()) {
      const count = Math.ceil((kills * victim.share) / shares);
      findings.push(...(await killOne(root, victim, count, generator(seed + i), say)));
      total += count;
    }
    return { tried: `${total} kills of ${all.map((v) => v.name).join(', ')}`, findings };
  } finally {
    if (existsSync(root)) rmSync(root, { recursive: true });
  }
}

/** A rank killed at a random moment ends all others within seconds, and the same command goes on to the bits of a run that nobody touched. */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { Stream } from '../../train/loop/rng.ts';
import { onRanks, onSeveral } from './ranks.ts';

const KILLS = 20;
const RANKS = 2;
const MOST_MS = 20_000; // for all ranks to be gone: a launcher gives them some seconds, and this machine may be busy
const dir = mkdtempSync(join(tmpdir(), 'vpae-kills-'));
test.after(() => rmSync(dir, { recursive: true, force: true }));

const folder = (name: string): string => {
  const path = join(dir, name);
  rmSync(path, { recursive: true, force: true });
  mkdirSync(path);
  return path;
};
const train = (out: string, ...more: string[]) => [
  'test/train/rankschild.ts',
  out,
  'vae',
  'trainVae.steps=24',
  'run.saveEvery=2',
  ...more,
];

/** The ranks that a launcher has started, as /proc tells. */
function ranksOf(launcher: number): number[] {
  return readdirSync('/proc').flatMap((name) => {
    try {
      const [, comm, parent] = /^\d+ \((.*)\) \w (\d+) /s.exec(readFileSync(`/proc/${name}/stat`, 'utf8'))!;
      return Number(parent) === launcher && comm!.startsWith('node') ? [Number(name)] : [];
    } catch {
      return []; // no process, or gone meanwhile
    }
  });
}

const isThere = (pid: number): boolean => {
  try {
    return !readFileSync(`/proc/${pid}/stat`, 'utf8').includes(') Z ');
  } catch {
    return false;
  }
};

onSeveral(`${KILLS} kills of a random rank: nothing hangs, and nothing is lost`, async () => {
  const random = new Stream(1, 0, 'kills');
  const out = folder('killed');
  let kills = 0;
  while (kills < KILLS) {
    let ranks: number[] = [];
    let killed = Infinity;
    let timer: NodeJS.Timeout | undefined;
    const { code } = await onRanks(RANKS, train(out), {
      watch(_, launcher) {
        timer ??= setTimeout(
          () => {
            ranks = ranksOf(launcher);
            if (!ranks.length) return;
            process.kill(ranks[random.int(ranks.length)]!, 'SIGKILL');
            killed = performance.now();
          },
          random.uniform(0, 3000),
        );
      },
    });
    clearTimeout(timer);
    if (killed === Infinity || code === 0) {
      assert.ok(existsSync(join(out, 'vae.safetensors')), 'it came to its end before');
      folder('killed');
      continue;
    }
    kills++;
    assert.ok(performance.now() - killed < MOST_MS, `${performance.now() - killed} ms`);
    assert.equal(ranks.filter(isThere), [], 'no rank stays behind');
  }
  assert.is((await onRanks(RANKS, train(out))).code, 0);
  const whole = folder('whole');
  const cut = ['trainVae', 'teacher', 'priming', 'equilibrium', 'baselines.consistency', 'baselines.meanflow'];
  assert.is((await onRanks(1, train(whole, ...cut.map((s) => `${s}.accumulate=2`)))).code, 0);
  const made = (path: string) => readFileSync(join(path, 'vae.safetensors'));
  assert.ok(made(out).equals(made(whole)), 'the same bits');
});

test.run();

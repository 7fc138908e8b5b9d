/** A rank killed at a random moment ends all others within seconds, and the same command goes on to the bits of a run that nobody touched. */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { isRunning } from '../../engine/host/draft.ts';
import { Stream } from '../../train/loop/rng.ts';
import { finished, onRanks, onSeveral } from './ranks.ts';

const KILLS = 20;
const STEPS = 300;
const MOST_MS = 20_000; // for all ranks to be gone: a launcher gives them some seconds, and this machine may be busy
const dir = mkdtempSync(join(tmpdir(), 'vpae-kills-'));
test.after(() => rmSync(dir, { recursive: true, force: true }));

const folder = (name: string): string => {
  const path = join(dir, name);
  rmSync(path, { recursive: true, force: true });
  mkdirSync(path);
  return path;
};
const made = (path: string): Buffer => readFileSync(join(path, 'weights.safetensors'));
const train = (out: string): string[] => ['test/train/smallchild.ts', out, String(STEPS)];

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

onSeveral(`${KILLS} kills of a random rank: nothing hangs, and nothing is lost`, async () => {
  const whole = folder('whole');
  await finished(1, train(whole));
  const random = new Stream(1, 0, 'kills');
  const out = folder('killed');
  let kills = 0;
  while (kills < KILLS) {
    let ranks: number[] = [];
    let killed = Infinity;
    let timer: NodeJS.Timeout | undefined;
    const kill = (launcher: number): void => {
      ranks = ranksOf(launcher);
      if (!ranks.length) return;
      process.kill(ranks[random.int(ranks.length)]!, 'SIGKILL');
      killed = performance.now();
    };
    // One kill in three while the ranks start, the others among steps and checkpoints.
    const steps = kills % 3 ? random.int(30) + 1 : 0;
    const wait = random.uniform(0, steps ? 20 : 1000);
    const { code, stderr } = await onRanks(2, train(out), {
      watch(text, launcher) {
        if (text.split(/^step/m).length > steps) timer ??= setTimeout(kill, wait, launcher);
      },
    });
    clearTimeout(timer);
    if (code === 0) {
      assert.ok(made(out).equals(made(whole)), 'it came to its end before');
      folder('killed');
      continue;
    }
    assert.is.not(killed, Infinity, `it ended by itself, code ${code}\n${stderr}`);
    kills++;
    assert.ok(performance.now() - killed < MOST_MS, `${performance.now() - killed} ms`);
    assert.equal(
      ranks.filter((pid) => isRunning(pid)),
      [],
      'no rank stays behind',
    );
  }
  await finished(2, train(out));
  assert.ok(made(out).equals(made(whole)), 'the same bits');
});

test.run();

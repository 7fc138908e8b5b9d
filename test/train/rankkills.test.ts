/**
 * A rank killed at a random moment ends all others within seconds, and the same command goes on, on more ranks or fewer, to the bits of a
 * run that nobody touched. So it does after Ctrl-C, a lost device and a full disk, which are one line.
 */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { isRunning } from '../../engine/host/draft.ts';
import { Stream } from '../../train/loop/rng.ts';
import { finished, onRanks, onSeveral } from './ranks.ts';

const KILLS = 20;
/** How many ranks there are, in turn: a run goes on with another number of them. */
const RANKS = [2, 2, 3, 2, 1, 2, 4];
const STEPS = 200;
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
    const { code, stderr } = await onRanks(RANKS[kills % RANKS.length]!, train(out), {
      flags: ['--mca', 'odls_base_sigkill_timeout', '0'], // the launcher waits no second before it takes stronger means
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

/** What ends a launch ends all its ranks within seconds, in one line; then the same command ends in the bits of `whole`. */
async function endsAndGoesOn(out: string, line: RegExp, launch: (out: string) => ReturnType<typeof onRanks>) {
  const from = performance.now();
  const { code, said, stderr } = await launch(folder(out));
  assert.is.not(code, 0);
  assert.is(said.length, 1, stderr);
  assert.match(said[0]!, line);
  console.log(`${out}: ${Math.round(performance.now() - from)} ms`);
  await finished(2, train(join(dir, out)));
  assert.ok(made(join(dir, out)).equals(made(join(dir, 'whole'))), 'the same bits');
}

onSeveral('Ctrl-C ends all ranks in one line, and the same command goes on', async () => {
  let pressed = 0;
  await endsAndGoesOn('stopped', /^vpae: stopped; the same command goes on$/, (out) =>
    onRanks(2, train(out), {
      watch(text, launcher) {
        if (pressed || !text.includes('step 7')) return;
        pressed = performance.now();
        process.kill(launcher, 'SIGINT');
      },
    }),
  );
  assert.ok(performance.now() - pressed < 10 * MOST_MS);
});

onSeveral('a device that any rank loses ends all of them in one line', async () => {
  await endsAndGoesOn('lost 0', /^vpae: \[device\] lost: /, (out) => onRanks(2, [...train(out), '0']));
  await endsAndGoesOn('lost 1', /^vpae: rank 1 on \S+: \[device\] lost: /, (out) => onRanks(2, [...train(out), '1']));
});

onSeveral('a full disk ends all ranks in one line', () =>
  endsAndGoesOn(
    'full',
    /^vpae: \[checkpoint\] could not write .*: the disk is full; checkpoint-\d+\.safetensors is/,
    (out) => onRanks(2, [...train(out), 'full']),
  ),
);

test.run();

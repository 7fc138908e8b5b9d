/** Farms: what workers make, in whatever order and whoever is killed, is what one machine makes. */
import type { ChildProcess } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import sharp from 'sharp';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { Stream } from '../../train/loop/rng.ts';
import { writeFolder } from '../model/folders.ts';
import { freePort, gone, onFarm, startServer, startWorker } from './farms.ts';
import { vpae } from './run.ts';

const dir = mkdtempSync(join(tmpdir(), 'vpae-farm-'));
const at = (name: string): string => join(dir, name);
const ITEMS = 60;
const KILLS = 10;

const port = await freePort();
const address = `nats://127.0.0.1:${port}`;
const live = new Set<ChildProcess>();
const start = async (): Promise<ChildProcess> => {
  const server = await startServer(port, at('store'));
  live.add(server);
  return server;
};
const worker = (env = {}): ChildProcess => {
  const child = startWorker(address, undefined, env);
  live.add(child);
  return child;
};
test.after(() => {
  for (const child of live) child.kill('SIGKILL');
  rmSync(dir, { recursive: true, force: true });
});

onFarm(
  `${ITEMS} clips, ${KILLS} workers killed and the server once: each is there once, with one machine's bytes`,
  async () => {
    await writeFolder(at('i2v'), 'original', 'i2v');
    await sharp({ create: { width: 30, height: 30, channels: 3, background: '#a04020' } })
      .png()
      .toFile(at('first.png'));
    const lines = Array.from({ length: ITEMS }, (_, seed) =>
      JSON.stringify({ prompt: 'a cat runs', seed, image: 'first.png' }),
    );
    writeFileSync(at('prompts.jsonl'), lines.join('\n'));
    const sample = (out: string) => [
      'sample',
      '--model',
      at('i2v'),
      '--prompts',
      at('prompts.jsonl'),
      '--out',
      join(at(out), 'clip.webp'),
      '--size',
      '32x32',
      '--frames',
      '5',
      '--steps',
      '2',
    ];
    let server = await start();
    const workers = Array.from({ length: 3 }, () => worker());
    const alone = await vpae(sample('alone'));
    assert.is(alone.code, 0, alone.stderr);
    const random = new Stream(1, 0, 'kills');
    const clips = (): number =>
      existsSync(at('farm')) ? readdirSync(at('farm')).filter((name) => /^clip-\d+\.webp$/.test(name)).length : 0;
    let [kills, restarted] = [0, false];
    const farm = vpae([...sample('farm'), '--queue', address]);
    const over = farm.then(() => true);
    while (!(await Promise.race([over, wait(20, false)]))) {
      if (kills < KILLS && clips() > (kills * ITEMS) / (KILLS + 2)) {
        const k = random.int(3);
        workers[k]!.kill('SIGKILL');
        live.delete(workers[k]!);
        workers[k] = worker();
        kills++;
      }
      if (!restarted && clips() > ITEMS / 2) {
        restarted = true;
        live.delete(server);
        server.kill('SIGKILL');
        await gone(server);
        server = await start();
      }
    }
    const { code, stdout, stderr } = await farm;
    assert.is(code, 0, stderr);
    assert.equal([kills, restarted, clips()], [KILLS, true, ITEMS]);
    assert.match(stderr, /^clips: 60\/60 clips, .*workers?$/m);
    assert.is(stdout.match(/^.*: "a cat runs", seed \d+$/gm)?.length, ITEMS, 'each is told once');
    for (const name of readdirSync(at('alone')).filter((n) => n.endsWith('.webp')))
      assert.equal(readFileSync(join(at('farm'), name)), readFileSync(join(at('alone'), name)), name);
  },
);

test.run();

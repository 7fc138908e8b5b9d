/** Locks under races and after deaths, and what killed writers leave. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { Draft, startOf, sweepParts } from '../../engine/host/draft.ts';
import { isHeld, releaseLock, takeLock } from '../../train/loop/lock.ts';
import { RunFolder } from '../../train/loop/run.ts';
import { lockRace } from '../campaign/races.ts';

const root = mkdtempSync(join(tmpdir(), 'lock-'));
test.after(() => rmSync(root, { recursive: true }));
const NOBODY = 2 ** 22 + 1; // past the largest pid
const stale = (key: string) => JSON.stringify({ pid: NOBODY, host: hostname(), key });

test('of several processes at one instant one has the lock, also where each dies with it', async () => {
  const [living, dying] = [join(root, 'living.lock'), join(root, 'dying.lock')];
  writeFileSync(living, stale('old'));
  const races = await Promise.all([
    lockRace(living, { rounds: 60, processes: 2, die: false }),
    lockRace(dying, { rounds: 60, processes: 4, die: true }),
  ]);
  for (const { findings } of races) assert.equal(findings, []);
  assert.ok(races[0]!.taken >= 2);
  assert.equal(
    readdirSync(root).filter((f) => f.startsWith('living')),
    ['living.lock.log'],
    'nothing is left',
  );
});

test('the dead are inherited from, heirs that died too, and strays go; only an owner gives back', () => {
  const lock = join(root, 'chain.lock');
  writeFileSync(lock, stale('a'));
  assert.is(takeLock(lock), undefined);
  assert.is(takeLock(lock)?.pid, process.pid, 'not twice');
  assert.ok(isHeld(lock));
  const other = JSON.stringify({ pid: process.ppid, host: hostname(), key: 'b' });
  writeFileSync(lock, other);
  assert.not(isHeld(lock));
  releaseLock(lock);
  assert.is(readFileSync(lock, 'utf8'), other, "another's stays");
  assert.is(takeLock(lock)?.pid, process.ppid);
  for (const text of ['', '{"pid": 1', 'null', '[]', '{"pid": -1, "host": "x"}', '{"pid": "1", "host": "x"}']) {
    writeFileSync(lock, text);
    utimesSync(lock, 0, 0);
    assert.is(takeLock(lock), undefined, JSON.stringify(text));
    releaseLock(lock);
  }
  writeFileSync(`${lock}.0123456789abcdef.heir`, stale('c'));
  writeFileSync(lock, stale('d'));
  assert.is(takeLock(lock), undefined);
  releaseLock(lock);
  assert.equal(
    readdirSync(root).filter((f) => f.startsWith('chain')),
    [],
  );
  mkdirSync(lock);
  assert.throws(() => takeLock(lock), /chain\.lock is a folder, not a file: remove it$/);
});

test('an owner that has ended, or whose number another process has by now, is gone', async () => {
  if (!existsSync('/proc/self/stat')) return; // other systems do not tell
  const lock = join(root, 'number.lock');
  const held = (owner: object) => (writeFileSync(lock, JSON.stringify({ ...owner, host: hostname() })), takeLock(lock));
  const parent = { pid: process.ppid, start: startOf(process.ppid) };
  assert.equal(held(parent), { ...parent, host: hostname() });
  assert.is(held({ ...parent, start: '1' }), undefined, 'a later one');
  releaseLock(lock);
  const careless = spawn('sh', ['-c', 'sleep 0.3 & echo $!; exec sleep 60']); // asks after no child that ends later
  const [pid] = (await once(careless.stdout, 'data')) as [Buffer];
  const state = () => readFileSync(`/proc/${Number(pid)}/stat`, 'utf8');
  while (!state().includes(') Z ')) await new Promise((resolve) => setTimeout(resolve, 10));
  assert.is(held({ pid: Number(pid), start: startOf(Number(pid)) }), undefined, 'ended');
  releaseLock(lock);
  careless.kill();
});

test("parts of the dead go wherever something is written, the living's stay", () => {
  const dir = join(root, 'parts');
  mkdirSync(dir);
  const names = {
    dead: `a.png.${NOBODY}.part`,
    mine: `b.png.${process.pid}.part`, // of an earlier process of this number
    living: `c.png.${process.ppid}.part`,
    elsewhere: `d.png.${NOBODY}.000000.part`,
    longAgo: `e.png.${NOBODY}.000001.part`,
    other: 'f.part',
  };
  for (const name of Object.values(names)) writeFileSync(join(dir, name), 'x');
  utimesSync(join(dir, names.longAgo), 0, 0);
  const draft = new Draft(join(dir, 'out.png'));
  draft.write(Uint8Array.of(1));
  sweepParts(dir);
  assert.is(readdirSync(dir).length, 4, 'its own is not swept');
  draft.keep();
  assert.equal(readdirSync(dir).sort(), [names.living, names.elsewhere, names.other, 'out.png'].sort());
});

test('a run whose folder is removed or taken while it trains stops in one line and writes nothing there', async () => {
  const path = join(root, 'run');
  const folder = await RunFolder.open(path, { a: 1 }, {});
  folder.log({ step: 0 });
  rmSync(path, { recursive: true });
  assert.throws(
    () => folder.log({ step: 1 }),
    /^\[run\] .*run was removed or taken by another process while this one trained/,
  );
  assert.throws(() => folder.check());
  folder.close();
  assert.not(existsSync(path));
  const second = await RunFolder.open(path, { a: 1 }, {});
  writeFileSync(join(path, 'run.lock'), JSON.stringify({ pid: process.ppid, host: hostname() }));
  assert.throws(() => second.log({ step: 0 }), /taken by another process/);
  second.close();
  assert.ok(existsSync(join(path, 'run.lock')));
  writeFileSync(join(path, 'run.lock'), stale('x'));
  writeFileSync(join(path, 'config.json'), '{"a": ');
  const message = await RunFolder.open(path, { a: 1 }, {}).then(
    () => '',
    (e: Error) => e.message,
  );
  assert.match(message, /^\[resume\] .*config\.json is damaged/);
});

test.run();

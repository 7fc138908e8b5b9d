/** Code in the cache: whose it may be, what it may be called, and that it is what was put there. */
import {
  chmodSync,
  chownSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { isBare, seal, verify } from '../../engine/host/trusted.ts';

const root = mkdtempSync(join(tmpdir(), 'trusted-'));
test.after(() => rmSync(root, { recursive: true }));
let made = 0;

function fresh(about: Record<string, unknown> = { mesa: '25' }): string {
  const dir = join(root, String(made++));
  mkdirSync(join(dir, 'lib'), { recursive: true });
  writeFileSync(join(dir, 'lib', 'a.so'), 'code');
  writeFileSync(join(dir, 'icd.json'), '{}');
  seal(dir, about);
  return dir;
}

test('what was put there is loaded, wherever it is moved; what was changed, added or is gone is not', () => {
  const dir = fresh();
  assert.is(verify(dir)['mesa'], '25');
  const moved = `${dir}-moved`;
  renameSync(dir, moved);
  const lib = join(moved, 'lib', 'a.so');
  assert.is(verify(moved)['mesa'], '25');
  utimesSync(lib, 1, 1);
  assert.is(verify(moved)['mesa'], '25', 'the same bytes');
  for (const [spoil, pattern] of [
    [() => writeFileSync(lib, 'Code'), /a\.so is not what was put there: remove .*, it is made anew/],
    [() => rmSync(lib), /a\.so is missing/],
    [() => writeFileSync(join(moved, 'lib', 'b.so'), ''), /b\.so was not put there by us/],
    [() => writeFileSync(join(moved, 'manifest.json'), '{'), /manifest\.json cannot be read/],
  ] as const) {
    spoil();
    assert.throws(() => verify(moved), pattern);
    rmSync(join(moved, 'lib', 'b.so'), { force: true });
    writeFileSync(lib, 'code');
    seal(moved, {});
  }
});

test('a cache of before there were hashes gets them', () => {
  const dir = fresh();
  writeFileSync(join(dir, 'manifest.json'), '{"mesa":"24","libraries":["a.so"]}');
  assert.equal(verify(dir)['libraries'], ['a.so']);
  const { files } = JSON.parse(readFileSync(join(dir, 'manifest.json'), 'utf8')) as { files: object };
  assert.equal(Object.keys(files).sort(), ['icd.json', 'lib/a.so']);
  writeFileSync(join(dir, 'icd.json'), '{"x":1}');
  assert.throws(() => verify(dir), /icd\.json is not what was put there/);
});

test("neither another user's, nor what others may write", () => {
  if (process.platform === 'win32') return;
  for (const [part, mode] of [
    ['.', 0o777],
    ['.', 0o775],
    ['lib', 0o777],
    ['lib/a.so', 0o666],
    ['icd.json', 0o664],
  ] as const) {
    const dir = fresh();
    chmodSync(join(dir, part), mode);
    assert.throws(
      () => verify(dir),
      /may be written by others than its owner: chmod go-w/,
      `${part} ${mode.toString(8)}`,
    );
  }
  const open = join(root, 'open');
  mkdirSync(open);
  const inside = fresh();
  renameSync(inside, join(open, 'driver'));
  chmodSync(open, 0o777);
  assert.throws(() => verify(join(open, 'driver')), /open may be written by others/);
  symlinkSync(join(open, 'driver'), join(root, 'link'));
  assert.throws(() => verify(join(root, 'link')), /open may be written by others/, 'where it is, not where a link is');
  if (process.getuid!() !== 0) return;
  const foreign = fresh();
  chownSync(join(foreign, 'lib', 'a.so'), 65534, 65534);
  assert.throws(() => verify(foreign), /a\.so belongs to user 65534, and code from there is not loaded/);
});

test('names are of files in the folder', () => {
  for (const name of ['libvulkan.so.1', 'libstdc++.so.6', 'lib_a-b.so']) assert.ok(isBare(name), name);
  for (const name of ['../x.so', 'a/b.so', '', '.', '..', '/etc/x.so', '.hidden', 'a\0b', 1, null])
    assert.not(isBare(name), String(name));
});

test.run();

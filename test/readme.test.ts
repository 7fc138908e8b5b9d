/** What pages promise: the README's example runs and learns, links lead somewhere, and the README stays short. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';

const root = fileURLToPath(new URL('..', import.meta.url));

test('the example in the README trains', () => {
  const [, code] = /```ts\n([\s\S]*?)```/.exec(readFileSync(join(root, 'README.md'), 'utf8'))!;
  mkdirSync(join(root, 'out'), { recursive: true });
  const file = join(root, 'out', `readme-${process.pid}.ts`); // inside the package, so that it may import itself by name
  writeFileSync(file, code!);
  try {
    const { stdout, stderr, status } = spawnSync(process.execPath, ['--import', 'tsx', file], {
      cwd: root,
      encoding: 'utf8',
    });
    assert.is(status, 0, stderr);
    const losses = stdout
      .trim()
      .split('\n')
      .map((line) => Number(line.split(' ')[1]));
    assert.is(losses.length, 4);
    assert.ok(
      losses.at(-1)! < 0.1 * 0.11,
      `the last of ${losses.join()} should be far under the target's variance of 0.11`,
    );
  } finally {
    rmSync(file);
  }
});

/** Relative links of a page: `[text](path)` and pictures. */
const linksOf = (page: string): string[] =>
  [...readFileSync(join(root, page), 'utf8').matchAll(/\]\(([^)#\s]+)[^)]*\)/g)]
    .map((m) => m[1]!)
    .filter((link) => !/^\w+:/.test(link));

test('every link of a page leads to a file', () => {
  const pages = [
    'README.md',
    'CONTRIBUTING.md',
    'train/METHOD.md',
    ...readdirSync(join(root, 'docs')).map((f) => `docs/${f}`),
  ];
  let links = 0;
  for (const page of pages.filter((p) => p.endsWith('.md'))) {
    for (const link of linksOf(page)) {
      assert.ok(existsSync(join(root, dirname(page), link)), `${page} links to ${link}`);
      links++;
    }
  }
  assert.ok(links > 20);
});

test('files that the architecture and the recipes name are there', () => {
  for (const page of ['docs/ARCHITECTURE.md', 'CONTRIBUTING.md']) {
    for (const [, file] of readFileSync(join(root, page), 'utf8').matchAll(/`((?:\w+\/)+[\w.-]+\.ts)`/g))
      assert.ok(existsSync(join(root, file!)) || existsSync(join(root, 'engine', file!)), `${page} names ${file}`);
  }
});

test('the README is at most 150 lines', () => {
  assert.ok(readFileSync(join(root, 'README.md'), 'utf8').split('\n').length <= 150);
});

test.run();

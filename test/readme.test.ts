/** The README's example, as it stands there: runs, and learns. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
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

test.run();

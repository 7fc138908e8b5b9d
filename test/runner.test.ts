/** What the runner says of a test file whose process does not run to its end. */
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { runFile, type Outcome } from './runner.ts';

const folder = mkdtempSync(join(tmpdir(), 'runner-'));
const uvu = JSON.stringify(import.meta.resolve('uvu'));

/** Runs a file of two tests, the second with this body. */
function outcome(name: string, body: string): Promise<Outcome> {
  const file = join(folder, `${name}.mjs`);
  writeFileSync(
    file,
    `import { test } from ${uvu};\ntest('one', () => {});\ntest('two', async () => { ${body} });\ntest.run();`,
  );
  return runFile(file);
}

test('a file that runs to its end is counted, with what failed in it', async () => {
  const good = await outcome('good', '');
  assert.is(`${good.passed}/${good.total} ${good.failed} ${good.death}`, '2/2 0 undefined');
  const bad = await outcome('bad', 'throw new Error("no");');
  assert.is(`${bad.passed}/${bad.total} ${bad.failed} ${bad.death}`, '1/2 1 undefined');
});

test('a death by signal, an exit and a wait for nothing are failures that are named', async () => {
  for (const [name, body, death] of [
    [
      'signal',
      'process.kill(process.pid, "SIGSEGV"); await new Promise(() => setInterval(() => {}, 1000));',
      'SIGSEGV',
    ],
    ['exit', 'process.exit(3);', 'exit code 3'],
    ['silent', 'await new Promise(() => {});', 'exit code 1'],
  ] as const) {
    const { failed, total, death: told } = await outcome(name, body);
    assert.is(`${total} ${failed}`, '0 1');
    assert.ok(told?.startsWith(`${death} before its tests were over`), told);
    if (process.platform === 'linux') assert.match(told!, /, peak memory [\d.]+ [GM]iB$/);
  }
});

test('an exit code that its tests do not explain is a failure', async () => {
  const late = await outcome('late', 'process.on("exit", () => { process.exitCode = 7; });');
  assert.is(late.failed, 1);
  assert.ok(late.death?.startsWith('exit code 7'), late.death);
});

test.run();

/** A training process killed in the middle of a step resumes to the same losses, bit by bit, as one that was never touched. */
import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';

const child = fileURLToPath(new URL('child.ts', import.meta.url));

function start(out: string): { process: ChildProcess; ended: Promise<{ code: number | null; text: string }> } {
  const process_ = spawn(process.execPath, ['--import', 'tsx', child, out], {
    cwd: new URL('../..', import.meta.url),
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let text = '';
  process_.stderr.on('data', (d: Buffer) => {
    text += d.toString();
  });
  return { process: process_, ended: new Promise((done) => process_.on('close', (code) => done({ code, text }))) };
}

const log = (out: string): string[] => {
  const path = join(out, 'teacher', 'metrics.jsonl');
  return existsSync(path) ? readFileSync(path, 'utf8').trim().split('\n').filter(Boolean) : [];
};
const losses = (out: string) =>
  log(out).map((line) => {
    const { step, loss, norm } = JSON.parse(line) as { step: number; loss: number; norm: number };
    return { step, loss, norm };
  });

test('killed and started again, a run logs the losses of an uninterrupted one', async () => {
  const [whole, broken] = [1, 2].map(() => mkdtempSync(join(tmpdir(), 'vpae-'))) as [string, string];
  const first = await start(whole).ended;
  assert.is(first.code, 0, first.text);

  const run = start(broken);
  while (log(broken).length < 5 && run.process.exitCode === null) await new Promise((r) => setTimeout(r, 10));
  run.process.kill('SIGKILL');
  await run.ended;
  const before = log(broken).length;
  assert.ok(before >= 5 && before < 9, `killed after ${before} steps`);

  const second = await start(broken).ended;
  assert.is(second.code, 0, second.text);
  assert.equal(losses(broken), losses(whole));
  assert.is(losses(whole).length, 9);
});

test.run();

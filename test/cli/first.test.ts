/** Quiet tuning: when it runs, that it keeps to its time, says one line, keeps its table and never stands in a job's way. */
import { existsSync, rmSync } from 'node:fs';
import process from 'node:process';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { isFirstUse, tuneFirst } from '../../cli/tune/first.ts';
import { open, type Device } from '../../engine/runtime/device.ts';
import { ownTable, tunedFile } from '../../engine/runtime/tuning.ts';
import { subjectOf } from '../../train/planning/subject.ts';

const signal = new AbortController().signal;
const device = await open();
/** This adapter under the name of a GPU that nobody has. */
const unknown = (name: string): Device =>
  Object.assign(Object.create(device) as Device, {
    info: { ...device.info, kind: 'gpu', name: `${name} ${process.pid}` },
    caps: { ...device.caps, tuning: undefined },
  });
const files: string[] = [];

async function said(on: Device, of: Parameters<typeof tuneFirst>[2], wanted = true): Promise<string[]> {
  const lines: string[] = [];
  const { error } = console;
  console.error = (line: string) => void lines.push(line);
  try {
    await tuneFirst(on, wanted, of, signal, 1);
  } finally {
    console.error = error;
  }
  return lines;
}

test('a GPU without a table, and nothing else', () => {
  assert.is(isFirstUse('gpu', false, true), true);
  for (const [kind, tuned, wanted] of [
    ['software', false, true],
    ['gpu', true, true],
    ['gpu', false, false],
  ] as const)
    assert.is(isFirstUse(kind, tuned, wanted), false);
});

test('it says one line, ends in its time and leaves a table, so that the next job begins at once', async () => {
  const gpu = unknown('a GPU of a test');
  const file = tunedFile(gpu.info, gpu.caps);
  files.push(file);
  const of = () => ({ jobs: ['teacher'] as const, subject: subjectOf('digits-test', []) });
  assert.equal(await said(gpu, of, false), []);
  assert.not.ok(existsSync(file));
  const lines = await said(gpu, of);
  assert.is(lines.length, 1, lines.join('\n'));
  assert.match(
    lines[0]!,
    /first use of a GPU of a test \d+: measuring kernel configurations for up to 1 s, kept in .*; vpae tune measures more, --no-tune/,
  );
  assert.ok(ownTable(gpu.info, gpu.caps));
  assert.ok(gpu.caps.tuning);
  assert.equal(await said(gpu, of), []);
});

test('where it fails it says why in one line, and the job goes on', async () => {
  const gpu = unknown('another GPU of a test');
  files.push(tunedFile(gpu.info, gpu.caps));
  const lines = await said(gpu, () => {
    throw new Error('no such thing\nat all');
  });
  assert.equal(lines.slice(1), ["tuning failed: no such thing; going on with the planners' own rules"]);
  assert.equal(
    await said(gpu, () => {
      throw new Error('it is not tried again');
    }),
    [],
  );
});

test.after(() => {
  for (const file of files) rmSync(file, { force: true });
});
test.run();

/** Weight files that would cost minutes and gigabytes are refused in a moment, in one short line; what is only long opens. */
import { execFileSync } from 'node:child_process';
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { host } from '../../engine/frontend/tree.ts';
import { openWeights } from '../../model/files/open.ts';
import { saveTensors } from '../../model/files/safetensors.ts';
import { loadTokenizer } from '../../model/tokenizer.ts';
import { archive, pth } from './pthfile.ts';

const dir = mkdtempSync(join(tmpdir(), 'bombs-'));
test.after(() => rmSync(dir, { recursive: true }));
const path = join(dir, 'bomb.safetensors');
const SOON_MS = 15_000; // on a busy machine; each of these took half a minute at least on a quiet one

/** A header of any text, then as many bytes of data. */
function writeHeader(header: string | Buffer, data = 0): void {
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  const file = openSync(path, 'w');
  writeSync(file, length);
  writeSync(file, Buffer.from(header));
  ftruncateSync(file, 8 + header.length + data);
  closeSync(file);
}

async function refused(pattern: RegExp, file = path): Promise<void> {
  const start = performance.now();
  const message = await openWeights(file).then(
    async (w) => {
      await w.close();
      return 'opened';
    },
    (e: Error) => e.message,
  );
  assert.match(message, pattern);
  assert.ok(message.length < 1000, `${message.length} characters`);
  assert.ok(performance.now() - start < SOON_MS, `${performance.now() - start} ms`);
}

const tensor = '{"dtype":"U8","shape":[1],"data_offsets":[0,1]}';

test('headers of brackets, of many tensors, of many numbers, of a long name', async () => {
  writeHeader(Buffer.alloc(99e6, '['));
  await refused(/^\[safetensors\] .*: nests objects and arrays deeper than 3$/);
  writeHeader(`{${'"a":{"b":{"c":'.repeat(1e6)}`);
  await refused(/deeper than 3/);
  writeHeader(`{${Array.from({ length: 150_000 }, (_, i) => `"${i}":${tensor}`).join()}}`);
  await refused(/an object of more than 100000 members/);
  writeHeader(`{"__metadata__":{${Array.from({ length: 150_000 }, (_, i) => `"${i}":""`).join()}}}`);
  await refused(/an object of more than 100000 members/);
  writeHeader(`{"a":{"dtype":"U8","shape":[${'1,'.repeat(3e7)}1],"data_offsets":[0,1]}}`, 1);
  await refused(/an array of more than 64 members/);
  writeHeader(`{"${'a'.repeat(5e7)}":{"dtype":"U9","shape":[1],"data_offsets":[0,1]}}`, 1);
  await refused(/tensor "a+….*unknown dtype "U9"/);
  writeHeader(`{"a":{"dtype":"${'U'.repeat(5e7)}","shape":[1],"data_offsets":[0,1]}}`, 1);
  await refused(/unknown dtype "U+…/);
  writeHeader(`{"a":${tensor},"\\u0061":${tensor}}`, 1);
  await refused(/the name "a" stands twice/);
});

test('a string of 40 MB with escapes in it opens', async () => {
  await saveTensors(path, { a: host([1], [1]) }, { metadata: { tags: '"\\ \u00e4x'.repeat(5e6) } });
  const weights = await openWeights(path);
  assert.is(weights.metadata['tags']!.length, 25e6);
  await weights.close();
});

test('pickles of trivial opcodes, of views without end, archives of many members', async () => {
  const pickle = (body: string, times: number, end = '') =>
    writeFileSync(path, archive(Buffer.from(`\x80\x02${body.repeat(times)}${end}.`, 'latin1')));
  for (const [body, pattern] of [
    ['N', /more than 2000000 opcodes/],
    ['(', /more than 400000 lists, dicts and tuples/],
    [')', /more than 400000/],
    [']', /more than 400000/],
    ['}', /more than 400000/],
    ['K\x01', /more than 2000000 opcodes/],
    ['N0', /opcode POP .* is not allowed/],
    ['ccollections\nOrderedDict\n)R', /more than 400000/],
  ] as const) {
    pickle(body, /opcodes/.test(pattern.source) ? 2.1e6 : 5e5);
    await refused(pattern);
  }
  pickle('N', 34e6);
  await refused(/its data\.pkl has \d+ bytes, 32000000 are allowed/);
  const storage = new Float32Array(2000);
  const views = Object.fromEntries(
    Array.from({ length: 100 }, (_, i) => [String(i), { dtype: 'F32' as const, shape: [2000], storage }]),
  );
  writeFileSync(path, pth(views));
  await refused(/its tensors are views of 800000 bytes in all, 16 times its own \d+ are allowed/);
});

test('pipes, devices and folders are no weights, no index and no tokenizer', async () => {
  if (process.platform === 'win32') return;
  const fifo = join(dir, 'fifo');
  execFileSync('mkfifo', [fifo, `${fifo}.json`, `${fifo}.index.json`]);
  await refused(/is not a file/, fifo);
  await refused(/is a pipe or a device, not a file/, `${fifo}.index.json`);
  await refused(/is not a file/, '/dev/zero');
  for (const file of [`${fifo}.json`, '/dev/zero'])
    assert.match(
      await loadTokenizer(file).then(
        () => '',
        (e: Error) => e.message,
      ),
      /is a pipe or a device, not a file/,
    );
});

test.run();

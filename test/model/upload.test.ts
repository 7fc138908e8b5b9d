/** Weights from disk to device: to the bit, in every type, with little host memory, and nothing left behind by a failure. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import process from 'node:process';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { open } from '../../engine/runtime/device.ts';
import { openWeights } from '../../model/files/open.ts';
import { writeTensors, type Output } from '../../model/files/safetensors.ts';
import { UPLOAD_HOST_BYTES, uploadWeights } from '../../model/files/upload.ts';
import { fromBF16, toBF16, toF16 } from '../../model/halves.ts';
import { pth } from './pthfile.ts';
import { held } from '../held.ts';

const test = suite('upload');
const device = await open();
let folder = '';
test.before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'upload-'));
});
test.after(() => rm(folder, { recursive: true }));

const wave = (n: number): Float32Array => Float32Array.from({ length: n }, (_, i) => Math.sin(i) * 2 ** (i % 20));
const bits = (x: Float32Array | Uint16Array): number[] => [...new Uint8Array(x.buffer, x.byteOffset, x.byteLength)];

test('matrices take the type that is asked for, small weights keep theirs', async () => {
  const [x, odd] = [wave(35), wave(5)];
  const path = join(folder, 'a.pth');
  await writeFile(
    path,
    pth({
      'a.weight': { dtype: 'F32', shape: [5, 7], storage: x },
      'b.weight': { dtype: 'BF16', shape: [7, 5], storage: toBF16(x), strides: [1, 7] },
      'a.bias': { dtype: 'F16', shape: [5], storage: toF16(odd) },
      count: { dtype: 'I64', shape: [], storage: BigInt64Array.of(1n) },
    }),
  );
  const weights = await openWeights(path);
  const before = await held(device);
  for (const [dtype, encode] of [
    ['f32', (v: Float32Array) => v],
    ['f16', toF16],
    ['bf16', toBF16],
  ] as const) {
    const up = await uploadWeights(device, weights, { dtype, names: ['a.weight', 'b.weight', 'a.bias'] });
    const a = encode(x),
      b = encode(fromBF16(toBF16(x)).map((_, i, all) => all[7 * (i % 5) + Math.floor(i / 5)]!));
    assert.equal([...new Uint8Array(await up['a.weight']!.bits())].slice(0, a.byteLength), bits(a), dtype);
    assert.equal([...new Uint8Array(await up['b.weight']!.bits())].slice(0, b.byteLength), bits(b), dtype);
    assert.is(up['a.bias']!.dtype, 'f16');
    assert.equal([...new Uint8Array(await up['a.bias']!.bits())].slice(0, 10), bits(toF16(odd)));
    for (const t of Object.values(up)) t.free();
  }
  const stored = await uploadWeights(device, weights);
  assert.equal(
    Object.values(stored).map((t) => t.dtype),
    ['f32', 'bf16', 'f16', 'i32'],
  );
  for (const t of Object.values(stored)) t.free();
  const stopped = (reason: string) => () => {
    throw new Error(reason);
  };
  for (const options of [{ names: ['a.bias', 'c'] }, { onProgress: stopped('no tensor "c"') }]) {
    const error = await uploadWeights(device, weights, options).then(
      () => undefined,
      (e: Error) => e,
    );
    assert.match(error!.message, /no tensor "c"/);
  }
  assert.is(device.allocated, before);
  await weights.close();
});

test('192 MiB pass through the memory that is stated', async () => {
  const path = join(folder, 'large.safetensors');
  const part = wave(2 ** 20);
  const tensor = (parts: number): Output => ({
    dtype: 'F32',
    shape: [parts * 256, 4096],
    values: () => Array.from({ length: parts }, () => part),
  });
  await writeTensors(path, { 'a.weight': tensor(32), 'b.weight': tensor(16) }); // one tensor alone is more than may be held
  const weights = await openWeights(path);
  const start = { rss: process.memoryUsage.rss(), allocated: device.allocated };
  let over = 0;
  const up = await uploadWeights(device, weights, {
    onProgress: () => {
      over = Math.max(over, process.memoryUsage.rss() - start.rss - (device.allocated - start.allocated)); // a software device's memory is the host's
    },
  });
  assert.ok(over < UPLOAD_HOST_BYTES + 2 ** 24, `${(over / 2 ** 20).toFixed()} MiB`);
  assert.equal((await up['b.weight']!.read()).subarray(-part.length), part);
  for (const t of Object.values(up)) t.free();
  await weights.close();
});

test.run();

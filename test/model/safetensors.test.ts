/** The weights loader: round trips, what is refused and why, shards, and writing all or nothing. */
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { Device } from '../../engine/runtime/device.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { fromBF16, fromF16, toBF16, toF16 } from '../../model/halves.ts';
import { loadParams } from '../../model/files/load.ts';
import { openWeights } from '../../model/files/open.ts';
import { saveTensors } from '../../model/files/safetensors.ts';
import { upload } from '../../model/files/upload.ts';

const test = suite('safetensors');
let folder = '';
test.before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'safetensors-'));
});
test.after(() => rm(folder, { recursive: true }));

const rejects = async (work: Promise<unknown>, pattern: RegExp): Promise<void> => {
  const error = await work.then(
    () => undefined,
    (e: Error) => e,
  );
  assert.ok(error, `expected an error like ${pattern}`);
  assert.match(error!.message, pattern);
};

async function all(path: string): Promise<Record<string, HostTensor>> {
  const weights = await openWeights(path);
  const out: Record<string, HostTensor> = {};
  for (const name of weights.entries.keys()) out[name] = await weights.tensor(name);
  await weights.close();
  return out;
}

/** A file from its header's text and its data. */
async function craft(
  name: string,
  header: string,
  data: number,
  length = BigInt(Buffer.byteLength(header)),
): Promise<string> {
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(length);
  const path = join(folder, name);
  await writeFile(path, Buffer.concat([size, Buffer.from(header), Buffer.alloc(data)]));
  return path;
}
const entry = (shape: string, from: number, to: number, dtype = 'F32'): string =>
  `{"dtype":"${dtype}","shape":${shape},"data_offsets":[${from},${to}]}`;

test('tensors and metadata come back as they were', async () => {
  const path = join(folder, 'round.safetensors');
  const given = {
    'blocks.0.w': host([1.5, -2.25, 3e-40, 1e30, 0, -0], [2, 3]),
    scalar: host([7], []),
    empty: host([], [0, 3]),
    ids: host(Int32Array.of(-1, 2 ** 31 - 1), [2]),
    key: host(Uint32Array.of(4294967295), [1]),
    'ключ "q"': host([1], [1]),
  };
  await saveTensors(path, given, { metadata: { note: 'ünïcode' } });
  assert.equal(await all(path), given);
  const weights = await openWeights(path);
  assert.equal(weights.metadata, { note: 'ünïcode' });
  await weights.close();
});

test('f16 and bf16 files hold rounded values', async () => {
  const values = [1 / 3, -1e-7, 65519, 1e5, 2 ** -24];
  const [f16, bf16] = [join(folder, 'a.safetensors'), join(folder, 'b.safetensors')];
  await saveTensors(f16, { x: host(values, [5]) }, { dtype: 'F16' });
  await saveTensors(bf16, { x: host(values, [5]) }, { dtype: 'BF16' });
  assert.equal([...(await all(f16))['x']!.data], [...fromF16(toF16(Float32Array.from(values)))]);
  assert.equal([...(await all(bf16))['x']!.data], [...fromBF16(toBF16(Float32Array.from(values)))]);
});

test('eight-bit floats are read', async () => {
  const bits = Buffer.from([
    0x00, 0x01, 0x38, 0x3c, 0xb8, 0x7e, 0x7f, 0x08, 0x00, 0x01, 0x3c, 0x3e, 0xbc, 0x7b, 0x7c, 0x04,
  ]);
  const header = `{"a":${entry('[8]', 0, 8, 'F8_E4M3')},"b":${entry('[8]', 8, 16, 'F8_E5M2')}}`;
  const path = await craft('f8.safetensors', header, 0);
  await writeFile(path, Buffer.concat([await readFile(path), bits]));
  const { a, b } = await all(path);
  assert.equal([...a!.data], [0, 2 ** -9, 1, 1.5, -1, 448, NaN, 2 ** -6]);
  assert.equal([...b!.data], [0, 2 ** -16, 1, 1.5, -1, 57344, Infinity, 2 ** -14]);
});

test('halves round to nearest, ties to even', () => {
  const f16 = (x: number) => fromF16(toF16(Float32Array.of(x)))[0];
  assert.is(f16(1 + 2 ** -11), 1);
  assert.is(f16(1 + 3 * 2 ** -11), 1 + 2 ** -9);
  assert.is(f16(65519.99), 65504);
  assert.is(f16(65520), Infinity);
  assert.is(f16(2 ** -25), 0);
  assert.is(f16(1.5 * 2 ** -24), 2 ** -23);
  assert.ok(Object.is(f16(-1e-10), -0));
  assert.ok(Number.isNaN(f16(NaN)));
  const bf16 = (x: number) => fromBF16(toBF16(Float32Array.of(x)))[0];
  assert.is(bf16(1 + 2 ** -8), 1);
  assert.is(bf16(1 + 3 * 2 ** -8), 1 + 2 ** -6);
  assert.is(bf16(3.4e38), Infinity);
  assert.ok(Number.isNaN(bf16(NaN)));
  const bits = Uint16Array.from({ length: 65536 }, (_, i) => i).filter((b) => (b & 0x7fff) <= 0x7c00);
  assert.equal(toF16(fromF16(bits)), bits);
});

const MALFORMED: [name: string, header: string, data: number, reason: RegExp, length?: bigint][] = [
  ['no object', '[1,2]', 0, /not an object/],
  ['space in front', ' {}', 0, /does not begin with \{/],
  ['bad json', '{"x":', 0, /JSON/],
  ['long header', '{}', 0, /says its header has 99 bytes/, 99n],
  ['absurd header', '{}', 0, /says its header has 1152921504606846976 bytes/, 2n ** 60n],
  ['truncated', `{"x":${entry('[2]', 0, 8)}}`, 7, /ends at byte 8, the file has 7/],
  ['trailing', `{"x":${entry('[2]', 0, 8)}}`, 9, /1 bytes stand behind/],
  ['wrong size', `{"x":${entry('[3]', 0, 8)}}`, 8, /needs 12 bytes/],
  ['overlap', `{"x":${entry('[2]', 0, 8)},"y":${entry('[1]', 4, 8)}}`, 8, /inside the tensor before it/],
  ['hole', `{"x":${entry('[1]', 4, 8)}}`, 8, /after a hole/],
  ['backwards', `{"x":${entry('[2]', 8, 0)}}`, 8, /backwards/],
  ['dtype', `{"x":${entry('[2]', 0, 8, 'F33')}}`, 8, /unknown dtype "F33"/],
  ['inherited dtype', `{"x":${entry('[2]', 0, 8, 'toString')}}`, 8, /unknown dtype "toString"/],
  ['negative', `{"x":${entry('[-2]', 0, 8)}}`, 8, /shape \[-2\]/],
  ['overflow', `{"x":${entry('[4294967296,4294967296]', 0, 8)}}`, 8, /needs/],
  ['metadata', `{"__metadata__":{"a":1},"x":${entry('[2]', 0, 8)}}`, 8, /strings only/],
  ['twice', `{"x":${entry('[1]', 0, 4)},"x":${entry('[1]', 0, 4)}}`, 4, /"x" stands twice/],
  ['twice, once escaped', `{"x":${entry('[1]', 0, 4)},"\\u0078":${entry('[1]', 0, 4)}}`, 4, /"x" stands twice/],
];
for (const [name, header, data, reason, length] of MALFORMED) {
  test(`refuses: ${name}`, async () => {
    const path = await craft('malformed.safetensors', header, data, length);
    await rejects(openWeights(path), reason);
    await rejects(openWeights(path), /\[safetensors\] .*malformed\.safetensors/);
  });
}

test('data at odd offsets is read', async () => {
  const path = await craft('odd.safetensors', `{"a":${entry('[3]', 0, 3, 'U8')},"b":${entry('[2]', 3, 11)}}`, 11);
  assert.equal([...(await all(path))['b']!.data], [0, 0]);
});

test('loadParams lists every difference at once', async () => {
  const path = join(folder, 'p.safetensors');
  await saveTensors(path, { a: host([1, 2], [2]), b: host([1], [1]), c: host([1, 2], [2]) });
  assert.equal(Object.keys(await loadParams(path, { a: [2], b: [1], c: [2] })), ['a', 'b', 'c']);
  await rejects(
    loadParams(path, { a: [1, 2], c: [2], d: [3] }),
    /1 missing: d \[3\]\n.*1 unexpected: b \[1\]\n.*1 of wrong shape: a \[2\], expected \[1,2\]/,
  );
});

test('shards are read through their index, and must agree with it', async () => {
  await saveTensors(join(folder, 's1.safetensors'), { a: host([1], [1]) });
  await saveTensors(join(folder, 's2.safetensors'), { b: host([2], [1]), c: host([3], [1]) });
  const index = join(folder, 'model.safetensors.index.json');
  await writeFile(
    index,
    JSON.stringify({ weight_map: { a: 's1.safetensors', b: 's2.safetensors', c: 's2.safetensors' } }),
  );
  assert.equal(
    Object.entries(await all(index)).map(([n, t]) => [n, t.data[0]]),
    [
      ['a', 1],
      ['b', 2],
      ['c', 3],
    ],
  );
  await writeFile(
    index,
    JSON.stringify({ weight_map: { a: 's1.safetensors', b: 's2.safetensors', d: 's1.safetensors' } }),
  );
  await rejects(openWeights(index), /1 tensor the index does not know: c in s2\.safetensors\n.*1 missing: d in s1/);
  await writeFile(index, JSON.stringify({ weight_map: { a: '../s1.safetensors' } }));
  await rejects(openWeights(index), /name of a file beside the index/);
});

test('a failed write leaves the old file and nothing else', async () => {
  const path = join(folder, 'old.safetensors');
  await saveTensors(path, { x: host([1], [1]) });
  const before = await readFile(path);
  const poisoned = {
    shape: [1],
    dtype: 'f32',
    get data(): Float32Array {
      throw new Error('no data');
    },
  } as HostTensor;
  await rejects(saveTensors(path, { x: poisoned }), /no data/);
  assert.equal(await readFile(path), before);
  assert.equal(
    (await readdir(folder)).filter((n) => n.endsWith('.part')),
    [],
  );
});

test('what is not finite is named by tensor, place and file before anything is computed with it', async () => {
  const path = join(folder, 'poisoned.safetensors');
  for (const [dtype, values] of [
    ['F32', [1, 2, NaN, 4]],
    ['F32', [1, 2, -Infinity, 4]],
    ['BF16', [1, 2, Infinity, 4]],
    ['F16', [1, 2, NaN, 4]],
  ] as const) {
    await saveTensors(path, { good: host([1, 2], [2]), 'blocks.0.w': host([...values], [2, 2]) }, { dtype });
    const line = new RegExp(
      `^\\[weights\\] .*poisoned\\.safetensors: tensor "blocks\\.0\\.w" holds ${values[2]} at 2 of 4 values, which is not finite: the file is damaged`,
    );
    const weights = await openWeights(path);
    try {
      assert.equal([...(await weights.tensor('good')).data], [1, 2]);
      await rejects(weights.finiteTensor('blocks.0.w'), line);
      assert.is((await weights.tensor('blocks.0.w')).data[3], 4, 'as a file it is read');
      let freed = 0;
      const device = {
        empty: () => ({ offset: 0, buffer: null, free: () => freed++ }),
        write() {},
        idle: async () => {},
      } as unknown as Device;
      await rejects(upload(device, weights, 'blocks.0.w'), line);
      assert.is(freed, 1);
    } finally {
      await weights.close();
    }
    await rejects(loadParams(path, { good: [2], 'blocks.0.w': [2, 2] }), line);
  }
});

test.run();

/** PyTorch archives: what is read, and that whatever else is in them is refused by name. */
import { Buffer } from 'node:buffer';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { openWeights } from '../../model/files/open.ts';
import { crc32Of } from '../../model/files/crc32.ts';
import { WeightsError } from '../../model/files/stored.ts';
import { archive, pickleState, pth, zip, type PthTensor } from './pthfile.ts';

const test = suite('pth');
let folder = '';
test.before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'pth-'));
});
test.after(() => rm(folder, { recursive: true }));

async function file(bytes: Buffer): Promise<string> {
  const path = join(folder, 'a.pth');
  await writeFile(path, bytes);
  return path;
}
async function refuses(bytes: Buffer, reason: RegExp): Promise<void> {
  const error = await openWeights(await file(bytes)).then(
    () => undefined,
    (e: Error) => e,
  );
  assert.instance(error, WeightsError);
  assert.match(error!.message, reason);
  assert.match(error!.message, /^\[pth\] .*a\.pth: /);
}
/** A state dict whose only value is made by these opcodes. */
const holding = (ops: string): Buffer =>
  archive(Buffer.from(`\x80\x02}X\x01\x00\x00\x00w${ops}s.`, 'latin1'), [new Float32Array(4)]);

const shared = Float32Array.from({ length: 24 }, (_, i) => i);
const state: Record<string, PthTensor> = {
  w: { dtype: 'F32', shape: [2, 3, 4], storage: shared },
  'w.T': { dtype: 'F32', shape: [4, 6], strides: [1, 4], storage: shared },
  'w.window': { dtype: 'F32', shape: [2, 2], strides: [8, 1], offset: 5, storage: shared },
  'w.reversed axes': { dtype: 'F32', shape: [4, 3, 2], strides: [1, 4, 12], storage: shared },
  half: { dtype: 'BF16', shape: [3], storage: Uint16Array.of(0x3f80, 0xc000, 0x4040) },
  scalar: { dtype: 'I64', shape: [], storage: BigInt64Array.of(-7n) },
  empty: { dtype: 'F32', shape: [0, 3], storage: new Float32Array(0) },
  flag: { dtype: 'BOOL', shape: [2], storage: Uint8Array.of(1, 0) },
};

for (const zip64 of [false, true]) {
  test(`views, halves and whole numbers come back${zip64 ? ' from zip64' : ''}`, async () => {
    const weights = await openWeights(await file(pth(state, zip64)));
    const values = async (name: string) => [...(await weights.tensor(name)).data];
    assert.equal(await values('w'), [...shared]);
    assert.equal(
      await values('w.T'),
      Array.from({ length: 24 }, (_, i) => 4 * (i % 6) + Math.floor(i / 6)),
    );
    assert.equal(await values('w.window'), [5, 6, 13, 14]);
    assert.equal(
      await values('w.reversed axes'),
      Array.from({ length: 24 }, (_, i) => 12 * (i % 2) + 4 * (Math.floor(i / 2) % 3) + Math.floor(i / 6)),
    );
    assert.equal(await values('half'), [1, -2, 3]);
    assert.equal(await values('scalar'), [-7]);
    assert.equal(await values('empty'), []);
    assert.equal(await values('flag'), [1, 0]);
    assert.equal([...weights.entries.get('w.T')!.shape], [4, 6]);
    assert.equal([...(await weights.read('w.T', 7, 10))], [5, 9, 13]);
    const parts: number[] = [];
    for await (const chunk of weights.chunks('w.reversed axes', new ArrayBuffer(20)))
      parts.push(...Array.from(chunk as Float32Array));
    assert.equal(parts, await values('w.reversed axes'));
    await weights.close();
  });
}

const NAMES: [what: string, ops: string, reason: RegExp][] = [
  ['a function', 'cos\nsystem\nX\x02\x00\x00\x00id\x85R', /the name "os\.system" is not allowed/],
  [
    'a class of PyTorch',
    'ctorch.nn.modules.linear\nLinear\n)R',
    /the name "torch\.nn\.modules\.linear\.Linear" is not allowed/,
  ],
  [
    'a function by stack',
    'X\x02\x00\x00\x00osX\x06\x00\x00\x00system\x93',
    /opcode STACK_GLOBAL at byte \d+ is not allowed/,
  ],
  ['an instance', '(cos\nsystem\n', /"os\.system"/],
  ['INST', '(ios\nsystem\n', /opcode INST/],
  ['NEWOBJ', 'ccollections\nOrderedDict\n)\x81', /opcode NEWOBJ/],
  ['an extension', '\x82\x01', /opcode EXT1/],
  ['no opcode', '\xff', /opcode 0xff/],
  ['a call of a type', 'ctorch\nFloatStorage\n)R', /calls "torch\.FloatStorage"/],
  ['a call of a value', 'K\x01)R', /calls "what is no function"/],
  ['attributes of a tuple', ')}b', /sets attributes of what is no dict/],
  ['too few values', 'RR', /calls|takes more values/],
  ['no mark', 't', /takes a mark where there is none/],
  ['empty memory', 'h\x05', /reads place 5 of its memory/],
  ['another persistent object', 'X\x01\x00\x00\x00mQ', /no storage/],
  ['a number', 'K\x07', /"w" is no tensor/],
  ['nested names', '}', /"w" is no tensor/],
  [
    'a tensor of nothing',
    'ctorch._utils\n_rebuild_tensor_v2\n)R',
    /other than a storage, an offset, a size and a stride/,
  ],
  ['a key twice', 'K\x01sX\x01\x00\x00\x00wK\x02', /"w" stands twice/],
  ['an end too early', 'X\xff\x00\x00\x00', /ends in the middle of an opcode/],
];
for (const [what, ops, reason] of NAMES) test(`refuses: ${what}`, () => refuses(holding(ops), reason));

const four = { dtype: 'F32', shape: [4], storage: new Float32Array(4) } as const;
test('refuses tensors outside of their storage, and storages outside of the archive', async () => {
  await refuses(
    pth({ x: { ...four, shape: [5] } }),
    /tensor "x": a view \[5\] with strides \[1\] from 0 does not fit its storage of 4/,
  );
  await refuses(pth({ x: { ...four, offset: 1 } }), /does not fit its storage/);
  await refuses(pth({ x: { ...four, shape: [2], strides: [4] } }), /does not fit its storage/);
  await refuses(pth({ x: { ...four, shape: [1e6], strides: [0] } }), /does not fit its storage/);
  await refuses(pth({ x: { ...four, shape: [2 ** 40, 2 ** 40] } }), /does not fit its storage/);
  await refuses(archive(pickleState({ x: four }).pickle), /no storage "0"/);
  await refuses(
    archive(pickleState({ x: four }).pickle, [new Float32Array(3)]),
    /of 4 F32 needs 16 bytes, the archive has 12/,
  );
});

test('refuses a changed byte: of the pickle at once, of a tensor when it is read to its end', async () => {
  assert.is(crc32Of(Buffer.from('56789'), crc32Of(Buffer.from('1234'))), 0xcbf43926); // the standard check value
  const good = pth(state);
  const pickle = Buffer.from(good);
  pickle[good.indexOf('flag')] = 0x46;
  await refuses(
    pickle,
    /"a\/data\.pkl" is damaged: its checksum is [0-9a-f]+, the archive has [0-9a-f]+; get the file anew$/,
  );
  const tensor = Buffer.from(good);
  const at = good.indexOf(Buffer.from(Float32Array.of(7).buffer));
  tensor[at] = 1;
  const weights = await openWeights(await file(tensor));
  for (const read of [
    () => weights.tensor('w'),
    () => weights.tensor('w.T'),
    async () => {
      for await (const _ of weights.chunks('w', new ArrayBuffer(20)));
    },
  ]) {
    assert.match(
      await read().then(
        () => 'read',
        (e: Error) => e.message,
      ),
      /^\[weights\] .*a\.pth: "a\/data\/0" is damaged: /,
    );
  }
  assert.equal([...(await weights.tensor('half')).data], [1, -2, 3]);
  await weights.close();
});

test('refuses damaged and foreign archives', async () => {
  const good = pth({ x: four });
  const changed = (at: number, ...bytes: number[]) => {
    const b = Buffer.from(good);
    bytes.forEach((byte, i) => {
      b[at + i] = byte;
    });
    return b;
  };
  const directory = good.indexOf('PK\x01\x02');
  await refuses(good.subarray(0, good.length - 1), /no whole zip archive/);
  await refuses(changed(directory + 10, 8), /compressed \(method 8\)/);
  await refuses(changed(directory + 8, 1), /encrypted/);
  await refuses(changed(directory + 42, 1), /is not at byte 1/);
  await refuses(changed(directory + 24, 0xff, 0xff, 0xff, 0x7f), /two sizes/);
  await refuses(changed(directory + 20, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff, 0x7f), /ends at byte/);
  await refuses(changed(good.length - 6, 0xff, 0xff, 0xff, 0x7f), /says its directory has bytes/);
  await refuses(zip([['readme.txt', Buffer.from('hello')]]), /no PyTorch archive: no data\.pkl/);
  await refuses(
    zip([
      ['a/data.pkl', Buffer.from('.')],
      ['a/data.pkl', Buffer.from('.')],
    ]),
    /stands twice/,
  );
  await refuses(Buffer.from('\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.', 'latin1'), /before 1\.6/);
});

test.run();

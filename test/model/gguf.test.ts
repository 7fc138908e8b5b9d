/** GGUF and scaled fp8 files: what is written is read back, on the host and on a device, and what is damaged is refused in one line. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { open } from '../../engine/runtime/device.ts';
import { host } from '../../engine/frontend/tree.ts';
import { OWN } from '../../model/files/names.ts';
import { openWeights } from '../../model/files/open.ts';
import { exportPacked, PACKED_EXPORTS } from '../../model/files/packedexport.ts';
import { saveTensors, writeTensors } from '../../model/files/safetensors.ts';
import { keptAs, upload } from '../../model/files/upload.ts';
import { fromF8E4M3 } from '../../model/halves.ts';
import { unpack } from '../../model/packed.ts';
import { quantise, toF8E4M3 } from '../../model/quantise.ts';
import { draw } from '../../model/params.ts';

const test = suite('gguf');
let folder = '';
const at = (name: string): string => join(folder, name);
const LINEAR = 'blocks.0.ffn.0.weight';
const ROWS = 6;
const SIZE = 512;
const values = draw('normal', 1, LINEAR, ROWS * SIZE);

test.before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'gguf-'));
  await saveTensors(at('whole.safetensors'), {
    [LINEAR]: host(values, [ROWS, SIZE]),
    'blocks.0.ffn.2.weight': host(draw('normal', 1, 'narrow', 4 * 96), [4, 96]),
    'blocks.0.modulation': host(draw('normal', 1, 'm', 6 * 8), [1, 6, 8]),
    'patch_embedding.weight': host(draw('normal', 1, 'p', 64), [4, 4, 1, 2, 2]),
    'time_embedding.0.weight': host(draw('normal', 1, 't', 64), [8, 8]),
  });
});
test.after(() => rm(folder, { recursive: true }));

const relative = (a: Float32Array, b: ArrayLike<number>): number => {
  let [difference, norm] = [0, 0];
  for (let i = 0; i < a.length; i++) [difference, norm] = [difference + (a[i]! - b[i]!) ** 2, norm + a[i]! ** 2];
  return Math.sqrt(difference / norm);
};

test('quantised normals are as near as their bits allow', () => {
  for (const [type, most] of [
    ['q8_0', 0.006],
    ['q5_0', 0.05],
    ['q4_k', 0.08],
  ] as const)
    assert.ok(relative(values, unpack(type, quantise(type, values))) < most, type);
  assert.equal(unpack('q4_k', quantise('q4_k', new Float32Array(256))), new Float32Array(256));
  assert.equal(unpack('q8_0', quantise('q8_0', new Float32Array(32))), new Float32Array(32));
});

test('E4M3 is the nearest code, ties to even, beyond the largest that', () => {
  const codes = fromF8E4M3(Uint8Array.from({ length: 127 }, (_, i) => i));
  for (const x of [...draw('uniform', 1, 'codes', 500).map((u) => 480 * u ** 8), ...codes, 500]) {
    const code = toF8E4M3(Float32Array.of(x))[0]!;
    const off = (i: number): number => Math.abs(codes[i]! - x);
    const best = codes.reduce((b, _, i) => (off(i) < off(b) || (off(i) === off(b) && i % 2 === 0) ? i : b), 0);
    assert.is(code, best, `${x}`);
    assert.is(toF8E4M3(Float32Array.of(-x))[0], best | 0x80);
  }
});

test('what export writes is read back, and lies packed on a device', async () => {
  const device = await open();
  const source = await openWeights(at('whole.safetensors'));
  for (const dtype of PACKED_EXPORTS) {
    const path = at(`${dtype}.out`); // told by its content
    const errors = await exportPacked(path, source, { naming: OWN, dtype, metadata: { kind: 'teacher' } });
    assert.is(errors.length, 2);
    const weights = await openWeights(path);
    assert.is(weights.metadata['kind'], 'teacher');
    assert.equal([...weights.entries.keys()].sort(), [...source.entries.keys()].sort());
    for (const [name, { shape }] of source.entries) {
      assert.equal(weights.entries.get(name)!.shape, shape, name);
      const [was, is] = [await source.tensor(name), await weights.finiteTensor(name)];
      assert.ok(relative(was.data as Float32Array, is.data) < 0.09, `${dtype} ${name}`);
    }
    const kept = keptAs(LINEAR, weights.entries.get(LINEAR)!);
    assert.is(kept, dtype === 'fp8_scaled' ? `f8_e4m3/${SIZE}` : dtype);
    const t = await upload(device, weights, LINEAR);
    const bytes = new Uint8Array(await t.bits());
    assert.equal(unpack(kept as 'q8_0', bytes), (await weights.tensor(LINEAR)).data);
    assert.equal(
      (await weights.rows(LINEAR, [4, 1])).data,
      Float32Array.from(
        [4, 1].flatMap((r) => Array.from(unpack(kept as 'q8_0', bytes).slice(r * SIZE, (r + 1) * SIZE))),
      ),
    );
    await weights.close();
    t.free();
  }
  await source.close();
});

test('scales of a row and of runs, and those that are none', async () => {
  const codes = Uint8Array.from({ length: 4 * 8 }, (_, i) => 0x30 + i);
  const write = (shape: readonly number[], scale: Float32Array) =>
    writeTensors(at('scaled'), {
      'blocks.0.a.weight': { dtype: 'F8_E4M3', shape: [4, 8], values: () => [codes] },
      'blocks.0.a.scale_weight': { dtype: 'F32', shape, values: () => [scale] },
      'blocks.0.a.input_scale': { dtype: 'F32', shape: [], values: () => [Float32Array.of(9)] },
    });
  for (const [shape, run] of [
    [[1], 32],
    [[4, 1], 8],
    [[4, 2, 1], 4],
  ] as const) {
    const scale = Float32Array.from({ length: 32 / run }, (_, i) => 2 ** i);
    await write(shape, scale);
    const weights = await openWeights(at('scaled'));
    assert.equal([...weights.entries.keys()], ['blocks.0.a.weight']);
    const want = fromF8E4M3(codes).map((x, i) => x * scale[Math.floor(i / run)]!);
    assert.equal((await weights.tensor('blocks.0.a.weight')).data, want);
    assert.is(keptAs('blocks.0.a.weight', weights.entries.get('blocks.0.a.weight')!), `f8_e4m3/${Math.min(run, 8)}`);
    await weights.close();
  }
  await write([3], new Float32Array(3).fill(1));
  await refused(at('scaled'), /tensor "blocks\.0\.a\.scale_weight" is F32\[3\], which is no scale of .* \[4,8\]/);
  await write([1], Float32Array.of(NaN));
  const weights = await openWeights(at('scaled'));
  try {
    await weights.tensor('blocks.0.a.weight');
    assert.unreachable();
  } catch (error) {
    assert.match((error as Error).message, /has NaN as a scale: the file is damaged/);
  }
  await weights.close();
});

async function refused(path: string, why: RegExp): Promise<void> {
  const message = await openWeights(path).then(
    () => 'it was read',
    (error: Error) => error.message,
  );
  assert.match(message, why);
  assert.not.match(message, /\n/);
}

test('damage is named', async () => {
  const good = new Uint8Array(await readFile(at('q8_0.out')));
  const changed = async (name: string, at: number, bytes: readonly number[]): Promise<string> => {
    const bad = good.slice();
    bad.set(bytes, at);
    await writeFile(join(folder, name), bad);
    return join(folder, name);
  };
  await refused(await changed('version', 4, [9]), /\[gguf\] .*: is of version 9; versions 2 and 3 are read$/);
  await refused(await changed('count', 8, [0, 0, 0, 0, 0, 0, 0, 0x40]), /says it has 4611686018427387904 tensors/);
  await refused(await changed('x.safetensors', 4, [9]), /: is a GGUF, named \.safetensors, and is of version 9/);
  await writeFile(at('cut.gguf'), good.subarray(0, good.length - 64));
  await refused(at('cut.gguf'), /\[gguf\] .*: tensor ".*" ends at byte \d+, the file has \d+$/);
  await writeFile(at('none.gguf'), 'GGML and more');
  await refused(at('none.gguf'), /is named \.gguf, but does not begin with GGUF/);
});

test.run();

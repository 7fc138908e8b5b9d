/** Damaged weight files: each opens, with tensors that lie in it, or is refused with the one typed error. Nothing crashes or hangs. */
import { Buffer } from 'node:buffer';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { numel } from '../../kernels/kernel.ts';
import { host } from '../../engine/frontend/tree.ts';
import { openWeights } from '../../model/files/open.ts';
import { saveTensors } from '../../model/files/safetensors.ts';
import { bytesOf, WeightsError } from '../../model/files/stored.ts';
import { mutate } from '../campaign/mutate.ts';
import { generator } from '../campaign/random.ts';
import { archive, pickleState, pth, type PthTensor } from './pthfile.ts';

const CASES = 400; // of each seed file
const test = suite('fuzz');
let folder = '';
test.before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'fuzz-'));
});
test.after(() => rm(folder, { recursive: true }));

/** Opens and reads; gives whether it opened. */
async function survives(path: string, size: number): Promise<boolean> {
  try {
    const weights = await openWeights(path);
    try {
      for (const [name, { dtype, shape }] of weights.entries) {
        assert.ok(numel(shape) * bytesOf(dtype, 1) <= size, `${name} is larger than its file`);
        assert.is((await weights.read(name)).length, numel(shape));
      }
      return true;
    } finally {
      await weights.close();
    }
  } catch (error) {
    assert.instance(error, WeightsError, (error as Error).stack);
    const { cause, message } = error as WeightsError;
    assert.not(
      cause instanceof TypeError || cause instanceof RangeError,
      `an accident, not a refusal: ${message}\n${(cause as Error)?.stack}`,
    );
    return false;
  }
}

const shared = Float32Array.from({ length: 12 }, (_, i) => i);
const state: Record<string, PthTensor> = {
  w: { dtype: 'F32', shape: [3, 4], storage: shared },
  'w.T': { dtype: 'F32', shape: [4, 3], strides: [1, 4], storage: shared },
  h: { dtype: 'BF16', shape: [3], storage: Uint16Array.of(1, 2, 3) },
  n: { dtype: 'I64', shape: [], storage: BigInt64Array.of(5n) },
};

const SEEDS: Record<string, () => Promise<Buffer>> = {
  safetensors: async () => {
    const path = join(folder, 'seed');
    await saveTensors(
      path,
      { a: host([1, 2, 3, 4], [2, 2]), 'b.c': host([], [0, 2]), id: host(Int32Array.of(7), []) },
      { metadata: { format: 'pt' } },
    );
    return readFile(path);
  },
  pth: async () => pth(state),
  zip64: async () => pth(state, true),
};

for (const [i, [name, make]] of Object.entries(SEEDS).entries()) {
  test(`${CASES} damaged files: ${name}`, async () => {
    const random = generator(i);
    const seed = await make();
    const path = join(folder, name);
    let opened = 0;
    for (let n = 0; n < CASES; n++) {
      const bytes = mutate(seed, random);
      await writeFile(path, bytes);
      opened += Number(await survives(path, bytes.length));
    }
    assert.ok(opened > 0 && opened < CASES / 2, `${opened} opened`);
  });
}

test(`${CASES} damaged pickles in whole archives`, async () => {
  const random = generator(9);
  const { pickle, storages } = pickleState(state);
  for (let n = 0; n < CASES; n++) {
    const bytes = archive(mutate(pickle, random), storages);
    await writeFile(join(folder, 'pickle'), bytes);
    await survives(join(folder, 'pickle'), bytes.length);
  }
});

test('a header of megabytes, deep nesting and a pickle of many marks are only long', async () => {
  const path = join(folder, 'long');
  await saveTensors(path, { a: host([1], [1]) }, { metadata: { tags: '"\\ x'.repeat(5e5) } });
  assert.ok(await survives(path, 2 ** 30));
  const deep = '['.repeat(1e6);
  await writeFile(path, Buffer.concat([Buffer.from(BigUint64Array.of(BigInt(deep.length)).buffer), Buffer.from(deep)]));
  assert.not(await survives(path, 2 ** 30));
  await writeFile(path, archive(Buffer.from(`\x80\x02${'('.repeat(1e5)}${'t'.repeat(1e5)}.`, 'latin1')));
  assert.not(await survives(path, 2 ** 30));
});

test.run();

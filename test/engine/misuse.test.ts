/** What a stranger gets wrong: each mistake is one line that names the op, what it got and the way out, and the device goes on. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { open } from '../../engine/runtime/device.ts';
import { concat, conv3d, gather, groupNorm } from '../../engine/frontend/functional.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { trace } from '../../engine/frontend/trace.ts';
import { host } from '../../engine/frontend/tree.ts';

const device = await open();
const x = host([1, 2, 3, 4, 5, 6], [2, 3]);
const ids = host(Int32Array.of(1, 0, 1), [3]);

const TRACED: [what: string, fn: (x: Tensor, ids: Tensor) => unknown, line: RegExp][] = [
  [
    'an array inside',
    (t) => t.add(device.zeros([3]) as unknown as Tensor),
    /^\[add\] expected a traced tensor or a number, got NDArray: arrays come in as arguments/,
  ],
  ['nothing', (t) => t.mul(undefined as unknown as number), /^\[mul\] .* got undefined/],
  ['an array among parts', (t) => concat([t, x as unknown as Tensor], 0), /^\[concat\] .* got Object/],
  ['sizes below zero', (t) => t.reshape([-2, -3]), /^\[reshape\] sizes must be whole numbers, got \[-2,-3\]/],
  ['parts of sizes', (t) => t.reshape([1.5, 4]), /^\[reshape\] .* got \[1\.5,4\]/],
  ['half a position', (t) => t.slice(0, 0.5, 2), /^\[slice\] 0\.5:2:1 is no range of axis 0 of \[2,3\]/],
  ['no parts', (t) => t.split(1, 0), /^\[split\] axis 1 of \[2,3\] does not split into 0/],
  ['no groups', (t) => groupNorm(t, 0, t, t), /^\[groupNorm\] 3 channels of \[2,3\] do not split into 0 groups/],
  [
    'no stride',
    (t) => conv3d(t.reshape([1, 1, 1, 2, 3]), t.reshape([1, 1, 1, 2, 3]), undefined, { stride: [0, 1, 1] }),
    /^\[conv3d\] strides must be whole numbers from 1/,
  ],
  ['an unknown dtype', (t) => t.cast('f64' as never), /^\[cast\] expected one of f32, f16, bf16, i32, u32, got f64/],
  ['a fraction of an integer', (_, i) => i.add(0.5), /^\[const\] 0\.5 is no i32: cast the tensor/],
];

for (const [what, fn, line] of TRACED) {
  test(`${what} is refused`, () => {
    assert.throws(() => trace(fn as never, [x, ids]), line);
  });
}

test('arrays of another device, freed ones and wrong bits are refused, and the device is none the worse', async () => {
  const twice = device.compile((t: { w: Tensor }) => t.w.mul(2), { name: 'twice' });
  const refused = async (w: unknown): Promise<string> =>
    twice({ w } as never).then(
      () => 'taken',
      (e: Error) => e.message,
    );
  const other = await open();
  assert.match(await refused(other.tensor(Float32Array.of(1), [1])), /^\[twice\] argument 0 w lies on another device/);
  other.close();
  const gone = device.zeros([2, 3]);
  gone.free();
  assert.match(await refused(gone), /^\[tensor\] f32\[2,3\] was freed/);
  assert.match(
    await refused(new Float32Array(3)),
    /^\[compile\] .* got Float32Array; numbers in an array come as host\(data, shape\)/,
  );
  assert.throws(
    () => device.tensor(Float32Array.of(1, 2), [2], 'f16'),
    /^\[tensor\] f16 takes its bits in a Uint16Array, got a Float32Array/,
  );
  assert.throws(() => device.zeros([1.5]), /sizes must be whole numbers, got \[1\.5\]/);
  const two = device.tensor(Float32Array.of(1, 2), [2]);
  assert.match(
    await two.item().then(
      () => '',
      (e: Error) => e.message,
    ),
    /item\(\) is of one value, this is f32\[2\]/,
  );
  assert.equal([...(await (await twice({ w: two })).read())], [2, 4]);
});

test('empty tensors are computed with', async () => {
  const fn = (none: Tensor, three: Tensor) => ({
    joined: concat([none, three], 0),
    sum: none.sum([0]),
    rows: none.softmax(),
    columns: none.transpose().layerNorm(),
    product: none.matmul(three.transpose()),
    inner: none.matmul(none, { transA: true }),
  });
  const shapes: Record<string, readonly number[]> = {};
  for (const [name, t] of Object.entries(await device.compile(fn)(host([], [0, 3]), x))) {
    shapes[name] = t.shape;
    assert.equal([...(await t.read())], name === 'joined' ? [1, 2, 3, 4, 5, 6] : Array<number>(t.size).fill(0), name);
  }
  assert.equal(shapes, { joined: [2, 3], sum: [3], rows: [0, 3], columns: [3, 0], product: [0, 2], inner: [3, 3] });
});

test('a tensor has the dtype of its array', () => {
  assert.is(device.tensor(Int32Array.of(1), [1]).dtype, 'i32');
  assert.is(device.tensor(Uint32Array.of(1), [1]).dtype, 'u32');
  assert.is(device.tensor(new Float64Array(1), [1]).dtype, 'f32');
});

test('rows of whole numbers keep their bits', async () => {
  const table = host(Int32Array.of(3, -7, 2147483647, 1), [2, 2]);
  assert.equal(
    [...(await (await device.compile((t: Tensor, i: Tensor) => gather(t, i))(table, ids)).read())].map(Math.fround),
    [2147483647, 1, 3, -7, 2147483647, 1].map(Math.fround),
  );
});

test.run();

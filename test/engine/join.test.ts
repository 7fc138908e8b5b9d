/** Pieces of an input read where they lie, and parts made where they belong: no copy where none is needed, the right numbers everywhere. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { open } from '../../engine/runtime/device.ts';
import { join } from '../../engine/frontend/functional.ts';
import { evaluate } from '../../engine/frontend/oracle.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { trace } from '../../engine/frontend/trace.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { held } from '../held.ts';

const device = await open();
const numbers = (n: number, seed = 1): HostTensor =>
  host(
    Float32Array.from({ length: n }, (_, i) => Math.sin(seed + 0.7 * i)),
    [n],
  );

/** Runs `fn` and holds it against the oracle. @returns its kernels */
async function check(fn: (...x: Tensor[]) => Tensor[], inputs: HostTensor[], donate: number[] = []): Promise<number> {
  const { graph, outputs } = trace(
    fn,
    inputs.map(({ shape, dtype }) => ({ shape, dtype })),
  );
  const compiled = device.compile(
    (...x: Tensor[]) => Object.fromEntries(fn(...x).map((y, i) => [donate.includes(i) ? `x${i}` : `y${i}`, y])),
    { name: 'join' },
  );
  const arrays = inputs.map((t) => device.tensor(t.data, t.shape));
  const { kernels } = await compiled.plan(...arrays);
  const got = await compiled(...arrays);
  for (const [i, want] of evaluate(graph, outputs, inputs).entries()) {
    const data = await Object.values(got)[i]!.read();
    assert.ok(
      want.data.every((x, k) => Math.abs(x - data[k]!) < 1e-5 * Math.max(1, Math.abs(x))),
      `output ${i}`,
    );
  }
  await compiled.free();
  arrays.forEach((a) => a.free());
  return kernels;
}
const matrix = (x: Tensor, at: number): Tensor => x.slice(0, at, at + 64).reshape([8, 8]);

test('a product reads an aligned piece of an input where it lies, and a copy of any other', async () => {
  assert.is(await check((x) => [matrix(x!, 64).matmul(matrix(x!, 192))], [numbers(256)]), 1);
  assert.is(await check((x) => [matrix(x!, 64).matmul(matrix(x!, 100))], [numbers(256)]), 2);
});

test('parts are made in their places: a join of products is the products alone', async () => {
  const products = (x: Tensor) => [0, 64, 128].map((at) => matrix(x, at).matmul(matrix(x, 192)).reshape([-1]));
  assert.is(await check((x) => [join(products(x!))], [numbers(256)]), 3);
  assert.is(await check((x) => [join(products(x!)).exp()], [numbers(256)]), 4);
  assert.is(
    await check(
      (x) => {
        const [a, b, c] = products(x!);
        return [join([join([a!, b!]), c!]).exp()];
      },
      [numbers(256)],
    ),
    4,
  );
});

test('what others read too, what stands twice, inputs and results are copied into the whole', async () => {
  const two = (x: Tensor): [Tensor, Tensor] => [
    matrix(x, 0).matmul(matrix(x, 64)).reshape([-1]),
    matrix(x, 64).matmul(matrix(x, 0)).reshape([-1]),
  ];
  assert.is(
    await check(
      (x) => {
        const [a, b] = two(x!);
        return [join([a, b]).square(), a.sum()];
      },
      [numbers(128)],
    ),
    5,
  );
  assert.is(
    await check(
      (x) => {
        const [a, b] = two(x!);
        return [join([a, b, a]).square()];
      },
      [numbers(128)],
    ),
    5,
  );
  assert.is(
    await check(
      (x, y) => {
        const [a] = two(x!);
        return [join([a, y!, x!]).square()];
      },
      [numbers(128), numbers(64)],
    ),
    4,
  );
  assert.is(
    await check(
      (x) => {
        const [a, b] = two(x!);
        return [join([a, b]), b];
      },
      [numbers(128)],
    ),
    3,
  );
  assert.is(
    await check(
      (x) => {
        const [a, b] = two(x!);
        return [join([join([a, b]), join([b, a])]).square()];
      },
      [numbers(128)],
    ),
    7,
    'four copies into the inner joins, which lie in the outer',
  );
});

test('a join of consecutive pieces is their tensor, in any other order it is not', async () => {
  assert.is(await check((x) => [join([x!.slice(0, 0, 64), x!.slice(0, 64, 192)]).exp()], [numbers(192)]), 1);
  assert.ok((await check((x) => [join([x!.slice(0, 64, 192), x!.slice(0, 0, 64)]).exp()], [numbers(192)])) > 1);
  assert.ok((await check((x) => [join([x!.slice(0, 0, 64), x!.slice(0, 64, 128)]).exp()], [numbers(192)])) > 1);
});

test('a donated tensor is not overwritten while a piece of it is still read', async () => {
  const x = numbers(128);
  const step = device.compile(
    (s: { x: Tensor }) => ({
      x: s.x.add(join([s.x.slice(0, 64, 128), s.x.slice(0, 0, 64)])),
      sum: s.x.slice(0, 64, 128).sum(),
    }),
    { donate: [0], name: 'turn' },
  );
  const given = device.tensor(x.data, x.shape);
  const { sum } = await step({ x: given });
  assert.ok(
    Math.abs(
      (await sum.item()) -
        Array.from(x.data)
          .slice(64)
          .reduce((a, b) => a + b, 0),
    ) < 1e-4,
  );
  assert.ok((await given.read()).every((y, i) => Math.abs(y - x.data[i]! - x.data[(i + 64) % 128]!) < 1e-6));
  await step.free();
  given.free();
});

test('views share the memory of their whole; what cannot be bound or donated is refused', async () => {
  const before = await held(device);
  const whole = device.tensor(numbers(128).data, [128]);
  const view = whole.view(64, [8, 8]);
  assert.equal(await view.read(), (await whole.read()).slice(64));
  assert.throws(() => whole.view(3, [4]), /^\[tensor\] a view begins at a multiple of 256 bytes, got 12/);
  const step = device.compile((x: Tensor) => x.mul(2), { donate: [0], name: 'twice' });
  await step(view).then(
    () => assert.unreachable(),
    (error: Error) => assert.match(error.message, /is a view: donate the whole/),
  );
  view.free();
  assert.throws(() => whole.check(), /freed/);
  await step.free();
  assert.is(device.allocated, before);
});

test.run();

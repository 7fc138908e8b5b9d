/** Inputs that stay in host memory: the bits of the resident run, what is planned is what is held, and two sets at a time. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { vjp } from '../../engine/frontend/autodiff.ts';
import { constant, gelu, linear } from '../../engine/frontend/functional.ts';
import { checkpoint } from '../../engine/frontend/remat.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { parkValues } from '../../engine/compiler/parking.ts';
import { planStreaming, type StreamedRead } from '../../engine/compiler/streaming.ts';
import { open } from '../../engine/runtime/device.ts';
import { STAGING_BYTES } from '../../engine/runtime/staging.ts';
import { Streamed } from '../../engine/runtime/streamed.ts';
import { toBF16 } from '../../model/halves.ts';
import { held } from '../held.ts';

const test = suite('streamed');
const device = await open();
const [WIDTH, LAYERS] = [64, 5];
const numbers = (n: number, seed: number): Float32Array =>
  Float32Array.from({ length: n }, (_, i) => Math.sin(i * 12.9898 + seed * 78.233) / 8);

interface Layer<X> {
  w: X;
  b: X;
}

/** A stack of recomputed layers, and the gradient towards its input. */
const stacked = ({ x }: { x: Tensor }, layers: readonly Layer<Tensor>[]): { x: Tensor; g: Tensor } => {
  const y = layers.reduce((h, { w, b }) => checkpoint((z: Tensor) => z.add(gelu(linear(z, w, b), 'tanh')))(h), x);
  return { x: y, g: vjp(y.square().sum(), constant(1), x) };
};

const layersOf = <X>(make: (data: Uint16Array | Float32Array, shape: number[], set: number) => X): Layer<X>[] =>
  Array.from({ length: LAYERS }, (_, i) => ({
    w: make(toBF16(numbers(WIDTH * WIDTH, i)), [WIDTH, WIDTH], i),
    b: make(numbers(WIDTH, 100 + i), [WIDTH], i),
  }));
const typeOf = (shape: number[]) => (shape.length > 1 ? 'bf16' : 'f32');
const streamed = layersOf((data, shape, set) => new Streamed(data, shape, typeOf(shape), `layer ${set}`));

test('forward and recomputing backward give the bits of resident weights', async () => {
  const resident = layersOf((data, shape) => device.tensor(data, shape, typeOf(shape)));
  const x = device.tensor(numbers(8 * WIDTH, 7), [8, WIDTH]);
  const run = device.compile(stacked, { name: 'stacked' });
  const wanted = await run({ x }, resident);
  const [y, g] = [await wanted.x.bits(), await wanted.g.bits()];
  for (let i = 0; i < 3; i++) {
    const got = await run({ x }, streamed);
    assert.equal(new Uint8Array(await got.x.bits()), new Uint8Array(y));
    assert.equal(new Uint8Array(await got.g.bits()), new Uint8Array(g));
  }
  const calls = await Promise.all([run({ x }, streamed), run({ x }, resident), run({ x }, streamed)]);
  for (const c of calls) assert.is(c.x.dtype, 'f32');
  const plan = await run.plan({ x }, streamed);
  const all = resident.flatMap(({ w, b }) => [w, b]).reduce((sum, t) => sum + t.bytes, 0);
  const layer = all / LAYERS;
  assert.is(plan.streamed, 2 * all - layer, 'forward, then backward but for the layer that is there');
  assert.ok((await run.plan({ x }, resident)).bytes + 3.1 * layer > plan.bytes);
  await run.free();
});

test('what is planned is what is held, and all of it is given back', async () => {
  const before = await held(device);
  const x = device.tensor(numbers(8 * WIDTH, 7), [8, WIDTH]);
  const run = device.compile(stacked, { donate: [0], name: 'stacked' });
  const { bytes } = await run.plan({ x }, streamed);
  device.peak = device.allocated;
  await run({ x }, streamed);
  assert.is(device.peak - before - x.bytes, bytes + STAGING_BYTES);
  await run.free();
  x.free();
  assert.is(await held(device), before);
});

test('values that wait while other sets are read lie in host memory', async () => {
  const x = device.tensor(numbers(8 * 4 * WIDTH * WIDTH, 7), [32 * WIDTH, WIDTH]); // 512 KiB
  const resident = layersOf((data, shape) => device.tensor(data, shape, typeOf(shape)));
  const run = device.compile(stacked, { name: 'stacked' });
  const wanted = await run({ x }, resident);
  const [y, g] = [await wanted.x.bits(), await wanted.g.bits()];
  const [whole, parked] = [await run.plan({ x }, resident), await run.plan({ x }, streamed)];
  assert.is(whole.parked, 0);
  assert.ok(parked.parked >= x.bytes && parked.host[0]! >= x.bytes);
  assert.is(parked.streamed % 4, 0);
  assert.ok(whole.bytes - parked.bytes > x.bytes / 2, `${whole.bytes} ${parked.bytes}`);
  for (let i = 0; i < 2; i++) {
    const larger = device.compile((t: Tensor) => t.add(1).softmax().square().sum(), { name: 'larger' }); // made meanwhile
    const wide = device.zeros([2048 + i, 1024]);
    const [got, other] = await Promise.all([run({ x }, streamed), run({ x }, resident), larger(wide)]);
    assert.equal(new Uint8Array(await other.x.bits()), new Uint8Array(y));
    assert.equal(new Uint8Array(await got.g.bits()), new Uint8Array(g));
    await larger.free();
  }
  await run.free();
});

test('a value waits where a set begins and ends before it is read again, and comes back shortly before', () => {
  const value = (bytes: number, ...uses: number[]) => ({ name: 'v', bytes, uses });
  const visits = [0, 10, 20, 30];
  const { blocks, parked } = parkValues(
    new Map([
      ['waits', value(2 ** 20, 5, 6, 31)],
      ['stays', value(2 ** 20, 5, 11, 21, 31)],
      ['small', value(16, 5, 31)],
    ]),
    visits,
  );
  const times = (name: string) => blocks.get(name)!.map(({ first, last }) => [first, last]);
  assert.equal(times('waits'), [
    [5, 6],
    [28, 31],
  ]);
  assert.equal(times('stays'), [[5, 31]]);
  assert.equal(times('small'), [[5, 31]]);
  assert.equal([parked.length, parked[0]!.kept.first, parked[0]!.kept.last], [1, 7, 28]);
});

test('a tensor over a mapped buffer comes in parts', async () => {
  const [rows, columns] = [3000, 1024]; // 12 MB
  const data = numbers(rows * columns, 3);
  const copy = device.compile((t: Tensor) => t.add(1), { name: 'copy' });
  const got = await (await copy(new Streamed(data, [rows, columns], 'f32', 'all'))).read();
  assert.is(
    got.findIndex((v, i) => v !== Math.fround(data[i]! + 1)),
    -1,
  );
  await copy.free();
});

test('a streamed tensor cannot be donated, nor kept from while a call is under way', async () => {
  const [first] = streamed;
  const grow = device.compile((t: { w: Tensor }) => ({ w: t.w.add(1) }), { donate: [0], name: 'grow' });
  const error = await grow({ w: first!.b }).then(
    () => undefined,
    (e: Error) => e,
  );
  assert.match(error?.message ?? '', /\[grow\] argument 0 w stays in host memory/);
  const x = device.tensor(numbers(8 * WIDTH, 7), [8, WIDTH]);
  const run = device.compile(stacked, { donate: [0], name: 'stacked' });
  await run({ x }, streamed);
  const going = run({ x }, streamed);
  assert.throws(() => x.keep(), /was donated to a call/);
  await going;
  assert.is(x.keep().bytes, x.bytes);
  await run.free();
});

test('a device that is lost while a run waits for its inputs is told', async () => {
  const other = await open();
  const x = other.tensor(numbers(8 * WIDTH, 7), [8, WIDTH]);
  const run = other.compile(stacked, { name: 'stacked' });
  await run({ x }, streamed);
  const going = run({ x }, streamed).then(
    () => undefined,
    (e: Error) => e,
  );
  other.gpu.destroy();
  assert.match((await going)?.message ?? 'nothing', /^\[device\] lost: destroyed/);
  other.close();
});

test('what comes next is brought while a set is read; sets that take turns stay', () => {
  const read = (input: number, set: string): StreamedRead => ({ input, bytes: 1024, set });
  const [a, b, c, d] = [read(0, 'a'), read(1, 'b'), read(2, 'c'), read(3, 'c')];
  const { loads, bytes, memory } = planStreaming([[], [a], [a], [b], [b], [], [c, d], [b], [c], [a], [a]], 2 ** 30);
  assert.equal(
    loads.map(({ input, block: { first, last } }) => [input, first, last]),
    [
      [0, 0, 2],
      [1, 1, 7],
      [2, 3, 8],
      [3, 3, 6],
      [0, 6, 10],
    ],
  );
  assert.is(bytes, 5 * 1024);
  assert.equal(memory.arenas, [4096]);
});

test.run();

/** Calls that overlap, results given back, things freed at any moment: the right numbers, or one line that refuses; the device goes on. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { pause } from '../../engine/host/runtime.ts';
import { open, type Device } from '../../engine/runtime/device.ts';
import type { NDArray } from '../../engine/runtime/ndarray.ts';
import { MAX_PROGRAMS } from '../../engine/runtime/programs.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { held } from '../held.ts';

const device = await open();
const list = (...x: number[]): HostTensor => host(x, [x.length]);
const values = async (t: NDArray): Promise<number[]> => [...(await t.read())];
const double = (name = 'double') => device.compile((x: Tensor) => x.mul(2), { name });

/** Its message, which must name a line of this file. */
async function refusal(body: () => unknown): Promise<string> {
  try {
    await body();
  } catch (error) {
    const { message } = error as Error;
    assert.match(message, /^\[.+\(test\/engine\/state\.test\.ts:\d+\)$/s);
    return message;
  }
  return 'taken';
}

/** Works as ever: no misuse before has left an error behind. */
async function goesOn(on: Device = device): Promise<void> {
  assert.is(await (await on.compile((x: Tensor) => x.add(1))(list(1))).item(), 2);
}

test('overlapping calls give each its own numbers, whatever is awaited when', async () => {
  const f = double();
  for (const warm of [false, true]) {
    const out = await Promise.all([1, 2, 3, 4].map((v) => f(list(v))));
    assert.equal(await Promise.all(out.map((t) => t.item())), [2, 4, 6, 8], `held until all are there, warm ${warm}`);
  }
  const late = [5, 6, 7].map((v) => f(list(v)));
  const backwards: number[] = [];
  for (const p of late.toReversed()) backwards.push(await (await p).item());
  assert.equal(backwards, [14, 12, 10]);
  const loop = async (base: number) => {
    for (let k = 0; k < 50; k++) assert.is(await (await f(list(base + k))).item(), 2 * (base + k));
  };
  await Promise.all([loop(100), loop(1000), loop(10000)]);
  await f.free();
});

test('a call takes its data when it is made', async () => {
  for (const warm of [false, true]) {
    const f = double();
    const x = Float32Array.of(1);
    if (warm) await f(host(x, [1]));
    const first = f(host(x, [1]));
    x[0] = 2;
    const second = f(host(x, [1]));
    x[0] = 3;
    assert.equal([await (await first).item(), await (await second).item()], [2, 4]);
    await f.free();
  }
});

test('calls take effect in the order in which they are made, whichever compiles first', async () => {
  const add = device.compile((s: { w: Tensor }, x: Tensor) => ({ w: s.w.add(x) }), { donate: [0] });
  const scale = device.compile((s: { w: Tensor }) => ({ w: s.w.sin().mul(0).add(s.w).mul(3) }), { donate: [0] });
  const w = device.zeros([1]);
  await scale({ w });
  const calls = [add({ w }, list(1)), scale({ w }), add({ w }, list(1)), scale({ w })];
  assert.is(await w.item(), 12, 'a read sees the calls before it');
  await Promise.all(calls);
  const again = device.compile((s: { w: Tensor }) => ({ w: s.w.cos().mul(0).add(s.w).add(1) }), { donate: [0] })({ w });
  assert.match(await refusal(() => w.keep()), /was donated to a call that has not begun: await that first/);
  assert.is(await (await again).w.item(), 13);
  assert.is(await w.keep().item(), 13);
  w.free();
});

test('results may be given back to their program: whole, swapped, in part, through views, twice', async () => {
  type State = Record<string, Tensor>;
  const loops: [fn: (s: State) => State, start: Record<string, number[]>, want: Record<string, number[]>][] = [
    [(s) => ({ x: s.x!.add(1) }), { x: [1] }, { x: [5] }],
    [(s) => ({ a: s.b!.mul(1.5), b: s.a!.mul(0.5) }), { a: [1], b: [100] }, { a: [0.5625], b: [56.25] }],
    [(s) => ({ a: s.b!, b: s.a!.add(s.b!) }), { a: [0], b: [1] }, { a: [3], b: [5] }],
    [(s) => ({ x: s.x!.add(s.v!), v: s.v!.mul(0.5) }), { x: [0, 1], v: [8, 16] }, { x: [15, 31], v: [0.5, 1] }],
    [(s) => ({ x: s.x!.sub(s.x!.sum([0], true).mul(0.25)) }), { x: [1, 3] }, { x: [-0.875, 1.125] }],
  ];
  for (const [fn, start, want] of loops) {
    const f = device.compile(fn);
    let s: Record<string, NDArray | HostTensor> = Object.fromEntries(
      Object.entries(start).map(([k, x]) => [k, list(...x)]),
    );
    for (let k = 0; k < 4; k++) s = await f(s);
    for (const [k, x] of Object.entries(want)) assert.equal(await values(s[k] as NDArray), x, String(fn));
    await f.free();
  }
  const f = device.compile((s: { a: Tensor; b: Tensor }) => ({ a: s.a.add(s.b), b: s.b.mul(2) }));
  const before = await held(device);
  let r = await f({ a: list(...Array<number>(128).fill(1)), b: list(...Array<number>(128).fill(2)) });
  r = await f({ a: r.a, b: r.a }); // 6, 6
  const g = device.compile((s: { a: Tensor; b: Tensor }) => ({ a: s.a.add(s.b), b: s.a }));
  let t = await g({ a: r.a.view(64, [64]), b: r.a.view(0, [64]) }); // 12, 6
  for (let k = 0; k < 5; k++) t = await g({ a: t.a, b: t.a });
  assert.equal([(await values(t.a))[0], (await values(t.b))[63]], [384, 192]);
  await f.free();
  await g.free();
  assert.is(device.allocated, before);
});

test('calls that overlap take memory for a while, calls one after the other what was planned', async () => {
  const f = device.compile((x: Tensor) => x.add(1), { name: 'f' });
  const x = host(new Float32Array(1024), [1024]);
  const before = await held(device);
  const { bytes } = await f.plan(x);
  for (let k = 0; k < 3; k++) await f(x);
  assert.is(device.allocated - before, bytes);
  await Promise.all(Array.from({ length: 8 }, () => f(x)));
  assert.is(device.allocated - before, bytes + 7 * 4096);
  for (let k = 0; k < 40; k++) await f(x);
  assert.is(device.allocated - before, bytes);
  await f.free();
  assert.is(device.allocated, before);
});

test('what was freed is refused by name, at whatever moment', async () => {
  const f = double();
  const r = await f(list(3));
  const inFlight = f(list(4));
  const freed = f.free();
  const y = await inFlight;
  await freed;
  for (const use of [() => r.read(), () => y.item(), () => r.keep(), () => double()(r), () => r.view(0, [1])])
    assert.match(await refusal(use), /the program that made this f32\[1\] was freed/);
  assert.is(await (await f(list(5))).item(), 10, 'compiled anew');
  await f.free();
  await f.free();

  const g = device.compile((x: Tensor) => x.exp().sin(), { name: 'g' });
  const first = g(list(0));
  await g.free();
  assert.match(await refusal(async () => (await first).item()), /was freed/);

  const h = device.compile((x: Tensor) => x.exp().cos(), { name: 'h' });
  const w = device.tensor(Float32Array.of(1), [1]);
  const early = h(w);
  w.free();
  w.free();
  assert.match(await refusal(() => early), /\[tensor\] f32\[1\] was freed/);
  const w2 = device.tensor(Float32Array.of(0), [1]);
  await h(w2);
  const late = h(w2);
  w2.free();
  assert.ok(Math.abs((await (await late).item()) - Math.cos(1)) < 1e-6, 'what was submitted is done');
  await goesOn();
});

test('views past the end, wrong data and wrong types are refused', async () => {
  const a = device.zeros([64]);
  const f = double();
  const x = (data: unknown, shape: unknown = [1], dtype: unknown = 'f32') => ({ shape, dtype, data }) as HostTensor;
  for (const [body, line] of [
    [() => a.view(64, [1024]), /^\[tensor\] a view of f32\[1024\] from 64 on is not all in f32\[64\]/],
    [() => a.view(64, [0]), /^\[tensor\] a view of f32\[0\] from 64 on is not all in/],
    [() => a.view(-64, [64]), /^\[tensor\] a view of f32\[64\] from -64 on is not all in/],
    [() => a.view(NaN, [1]), /^\[tensor\] a view of f32\[1\] from NaN on is not all in/],
    [() => a.view(0.5, [1]), /^\[tensor\] a view begins at a multiple of 256 bytes, got 2/],
    [() => a.view(0, [-1]), /^\[tensor\] sizes must be whole numbers/],
    [() => device.zeros([NaN]), /^\[tensor\] sizes must be whole numbers, got \[NaN\]/],
    [
      () => device.zeros([4], 'f64' as never),
      /^\[tensor\] expected one of f32, f16, bf16, i32, u32 or a packed type, got f64/,
    ],
    [() => device.zeros(4 as never), /^\[tensor\] a shape is an array of sizes, got number/],
    [() => device.tensor(undefined as never, [1]), /^\[tensor\] data are numbers in an array .* got undefined/],
    [() => device.tensor(Float32Array.of(1.5), [1], 'i32'), /^\[tensor\] 1\.5 at element 0 is no i32/],
    [() => f(x(Float32Array.of(1), [4])), /^\[double\] argument 0: 1 numbers do not fill \[4\]/],
    [() => f(x(new Float32Array(5000))), /^\[double\] argument 0: 5000 numbers do not fill \[1\]/],
    [() => f(x(new BigInt64Array(1))), /^\[double\] argument 0: data are numbers .* got BigInt64Array/],
    [() => f(x(['1'])), /^\[double\] argument 0: data are numbers .* got Array/],
    [() => f(x([1], [1], 'f64')), /^\[compile\] expected one of .* got f64/],
    [() => f(x([1], [NaN])), /^\[compile\] sizes must be whole numbers/],
    [() => host([3e9], [1], 'i32'), /^\[host\] 3000000000 at element 0 is no i32/],
  ] as [() => unknown, RegExp][])
    assert.match(await refusal(body), line);
  assert.throws(() => ((a.shape as number[])[0] = 1000), 'a shape stays');
  assert.equal((await values(a.view(0, [64]))).length, 64);
  await goesOn();
});

test('a closed device says so', async () => {
  const other = await open();
  const a = other.tensor(Float32Array.of(1), [1]);
  const f = other.compile((x: Tensor) => x.add(1));
  const call = await f(a);
  const reading = a.read().then(
    () => 'read',
    (e: Error) => e.message,
  );
  other.close();
  other.close();
  assert.match(await reading, /^read$|^\[device\] it was closed/);
  for (const use of [() => a.read(), () => call.item(), () => a.keep(), () => f(a), () => other.zeros([1])])
    assert.match(await refusal(use), /^\[device\] it was closed: open\(\) gives another/);
  a.free();
  await f.free();
  await goesOn();
});

test('numbers from the host in a donated argument are brought to the device, where their results stay', async () => {
  const step = device.compile((s: { w: Tensor; n: Tensor }, x: Tensor) => ({ w: s.w.add(x), l: s.w.sum(), n: s.n }), {
    donate: [0],
    name: 'step',
  });
  const first = await step({ w: list(1, 1), n: 7 }, list(1, 2));
  assert.equal(await values(first.w), [2, 3]);
  const second = await step({ w: first.w, n: first.n }, list(1, 2));
  assert.is(second.w, first.w, 'from then on in place');
  assert.equal([...(await values(second.w)), await second.l.item(), await second.n.item()], [3, 5, 5, 7]);
  const before = await held(device);
  const sum = device.compile((x: Tensor) => ({ sum: x.sum() }), { donate: [0] });
  await sum(list(1, 2));
  await sum.free();
  assert.is(device.allocated, before, 'what nothing replaces is given back');
  const none = device.compile((x: Tensor) => x.add(1), { donate: [5], name: 'none' });
  assert.match(await refusal(() => none(list(1))), /^\[none\] donate: argument 5 is none of the 1 of this call/);
});

test('what does not compile or fit holds nothing', async () => {
  const before = await held(device);
  const broken = Object.assign(Object.create(device) as Device, {
    pipeline: () => Promise.reject(new Error('no such shader')),
  });
  const x = host(new Uint32Array(1 << 16), [1 << 16]);
  const f = broken.compile((t: Tensor) => t.mul(2));
  for (let k = 0; k < 3; k++)
    await f(x).then(
      () => assert.unreachable(),
      (e: Error) => assert.is(e.message, 'no such shader'),
    );
  assert.is(broken.allocated, before);
  const { budget } = device;
  device.budget = before + 300_000;
  try {
    const f = double();
    assert.match(await refusal(() => Promise.all([1, 2, 3].map(() => f(x)))), /^\[memory\]/);
    await f.free();
  } finally {
    device.budget = budget;
  }
  assert.is(device.allocated, before);
  await goesOn();
});

test('what nobody holds is given back, results hold their program', async () => {
  const before = await held(device);
  let last: NDArray | undefined;
  for (let k = 0; k < 5; k++)
    last = await device.compile((x: Tensor) => x.matmul(x).add(k))(host([1, 1, 1, 1], [2, 2]));
  const dropped = await device.compile((x: Tensor) => x)(device.zeros([1 << 20]).view(0, [64]));
  assert.is(dropped.size, 64);
  const more = (await held(device)) - before;
  assert.ok(more < 4000, `${more} bytes`);
  assert.equal(await values(last!), [6, 6, 6, 6]);
  const { budget } = device;
  device.budget = device.allocated + 10 * 2 ** 20;
  try {
    for (let k = 0; k < 40; k++) {
      device.zeros([2 ** 19]); // 2 MiB
      await pause(1);
    }
  } finally {
    device.budget = budget;
  }
});

test('a function keeps so many programs, the ones used last', async () => {
  const f = double('many');
  const before = await held(device);
  const first = await f(list(1));
  const one = device.allocated - before;
  for (let n = 2; n <= MAX_PROGRAMS + 8; n++) {
    await f(host(new Float32Array(n), [n]));
    if (n === MAX_PROGRAMS) assert.is(await (await f(list(4))).item(), 8, 'used again');
  }
  assert.match(await refusal(() => first.item()), /has run again/);
  const { pipelines } = device.counters;
  assert.is(await (await f(list(5))).item(), 10);
  const gone = f(list(1, 2));
  assert.equal(await values(await gone), [2, 4], 'made anew');
  assert.is(device.counters.pipelines, pipelines);
  assert.ok(device.allocated - before < MAX_PROGRAMS * (one + 8 * (MAX_PROGRAMS + 8)));
  await f.free();
  assert.is(device.allocated, before);
});

test.run();

/** Convolutions in all their forms, pooling and resizing: against plain loops, on the device, and their gradients by differences. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { vjp } from '../../engine/frontend/autodiff.ts';
import {
  avgPool,
  constant,
  conv2d,
  conv3d,
  convTranspose2d,
  convTranspose3d,
  maxPool,
  resize,
} from '../../engine/frontend/functional.ts';
import { evaluate } from '../../engine/frontend/oracle.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { trace } from '../../engine/frontend/trace.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { open } from '../../engine/runtime/device.ts';
import { numel } from '../../kernels/kernel.ts';

type Fn = (...x: Tensor[]) => Tensor;
const device = await open();
const wave = (shape: readonly number[], phase = 0): HostTensor =>
  host(
    Float32Array.from({ length: numel(shape) }, (_, i) => Math.sin(1.7 * i + phase)),
    shape,
  );
const oracle = (fn: Fn, ...inputs: HostTensor[]): HostTensor => {
  const { graph, outputs } = trace(fn, inputs);
  return evaluate(graph, outputs, inputs)[0]!;
};
const near = (got: ArrayLike<number>, want: ArrayLike<number>, tolerance: number, what: string): void => {
  assert.is(got.length, want.length, what);
  for (let i = 0; i < want.length; i++)
    if (!(Math.abs(got[i]! - want[i]!) <= tolerance * (1 + Math.abs(want[i]!))) && !Object.is(got[i], want[i]))
      assert.unreachable(`${what}: at ${i} got ${got[i]}, expected ${want[i]}`);
};

/** The oracle gives `want`, the device what the oracle gives, and the gradient is that of central differences. */
async function check(what: string, fn: Fn, inputs: HostTensor[], want?: ArrayLike<number>): Promise<void> {
  const y = oracle(fn, ...inputs);
  if (want) near(y.data, want, 1e-6, what);
  const compiled = device.compile(fn, { name: what });
  near(await (await compiled(...(inputs as never[]))).read(), y.data, 1e-5, `${what} on the device`);
  await compiled.free();
  const loss: Fn = (...x) =>
    fn(...x)
      .mul(1.3)
      .sin()
      .sum();
  const { graph, outputs } = trace((...x: Tensor[]) => vjp(loss(...x), constant(1), x), inputs);
  const doubles = inputs.map((t) => ({ ...t, data: Float64Array.from(t.data) }));
  const h = 1e-5;
  evaluate(graph, outputs, doubles).forEach((g, k) => {
    const at = (j: number, d: number): number =>
      oracle(loss, ...doubles.with(k, { ...doubles[k]!, data: doubles[k]!.data.with(j, doubles[k]!.data[j]! + d) }))
        .data[0]!;
    const some = Array.from({ length: Math.min(12, g.data.length) }, (_, i) => Math.floor((i * g.data.length) / 12));
    near(
      some.map((j) => g.data[j]!),
      some.map((j) => (at(j, h) - at(j, -h)) / (2 * h)),
      1e-5,
      `${what}, gradient of input ${k}`,
    );
  });
}

interface Geometry {
  stride: [number, number, number];
  dilation: [number, number, number];
  padLo: [number, number, number];
  padHi: [number, number, number];
  groups: number;
}

/** Visits every product of a convolution of x [N,C,…] to y [N,O,…] with w [O,C/groups,…]. */
function products(
  xs: number[],
  ws: number[],
  ys: number[],
  g: Geometry,
  visit: (x: number, w: number, y: number) => void,
): void {
  const flat = (shape: number[], index: number[]): number => index.reduce((at, i, k) => at * shape[k]! + i, 0);
  const all = (shape: number[]): number[][] =>
    shape.reduce<number[][]>(
      (list, n) => list.flatMap((head) => Array.from({ length: n }, (_, i) => [...head, i])),
      [[]],
    );
  for (const [n, o, ...grid] of all(ys) as [number, number, ...number[]][])
    for (const [c, ...taps] of all(ws.slice(1)) as [number, ...number[]][]) {
      const place = taps.map((j, i) => grid[i]! * g.stride[i]! - g.padLo[i]! + j * g.dilation[i]!);
      if (place.some((p, i) => p < 0 || p >= xs[2 + i]!)) continue;
      const channel = Math.floor(o / (ws[0]! / g.groups)) * ws[1]! + c;
      visit(flat(xs, [n, channel, ...place]), flat(ws, [o, c, ...taps]), flat(ys, [n, o, ...grid]));
    }
}

const geometry = (g: Partial<Geometry>): Geometry => ({
  stride: [1, 1, 1],
  dilation: [1, 1, 1],
  padLo: [0, 0, 0],
  padHi: [0, 0, 0],
  groups: 1,
  ...g,
});

for (const [what, xs, ws, options] of [
  ['dilated', [2, 2, 5, 6, 7], [3, 2, 2, 3, 2], { dilation: [2, 1, 3], padLo: [1, 0, 2], padHi: [0, 1, 1] }],
  [
    'dilated and strided',
    [1, 2, 3, 9, 11],
    [2, 2, 1, 2, 3],
    { dilation: [1, 4, 3], stride: [2, 2, 2], padLo: [0, 1, 0] },
  ],
  ['in groups', [2, 4, 3, 4, 5], [6, 2, 2, 2, 3], { groups: 2, stride: [1, 2, 1], padLo: [1, 0, 1], padHi: [0, 1, 1] }],
  ['in groups, dilated', [1, 4, 2, 7, 6], [4, 2, 1, 3, 2], { groups: 2, dilation: [1, 2, 2], padHi: [0, 1, 0] }],
  [
    'depthwise',
    [2, 3, 2, 4, 5],
    [6, 1, 2, 3, 2],
    { groups: 3, dilation: [1, 1, 2], padLo: [1, 1, 1], stride: [1, 2, 1] },
  ],
] as [string, number[], number[], Partial<Geometry>][]) {
  test(`conv3d ${what}`, async () => {
    const g = geometry({ padHi: options.padLo ?? [0, 0, 0], ...options });
    const [x, w] = [wave(xs), wave(ws, 1)];
    const fn: Fn = (a, b) => conv3d(a!, b!, undefined, options);
    const { shape } = oracle(fn, x, w);
    const want = new Float64Array(numel(shape));
    products(xs, ws, [...shape], g, (i, j, k) => (want[k]! += x.data[i]! * w.data[j]!));
    await check(what, fn, [x, w], want);
  });
}

for (const [what, xs, ws, options] of [
  [
    'plain',
    [2, 3, 2, 3, 4],
    [3, 2, 2, 3, 2],
    { stride: [1, 2, 3], padLo: [0, 1, 0], padHi: [1, 1, 0], outputPad: [0, 1, 2] },
  ],
  [
    'dilated, in groups',
    [1, 4, 2, 3, 3],
    [4, 3, 2, 2, 1],
    { stride: [1, 2, 2], dilation: [1, 2, 1], groups: 2, padLo: [1, 0, 0] },
  ],
  [
    'cut',
    [1, 2, 1, 4, 4],
    [2, 2, 1, 1, 3],
    { stride: [1, 2, 1], dilation: [1, 1, 2], padLo: [0, 1, 3], padHi: [0, 2, 0] },
  ],
] as [string, number[], number[], Partial<Geometry> & { outputPad?: [number, number, number] }][]) {
  test(`convTranspose3d ${what}`, async () => {
    const g = geometry(options);
    const [x, w] = [wave(xs), wave(ws, 1)];
    const fn: Fn = (a, b) => convTranspose3d(a!, b!, undefined, { padHi: options.padLo ?? [0, 0, 0], ...options });
    const { shape } = oracle(fn, x, w);
    const want = new Float64Array(numel(shape));
    products([...shape], ws, xs, g, (i, j, k) => (want[i]! += x.data[k]! * w.data[j]!));
    await check(what, fn, [x, w], want);
  });
}

test('two axes are three, and biases are added', async () => {
  const conv: Fn = (x, w, b) => conv2d(x!, w!, b, { dilation: [2, 1], groups: 2, padLo: [1, 1] });
  await check('conv2d', conv, [wave([1, 4, 6, 5]), wave([2, 2, 2, 3], 1), wave([2], 2)]);
  const back: Fn = (x, w, b) => convTranspose2d(x!, w!, b, { stride: [2, 2], outputPad: [1, 0] });
  await check('convTranspose2d', back, [wave([1, 2, 3, 3]), wave([2, 3, 2, 2], 1), wave([3], 2)]);
});

test('pooling', async () => {
  const row = host([1, 5, 2, -3, NaN, 4], [1, 6]);
  assert.equal([...oracle((x) => maxPool(x!, [2]), row).data], [5, 2, NaN]);
  assert.equal(
    [...oracle((x) => maxPool(x!, [3], { stride: [2], padLo: [1] }), host([-1, -5, -2, -3], [4])).data],
    [-1, -2],
  );
  assert.equal([...oracle((x) => avgPool(x!, [2], { padLo: [1] }), host([2, 4, 6], [3])).data], [1, 5]);
  const left: Fn = (x) => avgPool(x!, [2], { padLo: [1], countPads: false });
  assert.equal([...oracle(left, host([2, 4, 6], [3])).data], [2, 5]);
  await check('max', (x) => maxPool(x!, [3, 2], { stride: [1, 2], padLo: [1, 0], dilation: [2, 1] }), [
    wave([2, 7, 8]),
  ]);
  await check('mean', (x) => avgPool(x!, [2, 3, 2], { padLo: [1, 1, 1], countPads: false }), [wave([2, 4, 5, 4])]);
});

test('resizing is as in PyTorch', async () => {
  const x = host([1, 2, 4], [3]);
  // torch.nn.functional.interpolate of [1, 2, 4].
  const torch: [Parameters<typeof resize>[1], Parameters<typeof resize>[2], number[]][] = [
    [{ size: [5] }, {}, [1, 1.4, 2, 3.2, 4]],
    [{ size: [5] }, { coordinates: 'align-corners' }, [1, 1.5, 2, 3, 4]],
    [{ size: [2] }, {}, [1.25, 3.5]],
    [{ scale: [1.5] }, {}, [1, 1.5, 2.3333333, 3.6666667]],
    [{ size: [5] }, { mode: 'nearest', coordinates: 'asymmetric' }, [1, 1, 2, 2, 4]],
    [{ size: [5] }, { mode: 'nearest' }, [1, 1, 2, 4, 4]],
    [{ size: [6] }, { mode: 'nearest' }, [1, 1, 2, 2, 4, 4]],
  ];
  for (const [to, how, want] of torch)
    await check(`resize ${JSON.stringify([to, how])}`, (t) => resize(t!, to, how), [x], want);
  await check('two axes', (t) => resize(t!, { size: [7, 3] }), [wave([2, 4, 5])]);
  assert.equal(
    [...oracle((t) => resize(t!, { size: [4] }), host([1, Infinity], [2])).data],
    [1, Infinity, Infinity, Infinity],
  );
});

test('what does not fit is refused by name and line', () => {
  const refused = (shape: number[], fn: (x: Tensor) => unknown, message: RegExp): void =>
    assert.throws(() => trace(fn, [{ shape, dtype: 'f32' }]), message);
  const image = [1, 4, 6, 6];
  refused(
    image,
    (x) => maxPool(x, [3, 3], { padLo: [3, 0] }),
    /\[maxPool\] with pads .* holds nothing of .* \(test\/engine\/spatial/,
  );
  refused(
    image,
    (x) => avgPool(x, [7, 1]),
    /\[avgPool\] the window \[7,1\] is larger than the padded input \[1,4,6,6\].*\(test/,
  );
  refused(image, (x) => avgPool(x, [2, 2], { stride: [1] }), /\[avgPool\] expected 2 entries in stride/);
  refused(image, (x) => maxPool(x, [2, 0.5]), /\[maxPool\] windows, strides and dilations must be whole/);
  refused(
    image,
    (x) => conv2d(x, x, undefined, { groups: 3 }),
    /\[conv3d\] x .* do not fit 3 groups of channels.*\(test/,
  );
  refused(image, (x) => convTranspose2d(x, x), /\[convTranspose3d\] x .* do not fit 1 group of channels/);
  refused(image, (x) => resize(x, { size: [0, 3] }), /\[resize\] from \[1,4,6,6\] to sizes \[0,3\].*\(test/);
  refused(image, (x) => resize(x, { scale: [0.01, 1] }), /\[resize\] from/);
});

test.run();

/**
 * Values at the edges, on the device and by the oracle, right as IEEE 754 and NumPy have them: zeros, infinities, NaN, what overflows,
 * vanishes or cancels, casts, constants. docs/numerics.md says where they may differ.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { vjp } from '../../engine/frontend/autodiff.ts';
import { attention, clamp, constant, full, relu, softplus, where, zeros } from '../../engine/frontend/functional.ts';
import { evaluate } from '../../engine/frontend/oracle.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { trace } from '../../engine/frontend/trace.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { open } from '../../engine/runtime/device.ts';
import type { DType } from '../../kernels/kernel.ts';

const device = await open();
const INF = Infinity;
type Fn = (...x: Tensor[]) => Tensor;

async function both(fn: Fn, inputs: readonly HostTensor[]): Promise<{ device: number[]; oracle: number[] }> {
  const traced = trace(fn, inputs);
  const [want] = evaluate(traced.graph, traced.outputs, inputs);
  const program = device.compile(fn);
  const got = [...(await (await program(...inputs)).read())];
  await program.free();
  return { device: got, oracle: [...want!.data] };
}

const same = (got: number, want: number, tolerance: number): boolean =>
  Number.isFinite(want)
    ? Math.abs(got - want) <= tolerance * Math.abs(want)
    : Object.is(Number.isFinite(got) || Number.isNaN(got) ? got : Math.sign(got) * INF, want);

/**
 * Checks one expression of vectors, which are f32 unless `dtypes` says otherwise. 2e-6 is relative. What `rounds` differs by the
 * rounding of f32, which the oracle does not do.
 */
function on(
  name: string,
  fn: Fn,
  inputs: readonly (readonly number[])[],
  want: readonly number[],
  {
    dtypes = [],
    tolerance = 2e-6,
    rounds = false,
  }: { dtypes?: readonly DType[]; tolerance?: number; rounds?: boolean } = {},
): void {
  test(name, async () => {
    const tensors = inputs.map((x, i) => host(x, [x.length], dtypes[i] ?? 'f32'));
    const got = await both(fn, tensors);
    for (const [by, values] of Object.entries(got)) {
      if (rounds && by === 'oracle') continue;
      const rounded = by === 'oracle' ? values.map(Math.fround) : values;
      assert.is(values.length, want.length, by);
      want.forEach((w, i) =>
        assert.ok(same(rounded[i]!, Math.fround(w), tolerance), `${by}: at ${i} ${rounded[i]}, expected ${w}`),
      );
    }
  });
}
/** A function of scalars that are constants, and of the same scalars as inputs: folded and computed. */
function alike(name: string, dtype: DType, numbers: readonly number[], fn: Fn, want: number, rounds = false): void {
  on(
    `${name}, computed`,
    (...x) => fn(...x).reshape([1]),
    numbers.map((n) => [n]),
    [want],
    { dtypes: numbers.map(() => dtype), rounds },
  );
  on(`${name}, folded`, () => fn(...numbers.map((n) => constant(n, dtype).reshape([1]))), [], [want], { rounds });
}

const SPECIAL = [NaN, INF, -INF, 0];
on('quotients by 0', (x) => x!.div(0), [[1, -1, 0, NaN]], [INF, -INF, NaN, NaN]);
on('quotients by zeros', (x) => x!.div(zeros([3])), [[1, -1, 0]], [INF, -INF, NaN]);
on('a number over 0', (x) => constant(1).div(x!), [[0, INF, 2]], [INF, 0, 0.5]);
on(
  'powers',
  (x, y) => x!.pow(y!),
  [
    [0, 0, 0, -4, -8, -8, -2, NaN, 1, INF, INF, -INF, -INF, 0.5, 2, 2, -1, NaN, 2, -0.5, 0, 0, -2],
    [-2, -0.5, 0, 1.5, 1 / 3, 3, -1, 0, NaN, -1, 2, 3, 0.5, INF, -INF, INF, INF, 2, NaN, -3, INF, -INF, 2e7],
  ],
  [INF, INF, 1, NaN, NaN, -512, -0.5, 1, 1, 0, INF, -INF, INF, 0, 0, INF, 1, NaN, NaN, -8, 0, INF, INF],
  { tolerance: 5e-6 },
);
for (const [power, at0, atMinus4] of [
  [-2, INF, 1 / 16],
  [-0.5, INF, NaN],
  [-3, INF, -1 / 64],
  [-1, INF, -0.25],
  [1.5, 0, NaN],
  [0.5, 0, NaN],
  [0, 1, 1],
  [3, 0, -64],
  [2, 0, 16],
] as const)
  on(`power ${power}`, (x) => x!.pow(power), [[0, -4]], [at0, atMinus4], { tolerance: 5e-6 });
on('gradient of 1/x', (x) => vjp(x!.pow(-1), full([2], 1), x!), [[0, 2]], [-INF, -0.25]);
on('gradient of x⁰', (x) => vjp(x!.pow(0), full([3], 1), x!), [[0, 2, -1]], [0, 0, 0]);
on(
  'gradient of 0^y',
  (x, y) => vjp(x!.pow(y!), full([3], 1), y!),
  [
    [0, 0, -2],
    [2, -1, 3],
  ],
  [0, 0, 0],
);
on(
  'gradient of powers of 0',
  (x, y) => vjp(x!.pow(y!), full([4], 1), x!),
  [
    [0, 0, 0, -2],
    [1, 2, 0, 3],
  ],
  [1, 0, 0, 12],
);

on('factors that overflow one by one', (x) => x!.mul(1e30).mul(1e30), [[1e-30, 1]], [1e30, INF]);
on('factors that vanish one by one', (x) => x!.mul(1e-25).mul(1e-25), [[1e30, 1]], [1e-20, 0]);
on('a factor that overflows before one that brings back', (x) => x!.mul(1e30).mul(1e-30), [[1e10, 1]], [INF, 1]);
on('a number that f32 cannot hold', (x) => x!.add(constant(1e39)), [[1]], [INF]);
on('no number', (x) => x!.add(NaN), [[1]], [NaN]);
on('times 0', (x) => x!.mul(0), [[NaN, INF, -3]], [NaN, NaN, 0]);
on('less itself', (x) => x!.sub(x!), [[...SPECIAL, 3]], [NaN, NaN, NaN, 0, 0]);
on('over itself', (x) => x!.div(x!), [[...SPECIAL, 3]], [NaN, NaN, NaN, NaN, 1]);
on(
  'plus and minus y',
  (x, y) => x!.add(y!).sub(y!),
  [
    [1, 1, 1e-10],
    [1e8, INF, 1],
  ],
  [0, NaN, 0],
  { rounds: true },
);
on('plus and minus 1', (x) => x!.add(1).sub(1), [[1e-10, NaN]], [0, NaN], { rounds: true });
on('plus 2 and minus 3', (x) => x!.add(2).sub(3), [[1e-10]], [-1]);
on(
  'times and over y',
  (x, y) => x!.mul(y!).div(y!),
  [
    [1, 1, 1e30],
    [0, NaN, 1e30],
  ],
  [NaN, NaN, INF],
);
on('log of exp', (x) => x!.exp().log(), [[100, 1, NaN]], [INF, 1, NaN]);
on('exp of log', (x) => x!.log().exp(), [[-1, 0, 4]], [NaN, 0, 4]);
on('root of the square', (x) => x!.square().sqrt(), [[1e30, -2]], [INF, 2]);
on('square of the root', (x) => x!.sqrt().square(), [[-1, 4]], [NaN, 4]);
on('roots of large numbers', (x) => x!.rsqrt().mul(x!.rsqrt()), [[1e30]], [1e-30]);

const NAN4 = [NaN, -1, 0, 2];
for (const [name, fn, want] of [
  ['relu', relu, [NaN, 0, 0, 2]],
  ['clamp', (x: Tensor) => clamp(x, -0.5, 1), [NaN, -0.5, 0, 1]],
  ['max', (x: Tensor) => x.max(1), [NaN, 1, 1, 2]],
  ['min', (x: Tensor) => x.min(1), [NaN, -1, 0, 1]],
  ['tanh', (x: Tensor) => x.tanh(), [NaN, Math.tanh(-1), 0, Math.tanh(2)]],
  ['sign', (x: Tensor) => x.sign(), [NaN, -1, 0, 1]],
  ['abs', (x: Tensor) => x.abs(), [NaN, 1, 0, 2]],
  ['exp', (x: Tensor) => x.exp(), [NaN, Math.exp(-1), 1, Math.exp(2)]],
  ['sigmoid', (x: Tensor) => x.sigmoid(), [NaN, 1 / (1 + Math.E), 0.5, 1 / (1 + Math.exp(-2))]],
  ['log1p', (x: Tensor) => x.log1p(), [NaN, -INF, 0, Math.log(3)]],
  ['sin', (x: Tensor) => x.sin(), [NaN, Math.sin(-1), 0, Math.sin(2)]],
  ['floor', (x: Tensor) => x.floor(), NAN4],
  ['lt', (x: Tensor) => x.lt(1), [0, 1, 1, 0]],
  ['not lt', (x: Tensor) => x.lt(1).eq(0), [1, 0, 0, 1]],
  ['le', (x: Tensor) => x.le(0), [0, 1, 1, 0]],
  ['eq itself', (x: Tensor) => x.eq(x), [0, 1, 1, 1]],
  ['softplus', softplus, [NaN, Math.log1p(Math.exp(-1)), Math.LN2, 2 + Math.log1p(Math.exp(-2))]],
  ['softmax', (x: Tensor) => x.softmax(), [NaN, NaN, NaN, NaN]],
  ['layerNorm', (x: Tensor) => x.layerNorm(), [NaN, NaN, NaN, NaN]],
  ['rmsNorm', (x: Tensor) => x.rmsNorm(), [NaN, NaN, NaN, NaN]],
  ['sum', (x: Tensor) => x.sum([0], true), [NaN]],
  ['amax', (x: Tensor) => x.amax([0], true), [NaN]],
  ['amin', (x: Tensor) => x.amin([0], true), [NaN]],
] as [string, Fn, number[]][]) {
  on(`${name} of NaN`, fn, [NAN4], want);
  on(`${name} of NaN, one by one`, (x) => fn(x!.reshape([1, 5]).slice(1, 0, 4).reshape([4])), [[...NAN4, 7]], want);
}
on(
  'max of two',
  (x, y) => x!.max(y!),
  [
    [NaN, 1, -INF],
    [1, NaN, INF],
  ],
  [NaN, NaN, INF],
);
on(
  'min of two',
  (x, y) => x!.min(y!),
  [
    [NaN, 1, -INF],
    [1, NaN, INF],
  ],
  [NaN, NaN, -INF],
);
on('NaN as a mask', (m) => where(m!, 1, 2), [[NaN, 0, -0, 5]], [1, 2, 2, 1]);
on(
  'what is masked does not leak',
  (m, x) => where(m!.lt(1), x!, 0),
  [
    [0, 2],
    [3, NaN],
  ],
  [3, 0],
);
on('largest of -inf', (x) => x!.amax([0], true), [[-INF, -INF]], [-INF]);
on('smallest of +inf', (x) => x!.amin([0], true), [[INF, INF, INF]], [INF]);
on('softmax of infinities', (x) => x!.softmax(), [[INF, 1, 2, 3]], [NaN, NaN, NaN, NaN]);
on('softmax of -inf only', (x) => x!.softmax(), [[-INF, -INF]], [NaN, NaN]);
on('softmax masked by -inf', (x) => x!.softmax(), [[0, -INF, 0, -INF]], [0.5, 0, 0.5, 0]);
on('layerNorm of infinities', (x) => x!.layerNorm(), [[1, 2, INF, 3]], [NaN, NaN, NaN, NaN]);
on(
  'attention with NaN in a key',
  (q) => attention(full([1, 1, 1, 4], 1), q!.reshape([1, 2, 1, 4]), full([1, 2, 1, 4], 1)).reshape([4]),
  [[NaN, 0, 0, 0, 1, 1, 1, 1]],
  [NaN, NaN, NaN, NaN],
);
test('sums of nothing are 0, means NaN, the largest is refused', async () => {
  const none = [host([], [0, 2])];
  assert.equal(await both((x) => x!.sum([0]), none), { device: [0, 0], oracle: [0, 0] });
  assert.equal(await both((x) => x!.mean([0]), none), { device: [NaN, NaN], oracle: [NaN, NaN] });
  assert.equal(await both(() => full([0, 2], INF).sum([0]), none), { device: [0, 0], oracle: [0, 0] });
  assert.throws(
    () => trace((x: Tensor) => x.amax([0]), none),
    /^\[amax\] there is none among no values: \[0,2\] over \[0\] \(test\/engine\/values\.test\.ts:\d+\)/,
  );
  assert.equal(await both((x) => x!.amax([1]), none), { device: [], oracle: [] });
});

const HALVES = [0.1, 65520, 65519, 1e-8, -1e-7, 3e-8, NaN, -INF, 1 + 2 ** -11, 1 + 3 * 2 ** -11];
const AS_HALVES = [0.0999755859375, INF, 65504, 0, -2 * 2 ** -24, 2 ** -24, NaN, -INF, 1, 1 + 2 ** -9];
on('f16 and back', (x) => x!.cast('f16').cast('f32'), [HALVES], AS_HALVES, { tolerance: 0 });
on('gradient of a cast', (x) => vjp(x!.cast('f16').cast('f32'), full([2], 3), x!), [[0.1, 2]], [3, 3]);
on('f16 and back, folded', () => full([1], 0.1).cast('f16').cast('f32'), [], [0.0999755859375], { tolerance: 0 });
on(
  'sums of f16',
  (x) =>
    x!
      .cast('f16')
      .add(2 ** -11)
      .cast('f32'),
  [[1]],
  [1],
  { tolerance: 0 },
);
on('products of f16 by a number', (x) => x!.cast('f16').mul(0.1).cast('f32'), [[1, 1e6]], [0.0999755859375, INF], {
  tolerance: 0,
});
on(
  'to i32',
  (x) => x!.cast('i32'),
  [[NaN, INF, -INF, 3e9, -3e9, -1.7, 2147483520]],
  [0, 2147483647, -2147483648, 2147483647, -2147483648, -1, 2147483520],
  { tolerance: 0 },
);
on(
  'to u32',
  (x) => x!.cast('u32').cast('f32'),
  [[NaN, INF, -INF, 5e9, -1, 1.7, 3e9]],
  [0, 2 ** 32, 0, 2 ** 32, 0, 1, 3e9],
  { tolerance: 1e-7 },
);
alike('i32 to u32', 'i32', [-1], (x) => x!.cast('u32').div(constant(2 ** 16, 'u32')), 65535);
alike('u32 to i32', 'u32', [4294967295], (x) => x!.cast('i32'), -1);
alike('a large float to i32', 'f32', [1e10], (x) => x!.cast('i32'), 2147483647);
alike('NaN to i32', 'f32', [NaN], (x) => x!.cast('i32'), 0);
alike('i32 to f32', 'i32', [16777217], (x) => x!.cast('f32'), 16777216);
alike('i32 sum', 'i32', [2147483647, 1], (x, y) => x!.add(y!), -2147483648);
alike('i32 product', 'i32', [100000, 100003], (x, y) => x!.mul(y!), Math.imul(100000, 100003));
alike('i32 quotient', 'i32', [-7, 2], (x, y) => x!.div(y!), -3);
alike('i32 quotient by 0', 'i32', [7, 0], (x, y) => x!.div(y!), 0);
alike('i32 quotient that wraps', 'i32', [-2147483648, -1], (x, y) => x!.div(y!), -2147483648);
alike('i32 least', 'i32', [-2147483648], (x) => x!.abs().neg(), -2147483648);
alike('u32 difference', 'u32', [0, 1], (x, y) => x!.sub(y!).div(constant(2 ** 16, 'u32')), 65535);
alike('u32 negated', 'u32', [1], (x) => x!.neg().div(constant(2 ** 16, 'u32')), 65535);
alike('u32 sign', 'u32', [7], (x) => x!.sign().add(x!.abs()), 8);
alike('f32 product', 'f32', [1e30, 1e30], (x, y) => x!.mul(y!), INF);
alike(
  'f32 rounding',
  'f32',
  [0.1, 3],
  (x, y) => x!.mul(y!).sub(0.3),
  Math.fround(Math.fround(Math.fround(0.1) * 3) - Math.fround(0.3)),
  true,
);
alike('1 over 0', 'f32', [1, 0], (x, y) => x!.div(y!), INF);
alike('log of 0', 'f32', [0], (x) => x!.log(), -INF);
alike('rsqrt of 0', 'f32', [0], (x) => x!.rsqrt(), INF);
alike('root of -1', 'f32', [-1], (x) => x!.sqrt(), NaN);
test('what a dtype does not hold is refused with the line', () => {
  for (const [value, dtype] of [
    [2 ** 32, 'u32'],
    [2 ** 40, 'i32'],
    [-1, 'u32'],
    [0.5, 'i32'],
    [NaN, 'i32'],
    [2147483648, 'i32'],
  ] as const)
    assert.throws(
      () => trace(() => constant(value, dtype), []),
      new RegExp(`^\\[const\\] ${value} is no ${dtype}: .* \\(test/engine/values\\.test\\.ts:\\d+\\)`),
    );
});

const RAMP = Array.from({ length: 24 }, (_, i) => (i - 12) * 4 + 0.5);
on(
  'softplus',
  softplus,
  [RAMP],
  RAMP.map((x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)))),
  { tolerance: 4e-6 },
);
const SMALL = [1e-3, -1e-3, 1e-8, 0.3, -0.6, 0.65, 5, -30, 1e-20];
on(
  'tanh',
  (x) => x!.tanh(),
  [SMALL],
  SMALL.map((x) => Math.tanh(Math.fround(x))),
  { tolerance: 3e-7 },
);
const NEAR = [0.6, 0.999985, 1.00001, 1, 1.4, 2, 1e-30];
on(
  'log',
  (x) => x!.log(),
  [NEAR],
  NEAR.map((x) => Math.log(Math.fround(x))),
  { tolerance: 5e-7 },
);
on(
  'log1p',
  (x) => x!.log1p(),
  [[1e-8, 1e-3, -1e-4, 0.5, 3]],
  [1e-8, 1e-3, -1e-4, 0.5, 3].map((x) => Math.log1p(Math.fround(x))),
  { tolerance: 5e-7 },
);
const ANGLES = [0, 1e-3, 0.8, Math.PI, Math.PI / 2, 100, 1e4, 1e6, -1e8, 1e15, 3e38, 16367173 * 2 ** 72];
on(
  'sine',
  (x) => x!.sin(),
  [ANGLES],
  ANGLES.map((x) => Math.sin(Math.fround(x))),
  { tolerance: 3e-7 },
);
on(
  'cosine',
  (x) => x!.cos(),
  [ANGLES],
  ANGLES.map((x) => Math.cos(Math.fround(x))),
  { tolerance: 3e-7 },
);
on('sine of infinity', (x) => x!.sin(), [[INF, -INF]], [NaN, NaN]);

test('long sums and products', async () => {
  const tenth = Math.fround(0.1);
  const n = 1e7;
  const program = device.compile((x: Tensor) => x.sum());
  const got = await (await program(host(new Float32Array(n).fill(0.1), [n]))).item();
  assert.ok(Math.abs(got / (n * tenth) - 1) < 1e-6, `sum ${got}`);
  const row = host(new Float32Array(65536).fill(0.1), [1, 65536]);
  const dot = await (await device.compile((x: Tensor) => x.matmul(x, { transB: true }))(row)).item();
  assert.ok(Math.abs(dot / (65536 * tenth * tenth) - 1) < 2e-6, `product ${dot}`);
});

const REFUSED: [what: string, fn: (x: Tensor) => unknown, line: RegExp][] = [
  ['half a pad', (x) => x.pad([0.5], [0.5]), /^\[pad\] expected whole numbers from 0, got lo \[0\.5\]/],
  ['a negative pad', (x) => x.pad([-1], [0]), /^\[pad\] expected whole numbers from 0/],
  ['an axis too far', (x) => x.unsqueeze(5), /^\[unsqueeze\] no place 5 for an axis in \[3\]/],
  ['an axis too far back', (x) => x.unsqueeze(-5), /^\[unsqueeze\] no place -5/],
  ['half an axis', (x) => x.unsqueeze(1.5), /^\[unsqueeze\] no place 1\.5/],
  ['parts and a half', (x) => x.split(0, 1.5), /^\[split\] axis 0 of \[3\] does not split into 1\.5/],
  ['an axis twice', (x) => x.sum([0, -1]), /^\[sum\] an axis stands twice in \[0,0\]/],
  ['a flip twice', (x) => x.flip(0, 0), /^\[flip\] an axis stands twice/],
];
for (const [what, fn, line] of REFUSED)
  test(`${what} is refused with the line`, () => {
    assert.throws(() => trace(fn, [host([1, 2, 3], [3])]), line);
    assert.throws(() => trace(fn, [host([1, 2, 3], [3])]), /\(test\/engine\/values\.test\.ts:\d+\)$/);
  });

test.run();

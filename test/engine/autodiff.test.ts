/** Gradients of whole functions: trees, frozen weights, broadcasting, higher orders, optimizer steps. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { vjp } from '../../engine/frontend/autodiff.ts';
import {
  adamW,
  attention,
  clipByGlobalNorm,
  constant,
  conv3d,
  ema,
  gelu,
  groupNorm,
  linear,
  mse,
  relu,
  silu,
  softplus,
  stopGradient,
} from '../../engine/frontend/functional.ts';
import type { TensorType } from '../../engine/frontend/graph.ts';
import { evaluate } from '../../engine/frontend/oracle.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { trace } from '../../engine/frontend/trace.ts';
import type { HostTensor } from '../../engine/frontend/tree.ts';

const type = (...shape: number[]): TensorType => ({ shape, dtype: 'f32' });
const of = (shape: number[], ...values: number[]): HostTensor => ({
  shape,
  dtype: 'f32',
  data: Float64Array.from(values),
});
const wave = (shape: number[], phase = 0): HostTensor =>
  of(shape, ...Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => Math.sin(1.7 * i + phase)));
const run = (fn: (...x: Tensor[]) => unknown, ...inputs: HostTensor[]): number[][] => {
  const { graph, outputs } = trace(fn, inputs);
  return evaluate(graph, outputs, inputs).map((t) => [...t.data]);
};
const ops = (fn: (...x: never[]) => unknown, ...types: unknown[]): string[] =>
  trace(fn, types).graph.nodes.map((n) => n.op);
const near = (actual: readonly number[], expected: readonly number[], tolerance = 1e-9): void =>
  actual.forEach((v, i) =>
    assert.ok(
      Math.abs(v - expected[i]!) <= tolerance * (1 + Math.abs(expected[i]!)),
      `at ${i}: ${v}, expected ${expected[i]}`,
    ),
  );
const one = (): Tensor => constant(1);

/** Compares the gradient of a scalar function by every input with central differences. */
function check(fn: (...x: Tensor[]) => Tensor, ...inputs: HostTensor[]): void {
  const grads = run((...x) => vjp(fn(...x), one(), x), ...inputs);
  const h = 1e-5;
  inputs.forEach((x, k) => {
    const at = (j: number, d: number): number =>
      run(fn, ...inputs.with(k, of([...x.shape], ...(x.data as Float64Array).with(j, x.data[j]! + d))))[0]![0]!;
    near(
      grads[k]!,
      Array.from(x.data, (_, j) => (at(j, h) - at(j, -h)) / (2 * h)),
      1e-6,
    );
  });
}

test('gradients have the tree of what they are for, with zeros where nothing arrives', () => {
  const traced = trace(
    (p: { a: Tensor; inner: { b: Tensor }[] }) => vjp(p.a.square().sum(), one(), p),
    [{ a: type(2), inner: [{ b: type(3) }] }],
  );
  assert.equal(traced.outTree.paths, ['a', 'inner.0.b']);
  const [a, b] = evaluate(traced.graph, traced.outputs, [of([2], 1, -3), of([3], 1, 1, 1)]);
  assert.equal([...a!.data], [2, -6]);
  assert.equal([...b!.data], [0, 0, 0]);
});

test('broadcast operands get sums', () => {
  const [da, db] = run((a, b) => vjp(a.mul(b), a.expand([2, 3]).like(1), [a, b]), of([2, 1], 2, 5), of([3], 1, 2, 3));
  assert.equal(da, [6, 6]);
  assert.equal(db, [7, 7, 7]);
});

test('frozen weights cost no gradient nodes', () => {
  const mlp = (x: Tensor, w: Tensor, v: Tensor): Tensor =>
    linear(gelu(linear(x, w)), v)
      .square()
      .mean();
  const types = [type(4, 3), type(5, 3), type(2, 5)];
  const matmuls = (pick: (x: Tensor, w: Tensor, v: Tensor) => unknown): number =>
    ops((x: Tensor, w: Tensor, v: Tensor) => vjp(mlp(x, w, v), one(), pick(x, w, v)), ...types).filter(
      (op) => op === 'matmul',
    ).length;
  assert.is(
    matmuls((x, w, v) => [x, w, v]),
    2 + 4,
  );
  assert.is(
    matmuls((x) => x),
    2 + 2,
  );
  assert.is(
    matmuls((_x, _w, v) => v),
    2 + 1,
  );

  const conv = (pick: (x: Tensor, w: Tensor) => Tensor): string[] =>
    ops((x: Tensor, w: Tensor) => vjp(conv3d(x, w).sum(), one(), pick(x, w)), type(1, 2, 3, 3, 3), type(2, 2, 2, 2, 2));
  assert.not(conv((x) => x).includes('conv3dWeight'));
  assert.not(conv((_, w) => w).includes('conv3dInput'));
});

test('stopGradient stops, comparisons and random numbers pass nothing', () => {
  assert.equal(
    run((x) => vjp(stopGradient(x).mul(x).sum(), one(), x), of([2], 3, 4)),
    [[3, 4]],
  );
  assert.equal(
    run((x) => vjp(x.lt(0).add(x.sign()).sum(), one(), x), of([2], 3, 4)),
    [[0, 0]],
  );
});

test('a value in between can be asked for', () => {
  assert.equal(
    run(
      (x) => {
        const y = x.mul(3);
        return vjp(y.square().sum(), one(), { x, y });
      },
      of([1], 2),
    ),
    [[36], [12]],
  );
});

test('several outputs, several cotangents', () => {
  assert.equal(
    run((x) => vjp([x.mul(2), x.square()], [x.like(1), x.like(10)], x), of([2], 1, 2)),
    [[22, 42]],
  );
});

test('second derivatives', () => {
  const twice = (fn: (x: Tensor) => Tensor) => (x: Tensor) => vjp(fn(x), one(), x);
  near(run((x) => twice((y) => twice((z) => z.mul(z).mul(z).sum())(y).sum())(x), of([2], 2, -3))[0]!, [12, -18]);
  near(run((x) => twice((y) => twice((z) => z.sin().sum())(y).sum())(x), of([2], 0.4, 2))[0]!, [
    -Math.sin(0.4),
    -Math.sin(2),
  ]);
});

test('gradients of gradient norms go through fused ops', () => {
  const norm =
    (fn: (...x: Tensor[]) => Tensor) =>
    (...x: Tensor[]): Tensor =>
      vjp(fn(...x), one(), x)
        .map((g) => g.square().sum())
        .reduce((a, b) => a.add(b));
  check(
    norm((x) => x.layerNorm(0.1).mul(x).sum()),
    wave([2, 5]),
  );
  check(
    norm((x) => x.rmsNorm(0.1).exp().sum()),
    wave([2, 5]),
  );
  check(
    norm((x) => x.softmax().square().sum()),
    wave([2, 5]),
  );
  check(
    norm((q, k, v) => attention(q, k, v).square().sum()),
    wave([1, 2, 1, 3]),
    wave([1, 3, 1, 3], 1),
    wave([1, 3, 1, 3], 2),
  );
  check(
    norm((x, w) =>
      conv3d(x, w, undefined, { padLo: [1, 0, 0], padHi: [0, 1, 0] })
        .square()
        .sum(),
    ),
    wave([1, 2, 2, 2, 2]),
    wave([2, 2, 2, 2, 1]),
  );
});

test('a third derivative through attention', () => {
  const dir =
    (fn: (x: Tensor) => Tensor) =>
    (x: Tensor): Tensor =>
      vjp(fn(x), one(), x).mul(x).sum();
  check(dir(dir((x) => attention(x, x.mul(0.5), x.square()).sum())), wave([1, 2, 1, 2]));
});

test('layers', () => {
  check((x) => silu(x).add(gelu(x)).add(gelu(x, 'exact')).add(softplus(x)).add(relu(x)).sum(), wave([7], 0.3));
  check((x, w, b) => groupNorm(x, 2, w, b).square().mul(x).sum(), wave([2, 4, 3]), wave([4], 1), wave([4], 2));
  check((a, b) => mse(a, b), wave([3, 2]), wave([3, 2], 1));
});

test('AdamW counts as PyTorch does', () => {
  // torch.optim.AdamW, lr 0.1, betas (0.9, 0.99), eps 1e-8, weight_decay 0.01, p = 1, gradients 0.5 then -0.25.
  let [p, m, v] = [1, 0, 0];
  for (const [t, g] of [
    [1, 0.5],
    [2, -0.25],
  ] as const) {
    const before = [of([1], p), of([1], g), of([1], m), of([1], v), of([], t)];
    m = 0.9 * m + 0.1 * g;
    v = 0.99 * v + 0.01 * g * g;
    p = p * (1 - 0.1 * 0.01) - ((0.1 / (1 - 0.9 ** t)) * m) / (Math.sqrt(v) / Math.sqrt(1 - 0.99 ** t) + 1e-8);
    const hyper = { lr: 0.1, beta1: 0.9, beta2: 0.99, eps: 1e-8, weightDecay: 0.01 };
    for (const symbolic of [true, false]) {
      const [np, nm, nv] = run(
        (w, grad, m0, v0, step) => {
          const next = adamW(w, grad, { m: m0, v: v0 }, { ...hyper, step: symbolic ? step : t });
          return [next.p, next.m, next.v];
        },
        ...before,
      );
      near([...np!, ...nm!, ...nv!], [p, m, v]);
    }
  }
});

test('AdamW without first moment keeps none; late steps keep their bias correction', () => {
  const step = (t: number): number[][] =>
    run(
      (w, g, v, s) => adamW(w, g, { v }, { lr: 0.1, beta1: 0, beta2: 0.999, eps: 0, weightDecay: 0, step: s }),
      of([1], 0),
      of([1], 2),
      of([1], 0),
      of([], t),
    );
  assert.is(step(1).length, 2);
  near(step(1)[0]!, [-0.1]);
  near(step(5000)[0]!, [(-0.1 * 2 * Math.sqrt(1 - 0.999 ** 5000)) / Math.sqrt(0.004)]);
});

test('clipping scales all gradients by one number and tells when the norm is not finite', () => {
  const clip = (x: HostTensor): number[][] => run((a) => clipByGlobalNorm({ a, b: a.mul(0) }, 1), x);
  const [finite, a, , norm] = clip(of([2], 3, 4));
  near([...finite!, ...norm!, ...a!], [1, 5, 3 / (5 + 1e-6), 4 / (5 + 1e-6)]);
  assert.equal(clip(of([2], 0.3, 0.4))[1], [0.3, 0.4]);
  assert.equal(clip(of([1], Infinity))[0], [0]);
});

test('ema moves a tree', () => {
  near(run((t, s) => ema({ w: t }, { w: s }, 0.9), of([2], 1, 2), of([2], 2, 0))[0]!, [1.1, 1.8]);
});

test('a cotangent of another shape is refused', () => {
  assert.throws(
    () => trace((x: Tensor) => vjp(x, one(), x), [type(2)]),
    /\[vjp\] cotangent 0 has another shape than its output: \[\] · \[2\]/,
  );
});

test.run();

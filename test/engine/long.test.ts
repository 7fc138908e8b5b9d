/** Long chains of operations: no stack ends at them, no kernel grows with them, and compiling takes as much longer as they are. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { analyse, type Stages } from '../../engine/compiler/stages.ts';
import { open } from '../../engine/runtime/device.ts';
import { vjp } from '../../engine/frontend/autodiff.ts';
import { constant } from '../../engine/frontend/functional.ts';
import type { TensorType } from '../../engine/frontend/graph.ts';
import { evaluate } from '../../engine/frontend/oracle.ts';
import { checkpoint } from '../../engine/frontend/remat.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { trace } from '../../engine/frontend/trace.ts';
import { flatten, host } from '../../engine/frontend/tree.ts';

const device = await open();
const x = host(
  Float32Array.from({ length: 64 }, (_, i) => i / 64),
  [8, 8],
);
const stages = (fn: (x: Tensor) => unknown): Stages =>
  analyse({ name: 'long', fn: fn as never, args: [flatten<TensorType>(x)], fromHost: [true] }, { ...device.caps }, {}); // other caps: nothing is lowered yet

type Chain = (n: number) => (x: Tensor) => Tensor;
const repeat = (n: number, x: Tensor, step: (y: Tensor, k: number) => Tensor): Tensor => {
  let y = x;
  for (let k = 0; k < n; k++) y = step(y, k);
  return y;
};
const pointwise: Chain = (n) => (a) => repeat(n / 2, a, (y, k) => y.mul(0.5 + 1e-6 * k).add(a));
const CHAINS: Record<string, Chain> = {
  pointwise,
  'of what is computed': (n) => (a) => repeat(n, a.exp(), (y) => y.sub(a).tanh()),
  gradient: (n) => (a) => vjp(repeat(n / 8, a, (y) => y.mul(1.01).add(a).tanh()).sum(), constant(1), a),
  'gradient through a checkpoint': (n) => (a) =>
    vjp(checkpoint((b: Tensor) => repeat(n / 8, b, (y) => y.mul(1.01).add(b).tanh()))(a).sum(), constant(1), a),
  'sums with low-rank terms': (n) => (a) =>
    repeat(n / 40, a.matmul(a, { transB: true }), (y) =>
      repeat(10, y, (z) => z.add(z))
        .mul(1e-3)
        .add(a.slice(1, 0, 2).matmul(a.slice(0, 0, 2))),
    ),
  views: (n) => (a) => repeat(n / 4, a, (y) => y.transpose().add(a).mul(0.5).reshape([4, 16]).reshape([8, 8])),
  'each one read': (n) => (a) => {
    let sum = a.sum();
    repeat(n / 3, a, (y) => ((sum = sum.add(y.sum())), y.sin()));
    return sum;
  },
};

for (const [name, chain] of Object.entries(CHAINS)) {
  test(`${name}: 300 operations are right, 6000 are compiled`, async () => {
    const fn = chain(name.startsWith('sums') ? 80 : 300);
    const { graph, outputs } = trace(fn as never, [x]);
    const want = Array.from(evaluate(graph, outputs, [x])[0]!.data);
    const f = device.compile(fn, { name });
    const got = await (await f(x)).read();
    const scale = want.reduce((m, v) => Math.max(m, Math.abs(v)), 1e-6);
    got.forEach((v, i) => assert.ok(Math.abs(v - want[i]!) <= 1e-3 * scale, `element ${i}: ${v}, expected ${want[i]}`));
    await f.free();
    stages(chain(6000));
  });
}

test('the cut of expressions holds where kernels are merged', () => {
  for (const { launch } of stages(pointwise(20000)).lowered)
    // the count takes in reshapes, which cost nothing
    for (const { flops, label } of launch.dispatches) assert.ok(flops / 64 <= 96, `${label}: ${flops / 64} operations`);
});

test('compiling grows as the chain does', () => {
  const seconds = (n: number): number => {
    const from = process.cpuUsage();
    stages(pointwise(n));
    const { user, system } = process.cpuUsage(from);
    return (user + system) / 1e6;
  };
  const [short, long] = [Math.min(seconds(1000), seconds(1000)), Math.min(seconds(4000), seconds(4000))];
  assert.ok(long < 10 * short, `4 times the chain took ${(long / short).toFixed(1)} times as long`);
});

test.run();

/** Steps on f16 operands: the loss's size is no matter, an overflow costs its own update and is counted, and all ends where f32 does. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { vjp } from '../../engine/frontend/autodiff.ts';
import { constant, linear, mse } from '../../engine/frontend/functional.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { open } from '../../engine/runtime/device.ts';
import { freeTree } from '../../train/loop/checkpoint.ts';
import { update, type AdamConfig, type Trained } from '../../train/loop/optim.ts';
import { compileStep } from '../../train/loop/step.ts';
import { start } from '../../train/methods/jobs.ts';

const device = await open();
const adam: AdamConfig = { lr: 0.02, beta1: 0.9, beta2: 0.99, eps: 1e-20, weightDecay: 0, clip: 1e30 };
const STEPS = 40;
const wave = (shape: readonly number[], step: number): HostTensor =>
  host(
    Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => Math.sin(i * step + 0.3)),
    shape,
  );
const [first, second, x, y] = [wave([32, 16], 0.7), wave([8, 32], 0.9), wave([64, 16], 0.37), wave([64, 8], 0.23)];

interface Inputs<X = Tensor> {
  x: X;
  y: X;
  factor: X;
  count: X;
}
const step = (s: Trained, at: Inputs) => {
  const loss = mse(linear(linear(at.x, s.params['a.weight']!).tanh(), s.params['b.weight']!), at.y);
  const grads = vjp(loss.mul(at.factor), constant(1), s.params);
  const { state, norm, skipped } = update(s, grads, adam, { lr: constant(adam.lr), count: at.count });
  return { ...state, metrics: { loss, norm, skipped } };
};

/** @param factor of the loss at each step */
async function train(precision: 'f32' | 'f16', factor: (n: number) => number) {
  const compiled = compileStep(device, 'halves', step, { precision });
  let net = await start(device, { 'a.weight': first!, 'b.weight': second! }, { m: true });
  let skipped = 0;
  let overflowed = 0;
  let loss = Infinity;
  for (let n = 0; n < STEPS; n++) {
    const done = await compiled(net, { x: x!, y: y!, factor: host([factor(n)], []), count: host([n + 1], []) });
    net = done.state;
    const metrics = await done.metrics;
    skipped += metrics['skipped']!;
    overflowed += Number((metrics['overflowed'] ?? 0) > 0);
    loss = metrics['loss']!;
  }
  freeTree(net);
  await compiled.free();
  return { skipped, overflowed, loss };
}

if (device.caps.f16)
  test('a loss 10^-3 and 10^3 times as large, and an overflow at one step, end where f32 does', async () => {
    const want = await train('f32', () => 1);
    for (const [name, factor, skips] of [
      ['as it is', () => 1, 0],
      ['10^-3', () => 1e-3, 0],
      ['10^3', () => 1e3, 0],
      ['10^-12', () => 1e-12, 0],
      ['an overflow', (n) => (n === 17 ? Infinity : 1), 1],
    ] as [string, (n: number) => number, number][]) {
      const got = await train('f16', factor);
      assert.equal([got.skipped, got.overflowed], [skips, skips], name);
      const off = Math.abs(got.loss / want.loss - 1);
      assert.ok(off < (skips ? 0.15 : 0.03), `${name}: ends at ${got.loss}, f32 at ${want.loss}`);
    }
    assert.match(
      device.outOfRange!,
      /^halves: the gradient of \w+ is given a cotangent .* \(.*halfsteps\.test\.ts:\d+\)$/,
    );
  });

test.after(() => device.close());
test.run();

/** A batch in micro-batches gives the update of the whole batch, and one that is not finite none. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { open } from '../../engine/runtime/device.ts';
import { constant } from '../../engine/frontend/functional.ts';
import type { NDArray } from '../../engine/runtime/ndarray.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { accumulated, turns } from '../../train/loop/accumulate.ts';
import { freeTree, toHost } from '../../train/loop/checkpoint.ts';
import { start } from '../../train/methods/jobs.ts';
import { update, type AdamConfig, type Micro, type Trained } from '../../train/loop/optim.ts';
import { loadPreset } from '../../train/presets/index.ts';
import { compileStep } from '../../train/loop/step.ts';
import { held } from '../held.ts';

const adam: AdamConfig = { lr: 0.1, beta1: 0.9, beta2: 0.99, eps: 1e-8, weightDecay: 0.1, clip: 0.5 };
const device = await open();
const weights = Object.fromEntries(
  [
    ['a.weight', [8, 16]],
    ['b.weight', [16, 8]],
    ['b.bias', [64]],
    ['c', [3]],
  ].map(([name, shape], k) => {
    const size = (shape as number[]).reduce((x, y) => x * y);
    return [
      name,
      host(
        Float32Array.from({ length: size }, (_, i) => Math.sin(i + 10 * k)),
        shape as number[],
      ),
    ];
  }),
) as Record<string, HostTensor>;

interface Inputs<X = Tensor> {
  slope: X;
  count: X;
  micro?: Micro<X>;
}
const step = (s: Trained, { slope, count, micro }: Inputs) => {
  const grads = Object.fromEntries(Object.entries(s.params).map(([name, w]) => [name, w.mul(slope).add(0.3)]));
  const { state, norm, skipped } = update(s, grads, adam, {
    lr: constant(0.1),
    count,
    decay: constant(0.5),
    ...(micro && { micro }),
  });
  return { ...state, metrics: { slope, norm, skipped } };
};

/** Updates on gradients of these slopes, each a list of micro-batches. */
async function run(updates: readonly number[][]) {
  const accumulate = updates[0]!.length;
  const compiled = compileStep(device, 'accumulate', step, { accumulate });
  let net = await start(device, weights, { m: true, ema: true });
  const all: Record<string, number>[] = [];
  for (const [n, slopes] of updates.entries()) {
    const done = await accumulated<Trained<NDArray>, { slope: number; rates: { micro?: Micro<number> } }>(
      net,
      turns({ batch: 4, accumulate }, n).map(({ rates }, i) => ({ slope: slopes[i]!, rates })),
      (s, { slope, rates }) => compiled(s, { slope, count: n + 1, ...rates }),
    );
    net = done.state;
    all.push(await done.metrics);
  }
  const after = (await toHost(net)) as Trained<HostTensor>;
  freeTree(net);
  await compiled.free();
  return { after, all };
}

test('the mean of the gradients, updated with once', async () => {
  const before = await held(device);
  const [whole, parts] = [
    await run([[0.5], [-0.25]]),
    await run([
      [0, 0.25, 0.75, 1],
      [-1, 1, -1, 0],
    ]),
  ];
  assert.is(device.allocated, before);
  for (const [role, tensors] of Object.entries(whole.after) as ['v', Record<string, HostTensor>][]) {
    for (const [name, { data }] of Object.entries(tensors)) {
      const other = parts.after[role][name]!.data;
      assert.ok(
        data.every((x, i) => Math.abs(x - other[i]!) <= 1e-6 + 1e-5 * Math.abs(x)),
        `${role} ${name}`,
      );
    }
  }
  for (const [n, metrics] of whole.all.entries())
    for (const [name, x] of Object.entries(metrics))
      assert.ok(Math.abs(x - parts.all[n]![name]!) <= 1e-5 * Math.abs(x), name);
});

test('one micro-batch that is not finite spoils its update and no other', async () => {
  const [spoiled, never] = [
    await run([
      [0.5, NaN],
      [0.5, 0.25],
    ]),
    await run([
      [NaN, 0.5],
      [0.5, 0.25],
    ]),
  ];
  assert.equal(
    spoiled.all.map((m) => m['skipped']),
    [1, 0],
  );
  for (const [name, { data }] of Object.entries(spoiled.after.params)) {
    assert.equal(data, never.after.params[name]!.data);
    assert.ok(data.every(Number.isFinite) && data.some((x, i) => x !== weights[name]!.data[i]), name);
  }
});

test('a batch that does not divide is refused', () => {
  assert.throws(
    () => loadPreset('digits', ['priming.accumulate=3']),
    /^\[preset\] priming\.?: accumulate 3 does not divide batch 16$/,
  );
  assert.is(loadPreset('digits', ['equilibrium.batch=8', 'equilibrium.accumulate=8']).equilibrium.accumulate, 8);
});

test.run();

/** A trained network in packs: an optimiser's step over many tensors in few dispatches, against float64, bit by bit again, guarded. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { open } from '../../engine/runtime/device.ts';
import { constant } from '../../engine/frontend/functional.ts';
import type { TensorType } from '../../engine/frontend/graph.ts';
import { planFunction } from '../../engine/compiler/stages.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { host, mapTree, type HostTensor } from '../../engine/frontend/tree.ts';
import { numel } from '../../kernels/kernel.ts';
import { freeTree, toHost } from '../../train/loop/checkpoint.ts';
import { start } from '../../train/methods/jobs.ts';
import { update, type AdamConfig, type Trained } from '../../train/loop/optim.ts';
import { eachRole, packsOf, packTypes } from '../../train/loop/packs.ts';
import type { Pending } from '../../train/loop/pending.ts';
import { compileStep, stepOf } from '../../train/loop/step.ts';
import { close, draw, onHost } from './onhost.ts';

/** 100 tensors: matrices and vectors, long, short, and of lengths that do not fill a binding. */
const SHAPES = Object.fromEntries(
  Array.from({ length: 50 }, (_, i) => [
    [`blocks.${i}.weight`, i % 7 === 3 ? [5, 7] : [64, 1 + (i % 5)]],
    [`blocks.${i}.bias`, i % 10 === 1 ? [3] : [64 * (1 + (i % 3))]],
  ]).flat() as [string, number[]][],
);
const types = Object.fromEntries(
  Object.entries(SHAPES).map(([name, shape]): [string, TensorType] => [name, { shape, dtype: 'f32' }]),
);
const adam: AdamConfig = { lr: 0, beta1: 0.9, beta2: 0.99, eps: 1e-8, weightDecay: 0.1, clip: 1 };

interface Inputs<X = Tensor> {
  slope: X;
  count: X;
}
/** Gradients that are made from the weights: slope · w + 0.01. */
const step = (s: Trained, { slope, count }: Inputs) => {
  const grads = Object.fromEntries(Object.entries(s.params).map(([name, w]) => [name, w.mul(slope).add(0.01)]));
  const { state, norm, skipped } = update(s, grads, adam, { lr: constant(0.01), count, decay: constant(0.5) });
  return { ...state, metrics: { norm, skipped } };
};
const weights = Object.fromEntries(Object.entries(SHAPES).map(([name, shape]) => [name, draw(shape, name)]));
const zeros = mapTree((t: HostTensor) => host(new Float32Array(numel(t.shape)), t.shape), weights);
const initial = (): Required<Omit<Trained<HostTensor>, 'grads'>> => ({
  params: weights,
  m: zeros,
  v: zeros,
  ema: weights,
});

const device = await open();

async function run(slopes: readonly number[]) {
  const compiled = compileStep(device, 'packs', step);
  let net = await start(device, weights, { m: true, ema: true });
  let metrics: Pending = Promise.resolve({});
  for (const [i, slope] of slopes.entries()) ({ state: net, metrics } = await compiled(net, { slope, count: i + 1 }));
  const after = await toHost(net);
  freeTree(net);
  await compiled.free();
  return { after: after as Trained<HostTensor>, metrics: (await metrics) as { norm: number; skipped: number } };
}

test('packs hold tensors of one kind and whole bindings, whatever the order of the names', () => {
  const packs = packsOf(types);
  assert.is(packs.length, 2);
  const sizes = packs.flatMap(({ members }) => members.map(({ shape }) => numel(shape)));
  assert.ok(sizes.every((n) => n % 64 === 0));
  assert.is(sizes.length, Object.values(SHAPES).filter((shape) => numel(shape) % 64 === 0).length);
  assert.equal(packsOf(Object.fromEntries(Object.entries(types).reverse())), packs);
  const large = Object.fromEntries(
    Array.from({ length: 6 }, (_, i) => [
      `${i}.weight`,
      { shape: [1024, i === 5 ? 1088 : 384], dtype: 'f32' as const },
    ]),
  );
  assert.equal(
    packsOf(large).map(({ members }) => members.map(({ name }) => name[0]).join('')),
    ['01', '23'],
    'no pack grows over its bound, none has one member',
  );
});

test('the optimiser takes few dispatches', () => {
  const packs = packsOf(types);
  const alone = Object.keys(packTypes(types, packs)).length - packs.length;
  const room = { maxBufferBytes: device.maxBufferBytes, caps: { ...device.caps, maxStorageBuffers: 16 } };
  const { kernels } = planFunction(
    stepOf(step, packs) as never,
    [
      eachRole(
        mapTree(({ shape }: HostTensor): TensorType => ({ shape, dtype: 'f32' }), initial()) as never,
        (t: Record<string, TensorType>) => packTypes(t, packs),
      ),
      { slope: { shape: [], dtype: 'f32' }, count: { shape: [], dtype: 'f32' } },
    ],
    new Set([0]),
    room,
    { donate: [0] },
  );
  const gradients = Object.keys(SHAPES).length - alone; // those of lone tensors are made where they are used
  assert.ok(
    kernels - gradients <= 3 * alone + 4 * packs.length + 4,
    `${kernels} kernels, ${gradients} of them gradients, ${alone} tensors alone`,
  );
});

test('the same numbers as in float64, twice the same bits; matrices decay', async () => {
  const slopes = [0.3, -2];
  const { after, metrics } = await run(slopes);
  const again = await run(slopes);
  let expected = initial();
  for (const [i, slope] of slopes.entries()) {
    const { params, m, v, ema } = onHost([expected, { slope: host([slope], []), count: host([i + 1], []) }], (s, at) =>
      step(s as Trained, at),
    );
    expected = { params, m: m!, v, ema: ema! };
  }
  for (const role of ['params', 'm', 'v', 'ema'] as const) {
    for (const [name, t] of Object.entries(after[role]!)) {
      assert.ok(close(t, expected[role]![name]!) < 1e-5, `${role} ${name}`);
      assert.equal(t.data, again.after[role]![name]!.data);
      assert.equal(t.shape, SHAPES[name]);
    }
  }
  assert.is(metrics.norm, again.metrics.norm);
  const still = await run([0]); // the gradient is 0.01 everywhere: without decay every weight moves by the same
  const moved = (name: string): number[] =>
    Array.from(still.after.params[name]!.data, (x, i) => (initial().params[name]!.data[i]! - x) / 0.01);
  assert.ok(moved('blocks.0.bias').every((x) => Math.abs(x - 1) < 1e-3));
  assert.ok(moved('blocks.0.weight').some((x) => Math.abs(x - 1) > 0.01));
});

test('a gradient that is not finite leaves every tensor as it was', async () => {
  const before = initial();
  for (const bad of [NaN, Infinity]) {
    const { after, metrics } = await run([bad]);
    assert.is(metrics.skipped, 1);
    for (const [role, tensors] of Object.entries(before))
      for (const [name, t] of Object.entries(tensors as Record<string, HostTensor>))
        assert.equal(after[role as 'v']![name]!.data, t.data, `${role} ${name}`);
  }
});

test('a state that lies in buffers of its own is refused in one line', async () => {
  const loose = mapTree((t: HostTensor) => device.tensor(t.data, t.shape), initial()) as never;
  try {
    await compileStep(device, 'packs', step)(loose, { slope: 1, count: 1 });
    assert.unreachable();
  } catch (error) {
    assert.match(
      (error as Error).message,
      /^\[step\] blocks\.0\.bias lies in a buffer of its own: begin the state with start\(\) or placeState\(\)$/,
    );
  }
  freeTree(loose);
});

test.run();

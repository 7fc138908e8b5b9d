/** What the format of reference tensors can say of an op is run, or refused in one line. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { host, type HostTensor } from '../engine/frontend/tree.ts';
import { oracle, Skip } from './golden/executor.ts';
import { Fixture, type Attrs, type TensorEntry, type Verdict } from './golden/format.ts';
import { opCase } from './golden/ops.ts';

/** Runs one case over these tensors; names begin with in/, gout/, out/ or grad/. */
function run(op: string, attrs: Attrs, tensors: Record<string, HostTensor>): Promise<Verdict> {
  const named = Object.entries(tensors).map(([n, t]) => [`c/${n}`, t] as const);
  const entries = named.map(([n, { shape }]): [string, TensorEntry] => {
    const role = /^c\/(out|grad)\//.test(n) ? 'expected' : 'input';
    return [n, { role, dtype: 'F32', shape: [...shape], atol: 1e-6, rtol: 1e-6 }];
  });
  const c = { name: 'c', op, attrs };
  const entry = { file: 'none', kind: 'ops', cases: [c], tensors: Object.fromEntries(entries) };
  return opCase(new Fixture('', entry, new Map(named)), c, oracle);
}
const row = (...values: number[]): HostTensor => host(values, [values.length]);
const one = (v: number): HostTensor => host([v], []);
async function refused(op: string, attrs: Attrs, tensors: Record<string, HostTensor>, message: RegExp): Promise<void> {
  try {
    await run(op, attrs, tensors);
  } catch (error) {
    assert.instance(error, Skip);
    assert.match((error as Error).message, message);
    assert.not.match((error as Error).message, /\n/);
    return;
  }
  assert.unreachable(`${op} was run`);
}

test('AdamW without a first moment: it is the last gradient', async () => {
  const attrs = { lr: 0.1, weight_decay: 0, beta1: 0, beta2: 0.5, eps: 0, steps: 2 };
  const root = Math.sqrt(0.5 * (0.5 * 4) + 0.5 * 1) / Math.sqrt(1 - 0.25);
  const { status, note } = await run('adamw', attrs, {
    'in/w0': row(1),
    'in/grad0_step1': row(2),
    'in/grad0_step2': row(-1),
    'out/w0_step1': row(0.9),
    'out/w0_step2': row(0.9 + 0.1 / root),
    'out/m0': row(-1),
    'out/v0': row(1.5),
  });
  assert.is(status, 'pass', note);
});

test('attributes are followed whatever their form', async () => {
  const x = host([1, -2, 3, 4, 0, -6], [2, 3]);
  const cases: [string, Attrs, Record<string, HostTensor>][] = [
    ['amax', { axes: [1], keepdim: true }, { 'in/x': x, 'out/y': host([3, 4], [2, 1]) }],
    ['amin', {}, { 'in/x': x, 'out/y': one(-6), 'gout/y': one(2), 'grad/x': host([0, 0, 0, 0, 0, 2], [2, 3]) }],
    ['cumsum', { axis: -1 }, { 'in/x': x, 'out/y': host([1, -1, 2, 4, 4, -2], [2, 3]) }],
    ['argmax', { axis: 0, keepdim: true }, { 'in/x': x, 'out/y': host([1, 1, 0], [1, 3], 'i32') }],
    ['clamp', { min: 0 }, { 'in/x': x, 'out/y': host([1, 0, 3, 4, 0, 0], [2, 3]) }],
    ['leaky_relu', { negative_slope: 0.5 }, { 'in/x': x, 'out/y': host([1, -1, 3, 4, 0, -3], [2, 3]) }],
    ['pow', { exponent: 2 }, { 'in/x': x, 'out/y': host([1, 4, 9, 16, 0, 36], [2, 3]) }],
    [
      'repeat_interleave',
      { axis: -2, repeats: 2 },
      { 'in/x': host([1, 2], [2, 1]), 'out/y': host([1, 1, 2, 2], [4, 1]) },
    ],
    ['loss_l1', { reduction: 'none' }, { 'in/p': row(1, 2), 'in/t': row(3, 2), 'out/y': row(2, 0) }],
    ['layer_norm', { eps: 0, axis: 0 }, { 'in/x': host([1, 2, 3, 6], [2, 2]), 'out/y': host([-1, -1, 1, 1], [2, 2]) }],
    [
      'upsample',
      { mode: 'bilinear', align_corners: true, size: [1, 3] },
      { 'in/x': host([1, 3], [1, 1, 1, 2]), 'out/y': host([1, 2, 3], [1, 1, 1, 3]) },
    ],
    [
      'conv2d',
      { kernel: [1, 1], stride: [1, 1], groups: 2, bias: false },
      { 'in/x': host([1, 2], [1, 2, 1, 1]), 'in/w': host([3, 4], [2, 1, 1, 1]), 'out/y': host([3, 8], [1, 2, 1, 1]) },
    ],
  ];
  for (const [op, attrs, tensors] of cases) {
    const { status, note } = await run(op, attrs, tensors);
    assert.is(status, 'pass', `${op}: ${note}`);
  }
});

test('what is not known is refused in one line', async () => {
  const x = { 'in/x': row(1, 2), 'out/y': row(1, 2) };
  await refused('fold', {}, x, /^op fold is not in the table$/);
  await refused('relu', { inplace: true }, x, /^relu takes no attribute inplace \(true\)$/);
  await refused(
    'upsample',
    { mode: 'bilinear', antialias: true },
    x,
    /^upsample with antialias true: only false is known$/,
  );
  await refused('upsample', { mode: 'area', size: [2] }, x, /^upsample: the mode area$/);
  await refused(
    'loss_mse',
    { reduction: 'batchmean' },
    { 'in/p': row(1), 'in/t': row(1) },
    /^the reduction batchmean$/,
  );
  await refused(
    'adamw',
    { beta1: 0.9, amsgrad: true, steps: 1 },
    { 'in/w0': row(1) },
    /^adamw has no gradient of w0 at step 1 of 1$/,
  );
  await refused('einsum', { equation: 'ii->i' }, x, /^einsum ii->i: expected an arrow, and each letter once/);
  await refused('add', {}, { 'in/a': row(1) }, /^add of \{\}: /);
});

test.run();

/** The table of rewrites, by printed graphs. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { vjp } from '../../engine/frontend/autodiff.ts';
import { concat, constant, conv3d, full, stopGradient } from '../../engine/frontend/functional.ts';
import { simplify } from '../../engine/compiler/simplify.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { trace } from '../../engine/frontend/trace.ts';

/** Ops that are left of a function of tensors of these shapes. */
function left(fn: (...x: Tensor[]) => Tensor | Tensor[], ...shapes: number[][]): string[] {
  const t = trace(
    fn,
    shapes.map((shape) => ({ shape, dtype: 'f32' })),
  );
  return simplify(t.graph, t.outputs).graph.nodes.map((n) => n.op);
}
const same = (fn: (x: Tensor) => Tensor): void => assert.equal(left(fn, [2, 3, 4]), ['input']);

test('identities go away', () => {
  same((x) => x.add(0));
  same((x) => x.sub(0));
  same((x) => x.mul(1).div(1).pow(1));
  same((x) => x.neg().neg());
  same((x) => stopGradient(x));
  same((x) => x.reshape([6, 4]).reshape([2, 3, 4]));
  same((x) => x.permute([0, 1, 2]));
  same((x) => x.permute([2, 0, 1]).permute([1, 2, 0]));
  same((x) => x.slice(1, 0));
  same((x) => x.pad([0, 0, 0], [0, 0, 0]));
  same((x) => x.flip(1).flip(1));
  same((x) => concat([x], 0));
  same((x) => x.unsqueeze(1).sum([1]));
  same((x) => x.select(constant(1), 5));
});

test('constants fold through pointwise ops and views', () => {
  assert.equal(
    left((x) => x.add(full([3], 2).mul(3).exp().reshape([3, 1]).expand([3, 4])), [3, 4]),
    ['input', 'const', 'reshape', 'expand', 'add'],
  );
  assert.ok(left((x) => x.mul(0), [2]).includes('mul'), 'which is NaN at infinities');
  assert.equal(
    left(() => full([2, 3], 2).sum()),
    ['const'],
  );
  assert.equal(
    left(() => constant(-1).log()),
    ['const'],
  );
});

test('chains of views and of factors become one', () => {
  assert.equal(
    left((x) => x.slice(0, 2, 8).slice(0, 1, 6, 2), [9]),
    ['input', 'slice'],
  );
  const factors = (...by: number[]): number =>
    left((x) => by.reduce((y, c) => y.mul(c), x).neg(), [2]).filter((op) => op === 'mul').length;
  assert.is(factors(2, 3), 1);
  assert.is(factors(1e30, 1e30), 2, 'their product overflows');
  assert.is(factors(1e30, 1e-30), 2, 'the first may overflow');
  assert.equal(
    left((x) => x.sum([0], true).sum([1]), [2, 3]),
    ['input', 'sum', 'reshape'],
  );
  assert.equal(
    left((x) => x.permute([1, 0, 2]), [1, 3, 4]),
    ['input', 'reshape'],
  );
});

test('signs move into sums, powers become products', () => {
  assert.equal(
    left((x, y) => x.add(y.neg()), [2], [2]),
    ['input', 'input', 'sub'],
  );
  assert.equal(
    left((x, y) => x.sub(y.neg()), [2], [2]),
    ['input', 'input', 'add'],
  );
  assert.equal(
    left((x) => x.pow(constant(2)), [2]),
    ['input', 'mul'],
  );
});

test('a sum over repeated elements is a product', () => {
  assert.equal(
    left((x) => x.expand([5, 3]).sum([0]), [1, 3]),
    ['input', 'const', 'reshape', 'expand', 'mul', 'reshape'],
  );
  assert.equal(
    left((x) => x.expand([5, 3]).amax([0], true), [1, 3]),
    ['input'],
  );
});

test('a transposed operand becomes a flag of matmul', () => {
  const t = trace(
    (a: Tensor, b: Tensor) => a.transpose().matmul(b.transpose(), { transB: true }),
    [
      { shape: [5, 3], dtype: 'f32' },
      { shape: [5, 4], dtype: 'f32' },
    ],
  );
  const { graph } = simplify(t.graph, t.outputs);
  assert.match(graph.toString(), /^%2 f32\[3,4\] = matmul\(%0, %1\) \{"transA":true,"transB":false\}/m);
  assert.equal(
    left((a, b) => a.matmul(b.permute([0, 2, 1])), [2, 3, 5], [2, 4, 5]),
    ['input', 'input', 'matmul'],
  );
  assert.equal(
    left((a, b) => a.matmul(b.permute([2, 1, 0])), [2, 3, 5], [4, 5, 2]),
    ['input', 'input', 'permute', 'matmul'],
  );
});

test('a convolution of single voxels is a product of matrices', () => {
  const conv = (stride: [number, number, number], padLo: [number, number, number]) => (x: Tensor, w: Tensor) =>
    conv3d(x, w, undefined, { stride, padLo });
  assert.equal(left(conv([1, 1, 1], [0, 0, 0]) as never, [1, 3, 2, 4, 4], [5, 3, 1, 1, 1]).slice(2), [
    'reshape',
    'reshape',
    'matmul',
    'reshape',
  ]);
  const gradients = left(
    (x, w, dy) => vjp(conv([1, 1, 1], [0, 0, 0])(x!, w!), dy!, [x!, w!]),
    [2, 3, 2, 4, 4],
    [5, 3, 1, 1, 1],
    [2, 5, 2, 4, 4],
  );
  assert.equal(
    gradients.filter((op) => /conv|matmul|sum/.test(op)),
    ['matmul', 'matmul', 'sum'],
  );
  for (const other of [conv([1, 2, 2], [0, 0, 0]), conv([1, 1, 1], [1, 0, 0])])
    assert.ok(left(other as never, [1, 3, 2, 4, 4], [5, 3, 1, 1, 1]).includes('conv3d'));
});

test('so is one of patches as wide as its stride', () => {
  const conv = (x: Tensor, w: Tensor) => conv3d(x, w, undefined, { stride: [1, 2, 2] });
  const gradients = left(
    (x, w, dy) => [conv(x!, w!), ...vjp(conv(x!, w!), dy!, [x!, w!])] as never,
    [2, 3, 2, 4, 6],
    [5, 3, 1, 2, 2],
    [2, 5, 2, 2, 3],
  );
  assert.equal(
    gradients.filter((op) => /conv|matmul|sum/.test(op)),
    ['matmul', 'matmul', 'matmul', 'sum'],
  );
  assert.ok(
    left(conv as never, [1, 3, 2, 4, 5], [5, 3, 1, 2, 2]).includes('conv3d'),
    'what is left over at an end belongs to no patch',
  );
});

test('what no output needs is gone, inputs keep their index', () => {
  const t = trace(
    (a: Tensor, b: Tensor) => {
      a.exp();
      return b.sin();
    },
    [
      { shape: [2], dtype: 'f32' },
      { shape: [2], dtype: 'f32' },
    ],
  );
  assert.match(
    simplify(t.graph, t.outputs).graph.toString(),
    /^%0 f32\[2\] = input\(\) \{"index":1,"name":"1".*\n%1 f32\[2\] = sin\(%0\).*$/,
  );
});

test.run();

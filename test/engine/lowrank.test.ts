/** A low-rank addition becomes part of its product: where, and that the values stay. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { vjp } from '../../engine/frontend/autodiff.ts';
import { linear } from '../../engine/frontend/functional.ts';
import { evaluate } from '../../engine/frontend/oracle.ts';
import { simplify } from '../../engine/compiler/simplify.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { trace } from '../../engine/frontend/trace.ts';

const SHAPES = [[2, 16, 8], [6, 8], [6], [3, 8], [6, 3]];
const adapted = (x: Tensor, w: Tensor, bias: Tensor, a: Tensor, b: Tensor) =>
  linear(x, w, bias).add(linear(linear(x, a).mul(0.5), b));

function products(fn: (...x: Tensor[]) => Tensor | Tensor[], shapes = SHAPES): number[][] {
  const t = trace(
    fn,
    shapes.map((shape) => ({ shape, dtype: 'f32' })),
  );
  const { graph, outputs } = simplify(t.graph, t.outputs);
  const given = shapes.map((shape, i) => ({
    shape,
    dtype: 'f32' as const,
    data: Float64Array.from({ length: shape.reduce((p, n) => p * n, 1) }, (_, k) => Math.sin(7 * k + i)),
  }));
  const [before, after] = [evaluate(t.graph, t.outputs, given), evaluate(graph, outputs, given)];
  before.forEach((tensor, i) => tensor.data.forEach((v, k) => assert.ok(Math.abs(v - after[i]!.data[k]!) < 1e-12)));
  return graph.nodes.filter((n) => n.op === 'matmul').map((n) => [...n.outs[0]!.shape]);
}

test('an adapter that is applied is one product of the weights and one of the tokens', () => {
  assert.equal(products(adapted as never), [
    [6, 8],
    [32, 6],
  ]);
});

test('two adapters on one weight', () => {
  const both = (x: Tensor, w: Tensor, bias: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor) =>
    adapted(x, w, bias, a, b).add(linear(linear(x, c), d));
  assert.equal(products(both as never, [...SHAPES, [2, 8], [6, 2]]), [
    [6, 8],
    [6, 8],
    [32, 6],
  ]);
});

test('training it keeps the gradients low-rank', () => {
  const train = (x: Tensor, w: Tensor, bias: Tensor, a: Tensor, b: Tensor) =>
    vjp(adapted(x, w, bias, a, b).square().sum(), x.sum().like(1), [a, b]);
  // forward: s B A and x W'ᵀ; then x Aᵀ for dB, dy B, dB and dA
  assert.is(products(train as never).length, 6);
});

test('few rows, or another input, keep their own product', () => {
  assert.is(products(adapted as never, [[1, 2, 8], ...SHAPES.slice(1)]).length, 3);
  const apart = (x: Tensor, w: Tensor, bias: Tensor, a: Tensor, b: Tensor) =>
    linear(x, w, bias).add(linear(linear(x.exp(), a), b));
  assert.is(products(apart as never).length, 3);
});

test.run();

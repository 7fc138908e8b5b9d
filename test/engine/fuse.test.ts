/** What becomes one kernel, where bytes live, and how arenas are laid out. Pure: no device. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { vjp } from '../../engine/frontend/autodiff.ts';
import { fuse } from '../../engine/compiler/fuse.ts';
import { adamW, concat, constant, ema, gather, gelu, linear } from '../../engine/frontend/functional.ts';
import { base, keyOf, type TensorType } from '../../engine/frontend/graph.ts';
import { planMemory, type Block } from '../../engine/compiler/memory.ts';
import { place } from '../../engine/compiler/placement.ts';
import { simplify } from '../../engine/compiler/simplify.ts';
import { trace } from '../../engine/frontend/trace.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';

const t = (...shape: number[]): TensorType => ({ shape, dtype: 'f32' });

function groupsOf(fn: (...x: Tensor[]) => Tensor | Tensor[], types: TensorType[], maxBuffers = 16) {
  const traced = trace(fn, types);
  const { graph, outputs } = simplify(traced.graph, traced.outputs);
  return { groups: fuse(graph, outputs, maxBuffers), outputs };
}
const kinds = (fn: (...x: Tensor[]) => Tensor | Tensor[], types: TensorType[]) =>
  groupsOf(fn, types)
    .groups.map((g) => `${g.node.op}${g.epilogue ? '+' : ''}`)
    .join(' ');

test('pointwise chains, broadcasts and views are one kernel', () => {
  assert.is(
    groupsOf((x, b) => gelu(x!.add(b!)).mul(2).permute([1, 0]).slice(0, 1, 3), [t(5, 8), t(8)]).groups.length,
    1,
  );
  assert.is(groupsOf((x, y) => concat([x!.exp(), y!], 1).flip(0), [t(2, 3), t(2, 4)]).groups.length, 1);
});

test('bias, activation, gate and residual ride on the product', () => {
  assert.is(
    kinds((x, w, b) => gelu(linear(x!, w!, b)), [t(6, 8), t(4, 8), t(4)]),
    'matmul+',
  );
  assert.is(
    kinds((x, w, h, g) => h!.add(linear(x!, w!).mul(g!)), [t(6, 8), t(4, 8), t(6, 4), t(4)]),
    'matmul+',
  );
});

test('a product that someone else reads is written beside its epilogue', () => {
  const { groups } = groupsOf(
    (x, w) => {
      const y = linear(x!, w!);
      return [y.exp(), y, y.sum()];
    },
    [t(6, 8), t(4, 8)],
  );
  assert.equal(
    groups.map((g) => `${g.node.op} ${g.roots.map((r) => r.node.op).join()}`),
    ['matmul exp,matmul', 'sum sum'],
  );
});

test('norms carry their gain and modulation, forward and backward', () => {
  assert.is(
    kinds((x, scale, shift) => x!.layerNorm().mul(scale!.add(1)).add(shift!), [t(2, 6, 8), t(2, 1, 8), t(2, 1, 8)]),
    'layerNorm+',
  );
  assert.is(
    kinds((x, g, w) => vjp(x!.rmsNorm().mul(w!), g!, x!).add(g!), [t(6, 8), t(6, 8), t(8)]),
    'mul rmsNormGrad+',
  );
});

test('a norm carries the rotation of its pairs, where it has four at hand', () => {
  const rotated = (x: Tensor, w: Tensor, cos: Tensor, sin: Tensor) => {
    const y = x.rmsNorm().mul(w);
    return y.mul(cos).add(y.reshape([-1, 2]).flip(1).reshape(y.shape).mul(sin));
  };
  assert.is(kinds(rotated as never, [t(6, 8), t(8), t(6, 8), t(6, 8)]), 'rmsNorm+');
  assert.is(kinds(rotated as never, [t(6, 6), t(6), t(6, 6), t(6, 6)]), 'rmsNorm add');
});

test('an operand that the epilogue would read again, or in another order, keeps it apart', () => {
  assert.is(
    kinds((x, w) => x!.add(linear(x!, w!)), [t(6, 8), t(8, 8)]),
    'matmul add',
  );
  assert.is(
    kinds((x, w) => linear(x!, w!).transpose().exp(), [t(6, 8), t(4, 8)]),
    'matmul exp',
  );
});

test('a reduction reads its producers itself', () => {
  assert.is(
    kinds((x, y) => x!.mul(y!).exp().sum([1]), [t(4, 9), t(4, 9)]),
    'sum',
  );
});

test('AdamW and its average are one kernel with several outputs', () => {
  const step = (p: Tensor, g: Tensor, m: Tensor, v: Tensor, e: Tensor, at: Tensor) => {
    const n = adamW(p, g, { m, v }, { lr: at, beta1: 0.9, beta2: 0.99, eps: 1e-8, weightDecay: 0.1, step: 3 });
    return [n.p, n.m!, n.v, ema(e, n.p, 0.9)];
  };
  const { groups } = groupsOf(step as never, [t(64), t(64), t(64), t(64), t(64), t()]);
  assert.equal(
    groups.filter((g) => g.roots.length > 1).map((g) => g.roots.length),
    [4],
  );
});

test('kernels keep within the binding limit', () => {
  const many = Array.from({ length: 20 }, () => t(3, 4));
  for (const limit of [8, 12, 16]) {
    const { groups } = groupsOf((...x) => x.reduce((a, b) => a.add(b.exp())), many, limit);
    for (const g of groups)
      assert.ok(g.leaves.length + g.roots.length <= limit, `${g.leaves.length} + ${g.roots.length} > ${limit}`);
  }
});

test('a long expression is cut behind its views too', () => {
  const products = ([share, total, ...x]: Tensor[]): Tensor[] => {
    const [a, b] = [x.slice(0, 4), x.slice(4)];
    const sum = (of: Tensor[]) =>
      of
        .reduce((p, q) => p.add(q))
        .reshape([32])
        .mul(share!);
    return [total!.add(sum(a)), sum(a.map((p, i) => p.mul(b[i]!)))];
  };
  const { groups } = groupsOf((...x) => products(x), [t(), t(32), ...Array.from({ length: 8 }, () => t(1, 1, 32))]);
  assert.ok(
    groups.every((g) => g.leaves.length <= 12),
    'no kernel takes on what was cut off',
  );
  assert.not(
    groups.some((g) => g.node.op === 'expand'),
    'a number for all is read where it is used',
  );
});

/** `made` is given away only after the first reader has worked it out for itself; the second, which joins it, is given it. */
test('kernels that become one read nothing that neither needs', () => {
  const { groups } = groupsOf(
    (a, table, ids) => {
      const made = a!.exp();
      const y = gather(table!, ids!);
      return [y.add(made.mul(2)), made.expand([9, 8, 4]).permute([2, 1, 0]).sum([2]), y.mul(made.add(1))];
    },
    [t(8, 4), t(9, 4), { shape: [8], dtype: 'i32' }],
  );
  const both = groups.find((g) => g.roots.length > 1)!;
  assert.equal(
    [both.leaves.map((v) => v.node.op), both.roots.map((v) => v.node.op)],
    [
      ['gather', 'exp'],
      ['add', 'mul'],
    ],
  );
});

test('joining many parts keeps within the binding limit', () => {
  const { groups } = groupsOf(
    (...x) => concat(x, 0),
    Array.from({ length: 30 }, () => t(2, 3)),
    8,
  );
  for (const g of groups) assert.ok(g.leaves.length + g.roots.length <= 8);
});

test('a donated input is overwritten only by its last reader', () => {
  const update = groupsOf((p, g) => p!.sub(g!.mul(0.1)), [t(8), t(8)]);
  const placed = place(update.groups, [{ value: update.outputs[0]!, into: 0 }]);
  assert.is(placed.inPlace.size, 1);
  assert.is(placed.copies.length, 0);

  const late = groupsOf((p, g) => [p!.sub(g!.mul(0.1)), p!.matmul(g!)], [t(8, 8), t(8, 8)]);
  const waits = place(late.groups, [{ value: late.outputs[0]!, into: 0 }, { value: late.outputs[1]! }]);
  const first = keyOf(base(late.outputs[0]!));
  const order =
    late.groups.findIndex((g) => g.roots.some((r) => keyOf(r) === first)) <
    late.groups.findIndex((g) => g.node.op === 'matmul');
  assert.is(waits.copies.length, order ? 1 : 0, 'written while the product still reads it');
});

test('gradients of frozen weights are not computed', () => {
  const { groups } = groupsOf(
    (x, frozen, w) => vjp(linear(linear(x!, frozen!), w!).sum(), constant(1), [w!]),
    [t(6, 8), t(8, 8), t(4, 8)],
  );
  assert.is(groups.filter((g) => g.node.op === 'matmul').length, 2);
});

test('blocks that live together do not overlap, and others share', () => {
  const blocks: Block[] = Array.from({ length: 40 }, (_, i) => ({
    name: `${i}`,
    bytes: 300 + ((i * 7919) % 5000),
    first: i % 13,
    last: (i % 13) + ((i * 31) % 9),
  }));
  const plan = planMemory(blocks, 1 << 30);
  for (const a of blocks) {
    for (const b of blocks) {
      if (a === b || a.last < b.first || b.last < a.first) continue;
      const [p, q] = [plan.spots.get(a)!, plan.spots.get(b)!];
      assert.ok(p.arena !== q.arena || p.offset + a.bytes <= q.offset || q.offset + b.bytes <= p.offset);
    }
  }
  const total = blocks.reduce((s, b) => s + b.bytes, 0);
  assert.ok(plan.arenas[0]! < 0.8 * total);
  assert.ok(plan.arenas[0]! >= plan.lowerBound);
});

test('what one buffer cannot hold goes to the next arena', () => {
  const plan = planMemory(
    [1, 2, 3].map((i) => ({ name: `${i}`, bytes: 1000, first: 0, last: 1 })),
    2048,
  );
  assert.equal(plan.arenas, [2048, 1024]);
});

test.run();

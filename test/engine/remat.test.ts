/** Checkpoints: the same numbers, other nodes. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { vjp } from '../../engine/frontend/autodiff.ts';
import { attention, constant, gelu, linear } from '../../engine/frontend/functional.ts';
import type { Graph, Node, TensorType, Value } from '../../engine/frontend/graph.ts';
import { evaluate } from '../../engine/frontend/oracle.ts';
import { checkpoint } from '../../engine/frontend/remat.ts';
import { simplify } from '../../engine/compiler/simplify.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { trace } from '../../engine/frontend/trace.ts';
import type { HostTensor } from '../../engine/frontend/tree.ts';

const D = 4;
const type = (...shape: number[]): TensorType => ({ shape, dtype: 'f32' });
interface Block {
  qkv: Tensor;
  up: Tensor;
  down: Tensor;
}
const blockTypes = { qkv: type(3 * D, D), up: type(6, D), down: type(D, 6) };
const types = [type(2, 3, D), [blockTypes, blockTypes, blockTypes]];

function block(x: Tensor, p: Block): Tensor {
  const [q, k, v] = linear(x.layerNorm(), p.qkv)
    .reshape([2, 3, 3, 2, D / 2])
    .split(2, 3)
    .map((t) => t.squeeze(2)) as [Tensor, Tensor, Tensor];
  const y = x.add(attention(q, k, v).reshape([2, 3, D]));
  return y.add(linear(gelu(linear(y.rmsNorm(), p.up)), p.down));
}

function net(wrap: (fn: typeof block) => typeof block) {
  return (x: Tensor, blocks: Block[]): Block[] => {
    const y = blocks.reduce((h, p) => wrap(block)(h, p), x);
    return vjp(y.square().mean(), constant(1), blocks);
  };
}
const keep = net((fn) => fn);
const again = net((fn) => checkpoint(fn));
const nested = (x: Tensor, blocks: Block[]): Block[] => {
  const run = checkpoint((h: Tensor) => blocks.reduce((y, p) => checkpoint(block, 'nothing')(y, p), h), 'nothing');
  return vjp(run(x).square().mean(), constant(1), blocks);
};

/** Values of the forward pass that a later gradient node still reads. */
function held({ nodes }: Graph, firstGradient: Node): Value[] {
  return nodes
    .slice(firstGradient.id)
    .flatMap((n) => n.inputs)
    .filter((v) => v.node.id < firstGradient.id && !['input', 'const', 'reshape', 'expand'].includes(v.node.op));
}

test('checkpointed gradients equal the others', () => {
  const data = (t: TensorType, k: number): HostTensor => ({
    ...t,
    data: Float64Array.from({ length: t.shape.reduce((a, b) => a * b, 1) }, (_, i) => Math.sin(i * 1.3 + k)),
  });
  const flat = [types[0] as TensorType, ...[0, 1, 2].flatMap(() => [blockTypes.down, blockTypes.qkv, blockTypes.up])];
  const inputs = flat.map(data);
  const apart = (a: HostTensor[], b: HostTensor[]): number =>
    Math.max(...a.flatMap((y, i) => Array.from(y.data, (v, j) => Math.abs(v - b[i]!.data[j]!))));
  const [plain, ...others] = [keep, again, nested].map((fn) => {
    const t = trace(fn, types);
    const lean = simplify(t.graph, t.outputs);
    return { traced: evaluate(t.graph, t.outputs, inputs), lean: evaluate(lean.graph, lean.outputs, inputs) };
  });
  for (const other of others) {
    assert.ok(apart(other.traced, plain!.traced) < 1e-12);
    assert.ok(apart(other.lean, plain!.lean) < 1e-12);
  }
  assert.ok(apart(plain!.lean, plain!.traced) < 1e-6); // constants are folded in f32, as a device does
});

test('only inputs, results and attention of a segment are held for the backward sweep', () => {
  const t = trace(again, types);
  const { graph } = simplify(t.graph, t.outputs);
  const first = graph.nodes.find((n) => n.segment < 0)!;
  const kinds = new Set(
    held(graph, first)
      .filter((v) => v.node.segment > 0)
      .map((v) => v.node.op),
  );
  assert.equal([...kinds].sort(), ['add', 'attention']);
});

test('attention is not repeated, its operands are, right before they are needed', () => {
  const t = trace(again, types);
  const { nodes } = simplify(t.graph, t.outputs).graph;
  assert.is(nodes.filter((n) => n.op === 'attention').length, 3);
  const norms = nodes.filter((n) => n.op === 'layerNorm');
  assert.equal(
    norms.map((n) => Math.sign(n.segment)),
    [1, 1, 1, -1, -1, -1],
  );
  // Gradients of the last block come before anything of the first one is made again.
  const grads = nodes.filter((n) => n.op === 'attentionGrad');
  assert.ok(grads[0]!.id < norms[5]!.id);
});

test('attention is repeated where it is cheap, and where nothing is to be kept', () => {
  const attend = (keys: number, keep?: 'nothing') => {
    const t = trace(
      (x: Tensor, y: Tensor) => {
        const loss = checkpoint((q: Tensor, k: Tensor) => attention(q, k, k.exp()).exp(), keep)(x, y).sum();
        return vjp(loss, constant(1), x);
      },
      [type(1, 3, 2, 4), type(1, keys, 2, 4)],
    );
    return simplify(t.graph, t.outputs).graph.nodes.filter((n) => n.op === 'attention').length;
  };
  assert.equal([attend(4), attend(5), attend(5, 'nothing')], [2, 1, 2]); // dear above half of two heads of four
});

test('what two checkpoints share by being equal is made again too', () => {
  const t = trace(
    (x: Tensor, w: Tensor) => {
      const [a, b] = [w.exp(), w.sin()].map((scale) => checkpoint((y: Tensor) => y.exp().mul(scale).exp())(x)) as [
        Tensor,
        Tensor,
      ];
      return vjp(a.mul(b).sum(), constant(1), w);
    },
    [type(2), type(2)],
  );
  const { graph } = simplify(t.graph, t.outputs);
  const shared = graph.nodes.find((n) => n.op === 'exp' && n.inputs[0]!.node.op === 'input' && n.segment > 0)!;
  assert.ok(graph.nodes.every((n) => n.segment >= 0 || !n.inputs.some((v) => v.node === shared)));
});

test('without gradients a checkpoint adds nothing', () => {
  const forward = (wrap: (fn: typeof block) => typeof block) =>
    trace((x: Tensor, [p]: [Block]) => wrap(block)(x, p), [types[0], [blockTypes]]).graph.nodes.length;
  assert.is(
    forward((fn) => checkpoint(fn)),
    forward((fn) => fn),
  );
});

test('of nested checkpoints, the outer keeps what it is given, and runs once more for what the inner ones are given', () => {
  const t = trace(nested, types);
  const { graph } = simplify(t.graph, t.outputs);
  const { nodes } = graph;
  assert.equal(
    held(
      graph,
      nodes.find((n) => n.segment < 0)!,
    ).filter((v) => v.node.segment > 0),
    [],
  );
  // Each block runs once, again for what the next is given (not the last), and again for its gradients.
  assert.is(nodes.filter((n) => n.op === 'layerNorm').length, 3 + 2 + 3);
  const grads = nodes.filter((n) => n.op === 'attentionGrad');
  assert.ok(
    grads[0]!.id < nodes.filter((n) => n.op === 'layerNorm')[6]!.id,
    'the last block is done before the second is run for its gradients',
  );
});

test.run();

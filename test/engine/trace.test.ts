/** Tracing: printed graphs, shared nodes, call sites, errors a user can act on. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { constant, gather, linear, normal, zeros } from '../../engine/frontend/functional.ts';
import type { TensorType } from '../../engine/frontend/graph.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { trace } from '../../engine/frontend/trace.ts';

const type = (...shape: number[]): TensorType => ({ shape, dtype: 'f32' });

test('a graph prints as text', () => {
  const { graph } = trace(
    (p: { w: Tensor; b: Tensor }, x: Tensor) => linear(x, p.w, p.b),
    [{ w: type(4, 3), b: type(4) }, type(2, 3)],
  );
  assert.is(
    graph.toString().replaceAll(/ {2}test\S+/g, ''),
    [
      '%0 f32[4] = input() {"index":0,"name":"0.b","type":{"shape":[4],"dtype":"f32"}}',
      '%1 f32[4,3] = input() {"index":1,"name":"0.w","type":{"shape":[4,3],"dtype":"f32"}}',
      '%2 f32[2,3] = input() {"index":2,"name":"1","type":{"shape":[2,3],"dtype":"f32"}}',
      '%3 f32[2,4] = matmul(%2, %1) {"transA":false,"transB":true}',
      '%4 f32[1,4] = reshape(%0) {"shape":[1,4]}',
      '%5 f32[2,4] = expand(%4) {"shape":[2,4]}',
      '%6 f32[2,4] = add(%3, %5)',
    ].join('\n'),
  );
});

test('the same op on the same values is one node', () => {
  const { outputs } = trace((x: Tensor) => [x.add(1).exp(), x.add(1).exp()], [type(2)]);
  assert.is(outputs[0]!.node, outputs[1]!.node);
});

test('call sites of random numbers draw from streams of their own', () => {
  const { outputs } = trace((key: Tensor) => [normal(key, [3]), normal(key, [3])], [{ shape: [2], dtype: 'u32' }]);
  assert.equal(
    outputs.map((v) => (v.node.attrs as { stream: number }).stream),
    [0, 1],
  );
});

test('nodes know the line of user code', () => {
  const [traced, here] = [trace((x: Tensor) => x.mean(), [type(2, 3)]), new Error().stack!.split('\n')[1]!];
  assert.is(traced.graph.nodes.at(-1)!.site, `test/engine/trace.test.ts:${/:(\d+):\d+\)?$/.exec(here)![1]}`);
  assert.is(traced.graph.nodes[1]!.site, traced.graph.nodes.at(-1)!.site);
});

test('errors say what is wrong, and where', () => {
  const fails = (fn: (x: Tensor) => unknown, message: RegExp): void =>
    assert.throws(() => trace(fn, [type(2, 80, 128)]), message);
  fails(
    (x) => x.matmul(zeros([96, 512])),
    /^\[matmul\] inner sizes differ: \[2,80,128\] · \[96,512\] \(test\/engine\/trace\.test\.ts:\d+\)$/,
  );
  fails((x) => x.add(zeros([3])), /\[add\] shapes do not broadcast: \[2,80,128\] · \[3\]/);
  fails((x) => x.reshape([7, -1]), /\[reshape\] sizes do not divide: \[2,80,128\] to \[7,-1\]/);
  fails((x) => x.reshape([7]), /\[reshape\] sizes differ/);
  fails((x) => x.sum([3]), /\[sum\] no axis 3 in \[2,80,128\]/);
  fails((x) => x.slice(1, 5, 90), /\[slice\] 5:90:1 is no range of axis 1 of \[2,80,128\]/);
  fails((x) => x.add(constant(1, 'i32')), /\[add\] dtypes differ: f32 and i32; cast one/);
  fails((x) => gather(x, x), /\[gather\] expected i32 or u32 ids, got f32\[2,80,128\]/);
  fails(() => 'text', /\[trace\] output value is no tensor but string/);
});

test('tensors live in their trace only', () => {
  let kept: Tensor | undefined;
  trace((x: Tensor) => (kept = x), [type(2)]);
  assert.throws(() => kept!.exp(), /\[exp\] tensors exist only while a function is traced/);
  assert.throws(() => trace((x: Tensor) => x.add(kept!), [type(2)]), /\[add\] an operand belongs to another trace/);
});

test('numbers in the result become constants; trees keep their structure', () => {
  const { outputs, outTree } = trace((x: Tensor) => ({ b: [x, 3], a: undefined, c: { d: x.exp() } }), [type(2)]);
  assert.equal(outTree.paths, ['b.0', 'b.1', 'c.d']);
  assert.equal(
    outputs.map((v) => v.node.op),
    ['input', 'const', 'exp'],
  );
  assert.equal(outTree.rebuild([1, 2, 3]), { a: undefined, b: [1, 2], c: { d: 3 } });
});

test('shapes of methods', () => {
  const shape = (fn: (x: Tensor) => Tensor): readonly number[] =>
    trace(fn, [type(2, 3, 4)]).outputs[0]!.node.outs[0]!.shape;
  assert.equal(
    shape((x) => x.transpose()),
    [2, 4, 3],
  );
  assert.equal(
    shape((x) => x.unsqueeze(-1).unsqueeze(0)),
    [1, 2, 3, 4, 1],
  );
  assert.equal(
    shape((x) => x.slice(-1, 0, 4, 3)),
    [2, 3, 2],
  );
  assert.equal(
    shape((x) => x.mean([0, -1])),
    [3],
  );
  assert.equal(
    shape((x) => x.mean([0, -1], true)),
    [1, 3, 1],
  );
  assert.equal(
    shape((x) => x.matmul(x, { transB: true })),
    [2, 3, 3],
  );
  assert.equal(
    shape((x) => x.matmul(zeros([5, 4]), { transB: true })),
    [2, 3, 5],
  );
  assert.equal(
    shape((x) => x.matmul(zeros([3, 5]), { transA: true })),
    [2, 4, 5],
  );
  assert.equal(
    shape((x) => x.pad([1, 0, 0], [0, 0, 2], [1, 0, 0])),
    [4, 3, 6],
  );
});

test.run();

/** Every op: its gradient against central differences, its composed form and its types, all by the float64 oracle. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { vjp } from '../../engine/frontend/autodiff.ts';
import { evaluate } from '../../engine/frontend/oracle.ts';
import { erf } from '../../engine/frontend/ops/pointwise.ts';
import { randomElement, threefry2x32 } from '../../engine/frontend/ops/random.ts';
import { OPS, opOf } from '../../engine/frontend/ops/index.ts';
import { simplify } from '../../engine/compiler/simplify.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { make } from '../../engine/frontend/tensor.ts';
import type { Traced } from '../../engine/frontend/trace.ts';
import { trace } from '../../engine/frontend/trace.ts';
import type { HostTensor } from '../../engine/frontend/tree.ts';
import type { Case } from './cases.ts';
import { ALL_CASES, caseInputs } from './cases.ts';

const run = (traced: Traced, inputs: readonly HostTensor[]): HostTensor[] =>
  evaluate(traced.graph, traced.outputs, inputs);
const isFloat = (t: HostTensor): boolean => t.dtype === 'f32';
const double = (t: HostTensor): HostTensor => (isFloat(t) ? { ...t, data: Float64Array.from(t.data) } : t);

/** A fixed cotangent that treats elements differently. */
const weigh = (y: Tensor): Tensor => {
  const count = y.shape.reduce((a, b) => a * b, 1);
  return make('iota', [], { shape: [count], axis: 0 })[0]!
    .mul(0.7)
    .add(0.3)
    .sin()
    .reshape(y.shape);
};

function close(actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance: number, what: string): void {
  assert.is(actual.length, expected.length, what);
  for (let i = 0; i < actual.length; i++) {
    const off = Math.abs(actual[i]! - expected[i]!);
    assert.ok(
      off <= tolerance * (1 + Math.abs(expected[i]!)),
      `${what}: at ${i} got ${actual[i]}, expected ${expected[i]}`,
    );
  }
}

function checkGradient(c: Case, what: string): void {
  const inputs = caseInputs(c).map(double);
  const wrt = inputs.flatMap((t, i) => (isFloat(t) ? [i] : []));
  const loss = trace(
    (...x: Tensor[]) =>
      [c.fn(...x)]
        .flat()
        .map((y) => y.mul(weigh(y)).sum())
        .reduce((a, b) => a.add(b)),
    inputs,
  );
  const grads = run(
    trace((...x: Tensor[]) => {
      const ys = [c.fn(...x)].flat();
      return vjp(
        ys,
        ys.map(weigh),
        wrt.map((i) => x[i]!),
      );
    }, inputs),
    inputs,
  );
  const h = 1e-5;
  wrt.forEach((k, i) => {
    const data = inputs[k]!.data as Float64Array;
    const at = (j: number, value: number): number =>
      run(loss, inputs.with(k, { ...inputs[k]!, data: data.with(j, value) }))[0]!.data[0]!;
    close(
      grads[i]!.data,
      data.map((v, j) => (at(j, v + h) - at(j, v - h)) / (2 * h)),
      1e-6,
      `${what}, gradient of input ${k}`,
    );
  });
}

for (const c of ALL_CASES) {
  const what = `${c.op}: ${c.name}`;
  test(`${what}, forward and rewritten`, () => {
    const inputs = caseInputs(c);
    const traced = trace((...x: Tensor[]) => c.fn(...x), inputs);
    assert.ok(
      traced.graph.nodes.some((n) => n.op === c.op),
      'the case makes no node of its op',
    );
    const lean = simplify(traced.graph, traced.outputs);
    const expected = run(traced, inputs);
    evaluate(lean.graph, lean.outputs, inputs).forEach((y, i) => {
      assert.equal(y.shape, expected[i]!.shape);
      close(y.data, expected[i]!.data, 1e-12, what);
    });
    for (const n of traced.graph.nodes)
      assert.ok(
        opOf(n.op).flops(
          n.inputs.map((v) => v.node.outs[v.out]!),
          n.outs,
          n.attrs,
        ) >= 0,
      );
  });
  if (!c.flat) test(`${what}, gradient`, () => checkGradient(c, what));
}

for (const c of ALL_CASES.filter((e) => opOf(e.op).composed)) {
  test(`${c.op}: ${c.name}, composed form`, () => {
    const inputs = caseInputs(c);
    const traced = trace((...x: Tensor[]) => c.fn(...x), inputs);
    const node = traced.graph.nodes.findLast((n) => n.op === c.op)!;
    const x = node.inputs.map((v) => evaluate(traced.graph, [v], inputs)[0]!);
    const expected = opOf(c.op).oracle(x, node.attrs, node.outs);
    run(
      trace((...t: Tensor[]) => opOf(c.op).composed!(t, node.attrs, make), x),
      x,
    ).forEach((y, i) => close(y.data, expected[i]!, 1e-10, c.op));
  });
}

test('ties of amax and max share the cotangent', () => {
  const x: HostTensor = { shape: [3], dtype: 'f32', data: Float64Array.of(2, 1, 2) };
  const [byAmax, byMax] = run(
    trace((t: Tensor) => [vjp(t.amax(), t.sum().like(1), t), vjp(t.max(2), t.like(1), t)], [x]),
    [x],
  );
  assert.equal([...byAmax!.data], [0.5, 0, 0.5]);
  assert.equal([...byMax!.data], [0.5, 0, 0.5]);
});

test('pow by a trained exponent is silent at a base of 0', () => {
  const x: HostTensor = { shape: [2], dtype: 'f32', data: Float64Array.of(0, 2) };
  const b: HostTensor = { shape: [2], dtype: 'f32', data: Float64Array.of(3, 3) };
  const [db] = run(
    trace((s: Tensor, t: Tensor) => vjp(s.pow(t), s.like(1), t), [x, b]),
    [x, b],
  );
  close(db!.data, [0, 8 * Math.log(2)], 1e-12, 'pow');
});

test('where does not leak the branch not chosen', () => {
  const x: HostTensor = { shape: [2], dtype: 'f32', data: Float64Array.of(-1, 4) };
  const [y] = run(
    trace((t: Tensor) => t.log().select(t.like(0).lt(t), 0), [x]),
    [x],
  );
  close(y!.data, [0, Math.log(4)], 1e-12, 'where');
});

test('threefry gives the published vectors', () => {
  assert.equal(threefry2x32(0, 0, 0, 0), [0x6b200159, 0x99ba4efe]);
  assert.equal(threefry2x32(0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff), [0x1cb996fc, 0xbb002be7]);
  assert.equal(threefry2x32(0x13198a2e, 0x03707344, 0x243f6a88, 0x85a308d3), [0xc4923a9c, 0x483df7a0]);
});

test('normals have the moments of normals', () => {
  const n = 20000;
  const draws = Array.from({ length: n }, (_, i) => randomElement('normal', 3, 5, i, 1));
  const moment = (p: number): number => draws.reduce((sum, v) => sum + v ** p, 0) / n;
  assert.ok(Math.abs(moment(1)) < 0.03 && Math.abs(moment(2) - 1) < 0.05 && Math.abs(moment(4) - 3) < 0.3);
});

test('erf is good to double precision', () => {
  close(
    [0.1, 0.5, 1, 2, 2.499, 2.501, 3, -1].map(erf),
    [
      0.1124629160182849,
      0.5204998778130465,
      0.8427007929497149,
      0.9953222650189527,
      erf(2.5) - 0.001 * (2 / Math.sqrt(Math.PI)) * Math.exp(-6.2475),
      erf(2.5) + 0.001 * (2 / Math.sqrt(Math.PI)) * Math.exp(-6.2525),
      0.9999779095030014,
      -0.8427007929497149,
    ],
    1e-7,
    'erf',
  );
  close([erf(1), erf(3)], [0.8427007929497149, 0.9999779095030014], 1e-14, 'erf');
});

test('every op that passes a gradient has a case for it', () => {
  for (const op of Object.keys(OPS) as (keyof typeof OPS)[]) {
    const gradient = ALL_CASES.some((c) => c.op === op && !c.flat);
    // That of a cast passes straight through the rounding, which differences do not: see values.test.ts.
    if (OPS[op].vjp && op !== 'cast') assert.ok(gradient, op);
  }
});

test.run();

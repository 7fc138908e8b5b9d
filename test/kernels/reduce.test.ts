/** Reductions against float64, over every pattern of kept and reduced axes, on both tiers. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { f32bits, type Caps, type Epilogue, type Launch } from '../../kernels/kernel.ts';
import { plainPrologue, reduce, type Prologue, type ReduceProblem } from '../../kernels/reduce/index.ts';
import { launch, openTest, validate } from './harness.ts';

const { caps } = await openTest();
const tiers: Caps[] = [
  { ...caps, tier: 'scalar' },
  { ...caps, tier: 'tiled' },
];
const noise = (n: number, seed: number) =>
  Float32Array.from({ length: n }, (_, i) => (Math.sin(i * 12.9898 + seed) * 43758.5453) % 1);

function reference(op: 'sum' | 'amax', dims: ReduceProblem['dims'], x: ArrayLike<number>): Float64Array {
  const outputs = dims.reduce((n, d) => (d.reduce ? n : n * d.size), 1);
  const out = new Float64Array(outputs).fill(op === 'sum' ? 0 : -Infinity);
  for (let i = 0; i < x.length; i++) {
    let rest = i,
      o = 0,
      stride = 1;
    for (const d of [...dims].reverse()) {
      const at = rest % d.size;
      rest = (rest - at) / d.size;
      if (!d.reduce) {
        o += at * stride;
        stride *= d.size;
      }
    }
    out[o] = op === 'sum' ? out[o]! + x[i]! : Math.max(out[o]!, x[i]!);
  }
  return out;
}

const close = (got: ArrayLike<number>, want: ArrayLike<number>, tolerance: number, label: string) => {
  for (let i = 0; i < want.length; i++) {
    assert.ok(
      Math.abs(got[i]! - want[i]!) <= tolerance * Math.max(1, Math.abs(want[i]!)),
      `${label} [${i}]: ${got[i]} for ${want[i]}`,
    );
  }
};
const checkText = async (l: Launch) => {
  for (const d of l.dispatches) await validate(d.label, d.wgsl);
};
const parse = (text: string) => text.split(' ').map((w) => ({ size: Number(w.slice(1)), reduce: w[0] === 'r' }));

for (const pattern of [
  'k37 r129',
  'r301 k19',
  'r5003',
  'r7 k5 r111',
  'k3 r70 k9',
  'k2 r3 k5 r4 k3 r2',
  'k5 r1',
  'k3 r1300',
  'r2 r40 k1 k11 k3',
]) {
  for (const c of tiers) {
    test(`${pattern} ${c.tier}`, async () => {
      const dims = parse(pattern);
      const x = noise(
        dims.reduce((n, d) => n * d.size, 1),
        1,
      );
      for (const op of ['sum', 'amax'] as const) {
        const l = reduce(c, { op, dims, prologue: plainPrologue('read') });
        await checkText(l);
        const want = reference(op, dims, x);
        const [out] = await launch(l, [x], [want.length * 4]);
        close(new Float32Array(out!), want, op === 'sum' ? 1e-5 : 0, l.dispatches.map((d) => d.label).join(' | '));
      }
    });
  }
}

for (const pattern of ['r0', 'k8 r0']) {
  for (const c of tiers) {
    test(`the sum of nothing is 0: ${pattern} ${c.tier}`, async () => {
      const dims = parse(pattern);
      const [out] = await launch(
        reduce(c, { op: 'sum', dims, prologue: plainPrologue('read') }),
        [new Float32Array(1)],
        [4 * Math.max(1, dims[0]!.size)],
      );
      assert.ok(new Float32Array(out!).every((v) => v === 0));
    });
  }
}

test('a fused producer and consumer, with and without a second stage', async () => {
  const prologue: Prologue = {
    buffers: [
      { name: 'a', type: 'f32', access: 'read' },
      { name: 'b', type: 'f32', access: 'read' },
    ],
    params: [['a_scale', f32bits(2.5)]],
    functions: 'fn load(i: u32) -> f32 { return a[i] * b[i] * bitcast<f32>(p.a_scale); }',
  };
  const epilogue: Epilogue = {
    buffers: [{ name: 'bias', type: 'f32', access: 'read' }],
    params: [['e_gain', f32bits(0.5)]],
    body: () => '  return v * bitcast<f32>(p.e_gain) + bias[i];',
  };
  for (const c of tiers) {
    for (const pattern of ['r900 k7', 'k70 r3']) {
      const dims = parse(pattern);
      const outputs = dims.find((d) => !d.reduce)!.size;
      const n = dims[0]!.size * dims[1]!.size;
      const a = noise(n, 2),
        b = noise(n, 3),
        bias = noise(outputs, 4);
      const want = reference(
        'sum',
        dims,
        Float64Array.from(a, (v, i) => v * b[i]! * 2.5),
      ).map((v, i) => v * 0.5 + bias[i]!);
      const l = reduce(c, { op: 'sum', dims, prologue, epilogue });
      await checkText(l);
      // The harness wants inputs before outputs: the bias goes behind `out`, so both stand among the inputs' slots.
      const shifted = {
        ...l,
        dispatches: l.dispatches.map((d) => ({ ...d, bind: d.bind.map((s) => (s === 2 ? 3 : s === 3 ? 2 : s)) })),
      };
      const [out] = await launch(shifted, [a, b, bias], [outputs * 4]);
      close(new Float32Array(out!), want, 3e-6, l.dispatches[0]!.label);
    }
  }
});

test('a million values to one part in a million, twice the same bits', async () => {
  const x = noise(1_000_003, 5).map((v) => v + 1.5);
  const dims = [{ size: x.length, reduce: true }];
  const want = reference('sum', dims, x);
  for (const c of tiers) {
    const l = reduce(c, { op: 'sum', dims, prologue: plainPrologue('read_write') });
    const [first] = await launch(l, [x], [4]);
    const [second] = await launch(l, [x], [4]);
    close(new Float32Array(first!), want, 1e-6, l.dispatches[0]!.label);
    assert.equal(new Uint32Array(first!), new Uint32Array(second!));
  }
});

test('amax of the lowest floats', async () => {
  const [out] = await launch(
    reduce(caps, { op: 'amax', dims: parse('k1 r3'), prologue: plainPrologue('read') }),
    [new Float32Array(3).fill(-3.4e38)],
    [4],
  );
  assert.is(new Float32Array(out!)[0], Math.fround(-3.4e38));
});

test.run();

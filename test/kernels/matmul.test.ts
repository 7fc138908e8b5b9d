/** Matmul against float64: every tier, transpose, alignment, dtype, batch rule, split and epilogue; same bits twice. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { f32bits, type Caps, type Epilogue } from '../../kernels/kernel.ts';
import { matmul, type MatmulProblem } from '../../kernels/matmul/index.ts';
import { unitName } from '../../kernels/mma.ts';
import { launch, openNull, openTest, validate } from './harness.ts';
import { emulated, UNITS } from './units.ts';

const { caps } = await openTest();
const TIERS: Record<string, Caps> = {
  scalar: caps,
  registers: { ...caps, subgroup: 0 },
  tiled: { ...caps, tier: 'tiled' },
};

function random(n: number, seed: number): Float32Array {
  let s = seed;
  return Float32Array.from({ length: n }, () => (s = (Math.imul(s, 1664525) + 1013904223) >>> 0) / 2 ** 31 - 1);
}

/** Round to nearest f16 for values in its normal range, as a float and as bits. */
function half(x: Float32Array): { values: Float32Array; bits: Uint16Array } {
  const bits = Uint16Array.from(x, (v) => {
    const a = Math.abs(v);
    if (a < 2 ** -14) return 0;
    const e = Math.floor(Math.log2(a));
    return (v < 0 ? 0x8000 : 0) + ((e + 15) << 10) + Math.round((a / 2 ** e - 1) * 1024);
  });
  return { bits, values: Float32Array.from(bits, unhalf) };
}
const unhalf = (b: number) =>
  (b & 0x8000 ? -1 : 1) * (b & 0x7c00 ? 2 ** (((b >> 10) & 31) - 15) * (1 + (b & 1023) / 1024) : 2 ** -24 * (b & 1023));

/** Round to nearest bf16, as a float and as bits. */
function brain(x: Float32Array): { values: Float32Array; bits: Uint16Array } {
  const rounded = Uint32Array.from(
    new Uint32Array(x.slice().buffer),
    (w) => (w + 0x7fff + ((w >>> 16) & 1)) & 0xffff0000,
  );
  return { values: new Float32Array(rounded.buffer), bits: Uint16Array.from(rounded, (w) => w >>> 16) };
}
const STORED = { f32: (x: Float32Array) => ({ values: x, bits: x }), f16: half, bf16: brain };

const BASE = {
  batch: 1,
  transA: false,
  transB: false,
  dtypeA: 'f32',
  dtypeB: 'f32',
  access: ['read', 'read'],
} as const;
type Case = Partial<MatmulProblem> & {
  dtypeA?: keyof typeof STORED;
  dtypeB?: keyof typeof STORED;
  M: number;
  N: number;
  K: number;
};

/** Runs one case twice and compares; `after` is the epilogue in float64. */
async function check(on: Caps, c: Case, extra: Float32Array[] = [], after = (v: number, _col: number) => v) {
  const p = { ...BASE, ...c };
  const { batch, M, N, K } = p;
  const [a, b] = [random(batch * M * K, 7), random(batch * K * N, 11)];
  const [sa, sb] = [STORED[p.dtypeA](a), STORED[p.dtypeB](b)];
  const [va, vb] = [sa.values, sb.values];
  const l = matmul(on, p);
  const inputs = [sa.bits, sb.bits];
  // The epilogue's buffers lie behind the output, which here stands among the inputs only for its slot.
  const bytes = batch * M * N * 4;
  const moved = extra.length
    ? {
        ...l,
        dispatches: l.dispatches.map((d) => ({
          ...d,
          bind: d.bind.map((s) => (s === 2 ? 2 + extra.length : s > 2 && s < 3 + extra.length ? s - 1 : s)),
        })),
      }
    : l;
  const [first, second] = [
    await launch(moved, [...inputs, ...extra], [bytes]),
    await launch(moved, [...inputs, ...extra], [bytes]),
  ];
  assert.equal(new Uint8Array(first[0]!), new Uint8Array(second[0]!), `${l.dispatches[0]!.label}: two runs differ`);
  const out = new Float32Array(first[0]!);
  const tolerance = 4e-6 * Math.sqrt(K);
  for (let s = 0; s < batch; s++)
    for (let m = 0; m < M; m++)
      for (let n = 0; n < N; n++) {
        let sum = 0;
        const [oa, ob] = [s * M * K, s * K * N];
        for (let k = 0; k < K; k++)
          sum += va[oa + (p.transA ? k * M + m : m * K + k)]! * vb[ob + (p.transB ? n * K + k : k * N + n)]!;
        const want = after(sum, n),
          got = out[(s * M + m) * N + n]!;
        if (!(Math.abs(got - want) <= tolerance * (1 + Math.abs(want))))
          assert.unreachable(`${l.dispatches[0]!.label} [${s},${m},${n}]: expected ${want}, got ${got}`);
      }
  return l;
}

const TRANSPOSES = [
  [false, false],
  [false, true],
  [true, false],
  [true, true],
] as const;

for (const [name, on] of Object.entries(TIERS)) {
  test(`${name}: transposes, aligned and ragged`, async () => {
    for (const [transA, transB] of TRANSPOSES) {
      await check(on, { M: 36, N: 68, K: 24, transA, transB });
      await check(on, { M: 37, N: 71, K: 23, transA, transB });
    }
  });
  test(`${name}: batches, small and large`, async () => {
    await check(on, { batch: 3, M: 20, N: 40, K: 12 });
    await check(on, { batch: 3, M: 17, N: 5, K: 7, transB: true });
    await check(on, { batch: 3, M: 17, N: 5, K: 7, transA: true });
    await check(on, { M: 40, N: 36, K: 30, transA: true }); // K ends inside a vec4 step
    await check(on, { M: 130, N: 132, K: 64 });
    // Enough tiles for the tallest: whole steps, a part of one, and rows that lie along k.
    await check(on, { M: 125, N: 132, K: 24 });
    await check(on, { M: 125, N: 131, K: 23, transB: true });
    await check(on, { M: 124, N: 132, K: 24, transA: true });
    for (const [M, N, K] of [
      [1, 1, 1],
      [1, 40, 12],
      [3, 7, 1],
      [33, 1, 20],
      [5, 4, 3],
    ] as const)
      await check(on, { M, N, K });
  });
}

test('tiled: the large tiles', async () => {
  for (const [batch, M, subgroup, label] of [
    [33, 130, 32, '128x128x16 8x8'],
    [66, 60, 32, '64x64x16 8x8'],
    [22, 130, 8, '128x64x16 8x4'],
  ] as const) {
    const l = await check({ ...TIERS.tiled!, subgroup }, { batch, M, N: 132, K: 20 });
    assert.match(l.dispatches[0]!.label, label);
  }
});

test('split K adds its parts in order', async () => {
  const l = await check(caps, { M: 16, N: 16, K: 4100, transA: true });
  assert.is(l.dispatches.length, 2);
  assert.ok(l.scratch[0]! > 0);
  await check(TIERS.tiled!, { batch: 2, M: 20, N: 36, K: 700 });
});

test('f16 operands', async () => {
  if (!caps.f16) return;
  for (const on of [caps, TIERS.tiled!]) {
    await check(on, { M: 20, N: 40, K: 12, dtypeA: 'f16', dtypeB: 'f16' });
    await check(on, { M: 21, N: 41, K: 13, dtypeB: 'f16', transB: true });
  }
});

test('weights in half precision, whether or not the adapter has a type for it', async () => {
  for (const on of Object.values(TIERS))
    for (const [f16, dtypeB] of [
      [false, 'f16'],
      [caps.f16, 'bf16'],
    ] as const) {
      for (const transB of [true, false]) {
        await check({ ...on, f16 }, { M: 20, N: 40, K: 12, dtypeB, transB });
        await check({ ...on, f16 }, { M: 21, N: 41, K: 13, dtypeB, transB });
      }
      await check({ ...on, f16 }, { M: 40, N: 1, K: 12, dtypeB }); // laid as a row: b becomes the left operand
    }
});

test('matrix units, emulated: operands in f16, sums in f32', async () => {
  const f16 = { dtypeA: 'f16', dtypeB: 'f16' } as const;
  const on: Caps = { ...caps, tier: 'tiled', units: [emulated(UNITS.small)] };
  for (const [transA, transB] of TRANSPOSES) {
    const l = await check(on, { M: 40, N: 68, K: 24, transA, transB, ...f16 });
    assert.match(l.dispatches[0]!.label, 'matrix 8x8x8 f16 emulated 32x32x32/2x2');
    await check(on, { M: 37, N: 71, K: 23, transA, transB, ...f16 });
    await check(on, { M: 40, N: 68, K: 24, transA, transB, dtypeA: 'f16', dtypeB: 'bf16' });
  }
  for (const unit of [UNITS.intel, UNITS.apple])
    for (const transB of [true, false]) {
      const l = await check(
        { ...on, units: [emulated(unit)] },
        { M: 37, N: 71, K: 23, transA: !transB, transB, ...f16 },
      );
      assert.match(l.dispatches[0]!.label, `matrix ${unitName(emulated(unit))} 32x32x32/2x2`);
    }
  await check(on, { batch: 2, M: 20, N: 36, K: 700, ...f16 }); // split
  const exact = await check({ ...on, units: [emulated(UNITS.apple)] }, { M: 37, N: 71, K: 23 });
  assert.match(exact.dispatches[0]!.label, 'matrix 8x8x8 f32 emulated');
  const large = await check({ ...on, units: [emulated(UNITS.nvidia)] }, { batch: 130, M: 33, N: 65, K: 20, ...f16 });
  assert.match(large.dispatches[0]!.label, '64x64x32/2x2');
  for (const [M, N, K] of [
    [36, 68, 24],
    [37, 71, 23],
  ] as const) {
    const bias = random(N, 5);
    await check(on, { M, N, K, ...f16, epilogue: biasGelu(N, 1.5) }, [bias], (v, col) => {
      const x = v + bias[col]!;
      return 1.5 * 0.5 * x * (1 + Math.tanh(0.7978845608 * (x + 0.044715 * x ** 3)));
    });
  }
});

test('matrix units serve operands in f16, one of them stored as bf16 too, and rows enough for a tile', () => {
  const on: Caps = { ...caps, tier: 'tiled', units: [UNITS.nvidia] };
  const tier = (c: Partial<MatmulProblem>, caps = on) =>
    matmul(caps, { ...BASE, M: 512, N: 512, K: 512, ...c }).dispatches[0]!.label.split(' ')[1];
  assert.is(tier({ dtypeA: 'f16', dtypeB: 'f16' }), 'matrix');
  assert.is(tier({ dtypeA: 'f16', dtypeB: 'bf16' }), 'matrix');
  assert.is(tier({ dtypeA: 'f32', dtypeB: 'f16' }), 'tiled');
  assert.is(tier({ dtypeA: 'bf16', dtypeB: 'bf16' }), 'tiled');
  assert.is(tier({ dtypeA: 'f16', dtypeB: 'f16', M: 8 }), 'tiled');
  for (const [dtypeA, dtypeB] of [
    ['f32', 'f32'],
    ['f32', 'bf16'],
    ['f16', 'f16'],
  ] as const)
    assert.is(tier({ dtypeA, dtypeB }, { ...on, units: [UNITS.apple] }), 'matrix', 'f32 units serve all');
});

/** gelu(v + bias[column]), scaled: a buffer and a uniform word. */
const biasGelu = (N: number, scale: number): Epilogue => ({
  buffers: [{ name: 'bias', type: 'f32', access: 'read' }],
  params: [
    ['cols', N],
    ['gain', f32bits(scale)],
  ],
  body: (width) => {
    const t = width === 1 ? 'f32' : 'vec4f';
    const bias =
      width === 1
        ? 'bias[i % p.cols]'
        : 'vec4f(bias[i % p.cols], bias[(i + 1u) % p.cols], bias[(i + 2u) % p.cols], bias[(i + 3u) % p.cols])';
    return `let x = v + ${bias};
  return bitcast<f32>(p.gain) * 0.5 * x * (1.0 + tanh(clamp(0.7978845608 * (x + 0.044715 * x * x * x), ${t}(-10.0), ${t}(10.0))));`;
  },
});

test('an epilogue of bias and gelu, whole and after a split', async () => {
  for (const on of [caps, TIERS.tiled!]) {
    for (const [M, N, K] of [
      [36, 68, 24],
      [37, 71, 23],
      [16, 16, 4100],
    ] as const) {
      const bias = random(N, 5);
      await check(on, { M, N, K, epilogue: biasGelu(N, 1.5) }, [bias], (v, col) => {
        const x = v + bias[col]!;
        return 1.5 * 0.5 * x * (1 + Math.tanh(0.7978845608 * (x + 0.044715 * x ** 3)));
      });
    }
  }
});

test('all WGSL is valid under base limits', async () => {
  const base: Caps = {
    ...(await openNull()).caps,
    f16: true,
    maxInvocations: 256,
    maxWorkgroupBytes: 16384,
    maxStorageBuffers: 8,
  };
  const tiled = { tier: 'tiled' as const, subgroup: 32 };
  for (const on of [
    tiled,
    ...Object.values(UNITS).map((unit) => ({ ...tiled, units: [unit] })),
    ...[0, 4, 8, 16, 32].map((subgroup) => ({ tier: 'scalar' as const, subgroup })),
  ]) {
    for (const [transA, transB] of TRANSPOSES)
      for (const [M, N, K] of [
        [2048, 2048, 64],
        [64, 64, 4096],
        [3, 7, 5],
        [513, 511, 33],
        [100, 100, 30],
      ] as const) {
        for (const [dtypeA, dtypeB] of [
          ['f32', 'f32'],
          ['f16', 'f16'],
          ['bf16', 'bf16'],
          ['f16', 'bf16'],
        ] as const) {
          const l = matmul(
            { ...base, ...on },
            { ...BASE, M, N, K, transA, transB, dtypeA, dtypeB, epilogue: biasGelu(N, 1) },
          );
          for (const d of l.dispatches) await validate(d.label, d.wgsl);
        }
      }
  }
});

test.run();

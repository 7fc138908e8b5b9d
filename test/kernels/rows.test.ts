/** Row operations against float64: every tier and alignment, few and many rows, hard values; same bits twice. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { Caps, Launch } from '../../kernels/kernel.ts';
import * as rows from '../../kernels/rows/index.ts';
import { launch, openNull, openTest, validate } from './harness.ts';

const { caps } = await openTest();
const TIERS: Record<string, Caps> = {
  scalar: caps,
  registers: { ...caps, subgroup: 0 },
  tiled: { ...caps, tier: 'tiled' },
};
const EPS = 1e-5;
type Row = number[];
const mean = (x: Row) => x.reduce((a, b) => a + b, 0) / x.length;
const dot = (a: Row, b: Row) => a.reduce((s, x, i) => s + x * b[i]!, 0);

/** One row in float64. */
const REFERENCE: Record<string, (x: Row, dy: Row) => Row> = {
  softmax: (x) => {
    const top = Math.max(...x),
      e = x.map((v) => Math.exp(v - top)),
      s = e.reduce((a, b) => a + b);
    return e.map((v) => v / s);
  },
  layerNorm: (x) => {
    const m = mean(x),
      d = x.map((v) => v - m),
      inv = 1 / Math.sqrt(dot(d, d) / x.length + EPS);
    return d.map((v) => v * inv);
  },
  rmsNorm: (x) => {
    const inv = 1 / Math.sqrt(dot(x, x) / x.length + EPS);
    return x.map((v) => v * inv);
  },
  layerNormGrad: (x, dy) => {
    const m = mean(x),
      d = x.map((v) => v - m),
      inv = 1 / Math.sqrt(dot(d, d) / x.length + EPS),
      h = d.map((v) => v * inv);
    return dy.map((g, i) => inv * (g - mean(dy) - h[i]! * (dot(dy, h) / x.length)));
  },
  rmsNormGrad: (x, dy) => {
    const inv = 1 / Math.sqrt(dot(x, x) / x.length + EPS);
    return dy.map((g, i) => inv * (g - x[i]! * inv * inv * (dot(dy, x) / x.length)));
  },
};
const NAMES = Object.keys(REFERENCE) as ('softmax' | 'layerNorm' | 'rmsNorm' | 'layerNormGrad' | 'rmsNormGrad')[];
const inputsOf = (name: string) => (name.endsWith('Grad') ? 2 : 1);
const make = (on: Caps, name: (typeof NAMES)[number], r: number, cols: number): Launch =>
  rows[name](on, { rows: r, cols, eps: EPS, access: Array(inputsOf(name)).fill('read') });

function random(n: number, seed: number): Float32Array {
  let s = seed;
  return Float32Array.from({ length: n }, () => (s = (Math.imul(s, 1664525) + 1013904223) >>> 0) / 2 ** 31 - 1);
}

async function check(
  on: Caps,
  name: (typeof NAMES)[number],
  r: number,
  cols: number,
  x = random(r * cols, 3),
  tolerance = 3e-6,
) {
  const dy = random(r * cols, 17);
  const l = make(on, name, r, cols);
  const inputs = [x, dy].slice(0, inputsOf(name));
  const [a, b] = [await launch(l, inputs, [x.byteLength]), await launch(l, inputs, [x.byteLength])];
  assert.equal(new Uint8Array(a[0]!), new Uint8Array(b[0]!), `${l.dispatches[0]!.label}: two runs differ`);
  const got = new Float32Array(a[0]!);
  for (let i = 0; i < r; i++) {
    const want = REFERENCE[name]!(
      [...x.subarray(i * cols, (i + 1) * cols)],
      [...dy.subarray(i * cols, (i + 1) * cols)],
    );
    const largest = Math.max(...want.map(Math.abs), 1e-3);
    want.forEach((w, c) => {
      if (!(Math.abs(got[i * cols + c]! - w) <= tolerance * largest))
        assert.unreachable(`${l.dispatches[0]!.label} [${i},${c}]: expected ${w}, got ${got[i * cols + c]}`);
    });
  }
}

for (const [tier, on] of Object.entries(TIERS)) {
  test(`${tier}: every operation, aligned and odd, few and many rows`, async () => {
    for (const name of NAMES)
      for (const [r, cols] of [
        [5, 132],
        [3, 131],
        [300, 12],
        [257, 7],
        [1, 1],
      ] as const) {
        // The gradient of a row of one value is a difference of nearly equal numbers: nothing to compare.
        if (name.endsWith('Grad') && cols === 1) continue;
        await check(on, name, r, cols, undefined, name.endsWith('Grad') ? 2e-5 : 3e-6);
      }
  });
  test(`${tier}: softmax of ±80 and of masked rows; norm of a large mean`, async () => {
    const cols = 132;
    const x = random(3 * cols, 5).map((v, i) =>
      i < cols ? (i % 2 ? 80 : -80) : i < 2 * cols ? -3.4028234663852886e38 : i % 3 ? -3.4e38 : v,
    );
    await check(on, 'softmax', 3, cols, x);
    await check(
      on,
      'layerNorm',
      5,
      cols,
      random(5 * cols, 5).map((v) => 1000 + v),
      2e-4,
    );
  });
}

test('all WGSL is valid under base limits', async () => {
  const base: Caps = {
    ...(await openNull()).caps,
    maxInvocations: 256,
    maxWorkgroupBytes: 16384,
    maxStorageBuffers: 8,
  };
  for (const on of [
    { tier: 'tiled' as const, subgroup: 32 },
    ...[0, 4, 8, 32].map((subgroup) => ({ tier: 'scalar' as const, subgroup })),
  ]) {
    for (const name of NAMES)
      for (const [r, cols] of [
        [5, 4096],
        [5, 4095],
        [5000, 8],
        [100000, 333],
      ] as const) {
        for (const d of make({ ...base, ...on }, name, r, cols).dispatches) {
          await validate(d.label, d.wgsl);
          assert.ok(d.grid.every((g) => g <= 65535));
        }
      }
  }
});

test.run();

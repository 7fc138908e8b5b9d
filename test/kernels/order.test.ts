/** Selection, sorting and running sums along lines on both tiers, against plain loops; NaN, zeros and ties included. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Caps } from '../../kernels/kernel.ts';
import { select, type SelectProblem } from '../../kernels/order/select.ts';
import { sort } from '../../kernels/order/sort.ts';
import { scan, type ScanProblem } from '../../kernels/scan/index.ts';
import { launch, openTest, validate } from './harness.ts';

const { caps } = await openTest();
const tiers: Caps[] = [
  { ...caps, tier: 'scalar' },
  { ...caps, tier: 'tiled' },
];

/** Values with many ties, zeros of both signs and a few that are not finite. */
const odd = (n: number): Float32Array =>
  Float32Array.from({ length: n }, (_, i) => {
    const v = (i * 7919) % 101;
    return v === 3 ? NaN : v === 5 ? -Infinity : v === 7 ? Infinity : v === 9 ? -0 : (v % 23) - 9;
  });

function wanted(x: Float32Array, { outer, n, inner, k, largest, nanFirst }: SelectProblem): number[] {
  const places: number[] = [];
  for (let o = 0; o < outer; o++)
    for (let i = 0; i < inner; i++) {
      const at = (r: number): number => x[(o * n + r) * inner + i]!;
      const rank = (v: number): number =>
        Number.isNaN(v) ? Infinity : v === Infinity ? 1e30 : v === -Infinity ? -1e30 : v;
      const key = (r: number): number => (largest || (nanFirst && Number.isNaN(at(r))) ? rank(at(r)) : -rank(at(r)));
      const order = Array.from({ length: n }, (_, r) => r).sort((a, b) =>
        key(a) === key(b) ? a - b : key(b) > key(a) ? 1 : -1,
      );
      for (let j = 0; j < k; j++) places[(o * k + j) * inner + i] = order[j]!;
    }
  return places;
}

const SHAPES = [
  { outer: 3, n: 17, inner: 5, k: 4 },
  { outer: 2, n: 300, inner: 1, k: 1 },
  { outer: 1, n: 9001, inner: 2, k: 3 },
  { outer: 1, n: 1, inner: 1, k: 1 },
];
for (const c of tiers) {
  for (const shape of SHAPES) {
    for (const [largest, nanFirst] of [
      [true, true],
      [false, true],
      [false, false],
    ] as const) {
      const p: SelectProblem = { ...shape, dtype: 'f32', largest, nanFirst, values: true, access: 'read' };
      const x = odd(p.outer * p.n * p.inner);
      for (const family of [select, sort])
        test(`${family.name} ${Object.values(shape).join(' ')} ${largest ? 'largest' : 'smallest'} ${c.tier}`, async () => {
          const l = family(c, p);
          for (const text of new Set(l.dispatches.map((d) => d.wgsl))) await validate(l.dispatches[0]!.label, text);
          const size = 4 * p.outer * p.k * p.inner;
          const [values, places] = await launch(l, [x], [size, size]);
          const got = [...new Int32Array(places!)];
          assert.equal(got, wanted(x, p));
          const first = (j: number): number => Math.floor(j / (p.k * p.inner)) * p.n * p.inner + (j % p.inner);
          assert.equal(
            [...new Float32Array(values!)],
            got.map((r, j) => x[first(j) + r * p.inner]!),
          );
        });
    }
  }
  test(`running sums of a million equal terms ${c.tier}`, async () => {
    const n = 1_000_000;
    const l = scan(c, { outer: 1, n, inner: 1, dtype: 'f32', exclusive: false, reverse: false, access: 'read' });
    const [out] = await launch(l, [new Float32Array(n).fill(0.1)], [4 * n]);
    const each = Math.fround(0.1);
    const worst = new Float32Array(out!).reduce((most, v, i) => Math.max(most, Math.abs(v / (each * (i + 1)) - 1)), 0);
    assert.ok(worst < 4e-6, `${worst}`);
  });
  for (const [outer, n, inner] of [
    [3, 17, 5],
    [1, 70_000, 1],
    [2, 3000, 3],
    [4, 0, 2],
  ] as const)
    for (const [exclusive, reverse] of [
      [false, false],
      [true, true],
    ] as const)
      test(`scan ${outer}x${n}x${inner}${exclusive ? ' exclusive, reverse' : ''} ${c.tier}`, async () => {
        const x = Int32Array.from({ length: outer * n * inner }, (_, i) => Math.imul(i + 1, 0x9e3779b9));
        const want = new Int32Array(x.length);
        for (let line = 0; line < outer * inner; line++) {
          const base = Math.floor(line / inner) * n * inner + (line % inner);
          let sum = 0;
          for (let r = 0; r < n; r++) {
            const i = base + (reverse ? n - 1 - r : r) * inner;
            want[i] = exclusive ? sum : sum + x[i]!;
            sum = (sum + x[i]!) | 0;
          }
        }
        const p: ScanProblem = { outer, n, inner, dtype: 'i32', exclusive, reverse, access: 'read' };
        const l = scan(c, p);
        for (const d of l.dispatches) await validate(d.label, d.wgsl);
        const [out] = await launch(l, [x.length ? x : new Int32Array(1)], [4 * Math.max(1, x.length)]);
        if (x.length) assert.equal(new Int32Array(out!), want, l.dispatches.map((d) => d.label).join(' | '));
      });
}

test.run();

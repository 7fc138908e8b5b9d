/** Low-rank approximation against matrices whose singular values are known. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { lowRank } from '../../model/lowrank.ts';

/** Σ σ_k u_k v_kᵀ with cosines for u and v, which are orthogonal. */
function matrix(m: number, n: number, sigma: readonly number[]): Float32Array {
  const unit = (size: number, k: number, i: number) =>
    Math.sqrt(2 / size) * Math.cos((Math.PI * (k + 1) * (i + 0.5)) / size);
  return Float32Array.from({ length: m * n }, (_, at) =>
    sigma.reduce((sum, s, k) => sum + s * unit(m, k, Math.floor(at / n)) * unit(n, k, at % n), 0),
  );
}
const error = (d: Float32Array, { a, b }: { a: Float32Array; b: Float32Array }, m: number, n: number): number => {
  const k = b.length / m;
  return Math.sqrt(
    d.reduce((sum, x, at) => {
      let y = 0;
      for (let c = 0; c < k; c++) y += b[Math.floor(at / n) * k + c]! * a[c * n + (at % n)]!;
      return sum + (x - y) ** 2;
    }, 0),
  );
};

test('a matrix of that rank or less is kept whole', () => {
  for (const [m, n] of [
    [20, 31],
    [31, 20],
  ] as const) {
    const d = matrix(m, n, [5, 2, 1]);
    for (const rank of [3, 6, 100]) {
      const low = lowRank(d, m, n, rank);
      assert.ok(error(d, low, m, n) < 1e-5);
      assert.ok(Math.abs(low.kept - 1) < 1e-6);
    }
  }
  assert.is(lowRank(new Float32Array(12), 3, 4, 2).kept, 1);
});

test('of others the largest ranks are kept, within half a percent of the best', () => {
  const sigma = [8, 4, 2, 1, 0.5, 0.25];
  const d = matrix(24, 40, sigma);
  for (const rank of [1, 2, 4]) {
    const low = lowRank(d, 24, 40, rank);
    const best = Math.hypot(...sigma.slice(rank));
    assert.ok(error(d, low, 24, 40) < 1.005 * best);
    assert.ok(Math.abs(low.kept - (1 - best ** 2 / Math.hypot(...sigma) ** 2)) < 1e-3);
  }
});

test.run();

import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { diversity, eigenSymmetric, frechet, gaussian, sqrtSymmetric } from '../../train/metrics/frechet.ts';
import { Stream } from '../../train/loop/rng.ts';

/** n samples of N(mean, diag(deviation²)), turned in the plane of the first two axes. */
function samples(role: string, n: number, mean: number[], deviation: number[], angle = 0): Float32Array {
  const random = new Stream(0, 0, role);
  const dim = mean.length;
  const out = new Float32Array(n * dim);
  for (let r = 0; r < n; r++) {
    const x = deviation.map((d) => d * random.normal());
    [x[0], x[1]] = [
      Math.cos(angle) * x[0]! - Math.sin(angle) * x[1]!,
      Math.sin(angle) * x[0]! + Math.cos(angle) * x[1]!,
    ];
    out.set(
      x.map((v, i) => v + mean[i]!),
      r * dim,
    );
  }
  return out;
}

test('a set is at distance 0 from itself, also where features are dead', () => {
  const dim = 64;
  const random = new Stream(1, 0, 'self');
  const set = Float32Array.from({ length: 300 * dim }, (_, i) => (i % dim < 10 ? 0 : Math.max(0, random.normal())));
  assert.ok(frechet(set, set, dim) < 1e-6);
});

test('known Gaussians', () => {
  const near = (value: number, expected: number, tolerance: number) =>
    assert.ok(Math.abs(value - expected) < tolerance, `${value}, expected ${expected}`);
  const a = samples('a', 40000, [0, 0, 0], [1, 2, 0.5]);
  near(
    frechet(
      a,
      a.map((v, i) => (i % 3 === 1 ? v + 3 : v)),
      3,
    ),
    9,
    1e-3,
  ); // a shift alone
  near(
    frechet(
      a,
      a.map((v) => 2 * v),
      3,
    ),
    1 + 4 + 0.25,
    0.1,
  ); // Σ (2σ - σ)²
  near(frechet(a, samples('b', 40000, [1, 0, 0], [1, 2, 0.5]), 3), 1, 0.06);
  // diag(1, 4) against itself turned by 45°: tr = 2·5 - 2 tr √(C1^½ C2 C1^½), whose trace is √(tr M + 2 √det M), tr M = 2.5·5, det M = 16
  near(frechet(a, samples('c', 40000, [0, 0, 0], [1, 2, 0.5], Math.PI / 4), 3), 10 - 2 * Math.sqrt(12.5 + 8), 0.06);
});

test('eigenvectors and roots of a symmetric matrix', () => {
  const dim = 64;
  const { cov } = gaussian(
    samples(
      'matrix',
      200,
      Array.from({ length: dim }, () => 0),
      Array.from({ length: dim }, (_, i) => i / 10),
    ),
    dim,
  );
  const { values, vectors } = eigenSymmetric(cov, dim);
  const root = sqrtSymmetric(cov, dim);
  let worst = 0;
  for (let i = 0; i < dim; i++) {
    for (let j = 0; j < dim; j++) {
      let rebuilt = 0;
      let squared = 0;
      for (let k = 0; k < dim; k++) {
        rebuilt += vectors[i * dim + k]! * values[k]! * vectors[j * dim + k]!;
        squared += root[i * dim + k]! * root[k * dim + j]!;
      }
      worst = Math.max(worst, Math.abs(rebuilt - cov[i * dim + j]!), Math.abs(squared - cov[i * dim + j]!));
    }
  }
  assert.ok(worst < 1e-10, String(worst));
});

test('diversity is the mean distance of pairs', () => {
  assert.is(diversity(new Float32Array(20).fill(3), 4), 0);
  assert.ok(Math.abs(diversity(Float32Array.from([0, 0, 3, 4, 0, 0]), 2) - 10 / 3) < 1e-6);
});

test('too few rows are refused', () => {
  assert.throws(() => frechet(new Float32Array(64), new Float32Array(128), 64), /\[frechet\] expected at least 2 rows/);
});

test.run();

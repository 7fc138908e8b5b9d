/**
 * Distances between sets of feature vectors: the Fréchet distance of the two Gaussians fitted to them (Heusel et al. 2017, the formula
 * behind FID, here with features of our own classifier, so the numbers stand only beside each other), and the spread within one set.
 */

interface Gaussian { mean: Float64Array; cov: Float64Array }

/** Mean and covariance (denominator n - 1) of rows [n, dim]. */
export function gaussian(features: Float32Array, dim: number): Gaussian {
  const n = features.length / dim;
  if (!Number.isInteger(n) || n < 2) throw new Error(`[frechet] expected at least 2 rows of ${dim} features, got ${features.length} numbers`);
  const mean = new Float64Array(dim);
  for (let i = 0; i < features.length; i++) mean[i % dim]! += features[i]! / n;
  const cov = new Float64Array(dim * dim);
  const centred = new Float64Array(dim);
  for (let r = 0; r < n; r++) {
    for (let i = 0; i < dim; i++) centred[i] = features[r * dim + i]! - mean[i]!;
    for (let i = 0; i < dim; i++) for (let j = 0; j <= i; j++) cov[i * dim + j]! += (centred[i]! * centred[j]!) / (n - 1);
  }
  for (let i = 0; i < dim; i++) for (let j = 0; j < i; j++) cov[j * dim + i] = cov[i * dim + j]!;
  return { mean, cov };
}

/** Eigenvalues, and eigenvectors as columns, of a symmetric matrix [dim, dim], by cyclic Jacobi rotations. */
export function eigenSymmetric(matrix: Float64Array, dim: number): { values: Float64Array; vectors: Float64Array } {
  const a = Float64Array.from(matrix);
  const vectors = new Float64Array(dim * dim);
  for (let i = 0; i < dim; i++) vectors[i * dim + i] = 1;
  const total = a.reduce((s, x) => s + x * x, 0);
  for (let sweep = 0; sweep < 60; sweep++) {
    let off = 0;
    for (let i = 0; i < dim; i++) for (let j = 0; j < i; j++) off += 2 * a[i * dim + j]! ** 2;
    if (off <= 1e-28 * total) break;
    for (let p = 0; p < dim; p++) {
      for (let q = p + 1; q < dim; q++) {
        const apq = a[p * dim + q]!;
        if (apq === 0) continue;
        const theta = (a[q * dim + q]! - a[p * dim + p]!) / (2 * apq);
        const tan = (theta < 0 ? -1 : 1) / (Math.abs(theta) + Math.hypot(theta, 1));
        const cos = 1 / Math.hypot(tan, 1);
        rotate(a, dim, p, q, cos, tan * cos, true);
        rotate(a, dim, p, q, cos, tan * cos, false);
        rotate(vectors, dim, p, q, cos, tan * cos, true);
      }
    }
  }
  return { values: Float64Array.from({ length: dim }, (_, i) => a[i * dim + i]!), vectors };
}

/** Turns columns (or rows) p and q of a matrix by an angle. */
function rotate(m: Float64Array, dim: number, p: number, q: number, cos: number, sin: number, columns: boolean): void {
  for (let k = 0; k < dim; k++) {
    const [i, j] = columns ? [k * dim + p, k * dim + q] : [p * dim + k, q * dim + k];
    const [x, y] = [m[i]!, m[j]!];
    m[i] = cos * x - sin * y;
    m[j] = sin * x + cos * y;
  }
}

const multiply = (a: Float64Array, b: Float64Array, dim: number): Float64Array => {
  const out = new Float64Array(dim * dim);
  for (let i = 0; i < dim; i++) for (let k = 0; k < dim; k++) for (let j = 0; j < dim; j++) out[i * dim + j]! += a[i * dim + k]! * b[k * dim + j]!;
  return out;
};

/** Square root of a symmetric positive semidefinite matrix; rounding below zero counts as zero. */
export function sqrtSymmetric(matrix: Float64Array, dim: number): Float64Array {
  const { values, vectors } = eigenSymmetric(matrix, dim);
  const scaled = vectors.map((v, i) => v * Math.sqrt(Math.max(0, values[i % dim]!)));
  const transposed = vectors.map((_, i) => vectors[(i % dim) * dim + Math.floor(i / dim)]!);
  return multiply(scaled, transposed, dim);
}

/** |μa - μb|² + tr(Ca + Cb - 2 (Ca^½ Cb Ca^½)^½) of two feature sets, rows [n, dim] each. */
export function frechet(a: Float32Array, b: Float32Array, dim: number): number {
  const [ga, gb] = [gaussian(a, dim), gaussian(b, dim)];
  const root = sqrtSymmetric(ga.cov, dim);
  const { values } = eigenSymmetric(multiply(multiply(root, gb.cov, dim), root, dim), dim);
  let distance = 0;
  for (let i = 0; i < dim; i++) {
    distance += (ga.mean[i]! - gb.mean[i]!) ** 2 + ga.cov[i * dim + i]! + gb.cov[i * dim + i]! - 2 * Math.sqrt(Math.max(0, values[i]!));
  }
  return Math.max(0, distance);
}

/** Mean Euclidean distance between the rows [n, dim] of one set, over all pairs: 0 when every sample is the same. */
export function diversity(features: Float32Array, dim: number): number {
  const n = features.length / dim;
  let sum = 0;
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < i; j++) {
      let squares = 0;
      for (let k = 0; k < dim; k++) squares += (features[i * dim + k]! - features[j * dim + k]!) ** 2;
      sum += Math.sqrt(squares);
    }
  }
  return n > 1 ? (2 * sum) / (n * (n - 1)) : 0;
}

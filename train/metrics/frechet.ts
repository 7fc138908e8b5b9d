/**
 * Distances between sets of feature vectors: the Fréchet distance of the two Gaussians fitted to them (Heusel et al. 2017, the formula
 * behind FID, here with features of our own classifier, so the numbers stand only beside each other), and the spread within one set.
 */

interface Gaussian {
  mean: Float64Array;
  cov: Float64Array;
}

/** Mean and covariance (denominator n - 1) of rows [n, dim]. */
export function gaussian(features: Float32Array, dim: number): Gaussian {
  const n = features.length / dim;
  if (!Number.isInteger(n) || n < 2)
    throw new Error(`[frechet] expected at least 2 rows of ${dim} features, got ${features.length} numbers`);
  const mean = new Float64Array(dim);
  for (let i = 0; i < features.length; i++) mean[i % dim]! += features[i]! / n;
  const cov = new Float64Array(dim * dim);
  const centred = new Float64Array(dim);
  for (let r = 0; r < n; r++) {
    for (let i = 0; i < dim; i++) centred[i] = features[r * dim + i]! - mean[i]!;
    for (let i = 0; i < dim; i++)
      for (let j = 0; j <= i; j++) cov[i * dim + j]! += (centred[i]! * centred[j]!) / (n - 1);
  }
  for (let i = 0; i < dim; i++) for (let j = 0; j < i; j++) cov[j * dim + i] = cov[i * dim + j]!;
  return { mean, cov };
}

/**
 * Eigenvalues, and eigenvectors as columns, of a symmetric matrix [dim, dim]: Householder's reflections to a tridiagonal matrix, then
 * implicit QL rotations of that (Golub and Van Loan, "Matrix Computations", 8.3).
 */
export function eigenSymmetric(matrix: Float64Array, dim: number): { values: Float64Array; vectors: Float64Array } {
  const { diagonal, beside, rows } = tridiagonal(Float64Array.from(matrix), dim);
  diagonalise(diagonal, beside, rows, dim);
  return { values: diagonal, vectors: rows.map((_, i) => rows[(i % dim) * dim + Math.floor(i / dim)]!) };
}

/** A = Q T Qᵀ. @returns T's diagonal, what stands beside it (entry i between i and i + 1), and Qᵀ */
function tridiagonal(
  a: Float64Array,
  dim: number,
): { diagonal: Float64Array; beside: Float64Array; rows: Float64Array } {
  const rows = new Float64Array(dim * dim);
  for (let i = 0; i < dim; i++) rows[i * dim + i] = 1;
  const beside = new Float64Array(dim);
  const v = new Float64Array(dim);
  const w = new Float64Array(dim);
  for (let k = 0; k + 1 < dim; k++) {
    let length = 0;
    for (let i = k + 1; i < dim; i++) length = Math.hypot(length, (v[i] = a[i * dim + k]!));
    const alpha = v[k + 1]! > 0 ? -length : length;
    beside[k] = alpha;
    v[k + 1]! -= alpha;
    const norm = Math.sqrt(2 * length * (length + Math.abs(v[k + 1]! + alpha)));
    if (norm === 0) continue;
    for (let i = k + 1; i < dim; i++) v[i]! /= norm;
    let along = 0; // v · A v
    for (let i = k + 1; i < dim; i++) {
      let sum = 0;
      for (let j = k + 1; j < dim; j++) sum += a[i * dim + j]! * v[j]!;
      w[i] = sum;
      along += sum * v[i]!;
    }
    for (let i = k + 1; i < dim; i++) w[i]! -= along * v[i]!;
    for (let i = k + 1; i < dim; i++)
      for (let j = k + 1; j < dim; j++) a[i * dim + j]! -= 2 * (v[i]! * w[j]! + w[i]! * v[j]!);
    w.fill(0);
    for (let i = k + 1; i < dim; i++) for (let j = 0; j < dim; j++) w[j]! += v[i]! * rows[i * dim + j]!;
    for (let i = k + 1; i < dim; i++) for (let j = 0; j < dim; j++) rows[i * dim + j]! -= 2 * v[i]! * w[j]!;
  }
  return { diagonal: Float64Array.from({ length: dim }, (_, i) => a[i * dim + i]!), beside, rows };
}

const ROUNDS = 60;

/** Turns pairs of rows until nothing stands beside the diagonal `d`. */
function diagonalise(d: Float64Array, e: Float64Array, rows: Float64Array, dim: number): void {
  for (let l = 0; l < dim; l++) {
    for (let round = 0; round < ROUNDS; round++) {
      let m = l;
      while (m + 1 < dim && Math.abs(e[m]!) > Number.EPSILON * (Math.abs(d[m]!) + Math.abs(d[m + 1]!))) m++;
      if (m === l) break;
      const shift = (d[l + 1]! - d[l]!) / (2 * e[l]!);
      let g = d[m]! - d[l]! + e[l]! / (shift + (shift < 0 ? -1 : 1) * Math.hypot(shift, 1));
      let [sin, cos, p] = [1, 1, 0];
      let i = m - 1;
      for (; i >= l; i--) {
        const [f, b] = [sin * e[i]!, cos * e[i]!];
        const r = Math.hypot(f, g);
        e[i + 1] = r;
        if (r === 0) break; // the matrix falls apart here
        [sin, cos] = [f / r, g / r];
        g = d[i + 1]! - p;
        const t = (d[i]! - g) * sin + 2 * cos * b;
        p = sin * t;
        d[i + 1] = g + p;
        g = cos * t - b;
        for (let k = 0; k < dim; k++) {
          const [x, y] = [rows[i * dim + k]!, rows[(i + 1) * dim + k]!];
          rows[i * dim + k] = cos * x - sin * y;
          rows[(i + 1) * dim + k] = sin * x + cos * y;
        }
      }
      if (i >= l) d[i + 1]! -= p;
      else {
        d[l]! -= p;
        e[l] = g;
      }
      e[m] = 0;
    }
  }
}

const multiply = (a: Float64Array, b: Float64Array, dim: number): Float64Array => {
  const out = new Float64Array(dim * dim);
  for (let i = 0; i < dim; i++)
    for (let k = 0; k < dim; k++) for (let j = 0; j < dim; j++) out[i * dim + j]! += a[i * dim + k]! * b[k * dim + j]!;
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
    distance +=
      (ga.mean[i]! - gb.mean[i]!) ** 2 +
      ga.cov[i * dim + i]! +
      gb.cov[i * dim + i]! -
      2 * Math.sqrt(Math.max(0, values[i]!));
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

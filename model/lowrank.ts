/** The best approximation of a matrix by few ranks: what a LoRA can carry of a change of weights. */
import { draw } from './params.ts';

export interface LowRank {
  /** [rank, in] */
  a: Float32Array<ArrayBuffer>;
  /** [out, rank], orthonormal columns. */
  b: Float32Array<ArrayBuffer>;
  /** Share of the squared norm of the matrix that B A has. */
  kept: number;
}

/** Each doubles the gap between the ranks that are kept and the rest. */
const ITERATIONS = 3;

/**
 * d [out, in] ≈ B A of rank min(rank, out, in), by subspace iteration from random directions that a seed decides
 * (Halko, Martinsson and Tropp, arXiv 0909.4061, algorithm 4.4).
 */
export function lowRank(d: Float32Array, outputs: number, inputs: number, rank: number): LowRank {
  const shape = [outputs, inputs] as const;
  const k = Math.min(rank, outputs, inputs);
  let z = Float64Array.from(draw('normal', 0, 'subspace', inputs * k)); // [in, k]
  let q = orthonormal(times(d, z, shape, k), k);
  for (let i = 0; i < ITERATIONS; i++) {
    z = orthonormal(times(d, q, shape, k, true), k);
    q = orthonormal(times(d, z, shape, k), k);
  }
  const coefficients = times(d, q, shape, k, true); // dᵀ Q = Aᵀ
  const a = new Float32Array(k * inputs);
  for (let i = 0; i < inputs; i++) for (let c = 0; c < k; c++) a[c * inputs + i] = coefficients[i * k + c]!;
  const norm = squares(d);
  return { a, b: Float32Array.from(q), kept: norm ? squares(coefficients) / norm : 1 };
}

const squares = (x: Float32Array | Float64Array): number => {
  let sum = 0;
  for (let i = 0; i < x.length; i++) sum += x[i]! * x[i]!;
  return sum;
};

/** d [m, n] · z [n, k], or dᵀ · z [m, k]. */
function times(
  d: Float32Array,
  z: Float64Array,
  [m, n]: readonly [number, number],
  k: number,
  transposed = false,
): Float64Array<ArrayBuffer> {
  const y = new Float64Array((transposed ? n : m) * k);
  for (let i = 0; i < m; i++) {
    for (let j = 0; j < n; j++) {
      const x = d[i * n + j]!;
      for (let c = 0, to = (transposed ? j : i) * k, from = (transposed ? i : j) * k; c < k; c++)
        y[to + c]! += x * z[from + c]!;
    }
  }
  return y;
}

/**
 * Gram-Schmidt over the columns of y [m, k], twice for the sake of rounding; a column
 * that hardly differs from those before it becomes zero.
 */
function orthonormal(y: Float64Array<ArrayBuffer>, k: number): Float64Array<ArrayBuffer> {
  const rows = y.length / k;
  const dot = (a: number, b: number): number => {
    let sum = 0;
    for (let i = 0; i < rows; i++) sum += y[i * k + a]! * y[i * k + b]!;
    return sum;
  };
  for (let c = 0; c < k; c++) {
    const before = Math.sqrt(dot(c, c));
    for (let pass = 0; pass < 2; pass++) {
      for (let e = 0; e < c; e++) {
        const share = dot(c, e);
        for (let i = 0; i < rows; i++) y[i * k + c]! -= share * y[i * k + e]!;
      }
    }
    const norm = Math.sqrt(dot(c, c));
    const factor = norm > 1e-10 * before ? 1 / norm : 0;
    for (let i = 0; i < rows; i++) y[i * k + c]! *= factor;
  }
  return y;
}

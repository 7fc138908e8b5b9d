/**
 * Precision and recall of a set of samples: which share of them lies among the real ones, and which share of the real ones lies among
 * them. Kynkäänniemi et al., "Improved precision and recall metric for assessing generative models" (NeurIPS 2019).
 */

const NEIGHBOURS = 3;

const squared = (a: Float32Array, b: Float32Array, i: number, j: number, dim: number): number => {
  let sum = 0;
  for (let k = 0; k < dim; k++) sum += (a[i * dim + k]! - b[j * dim + k]!) ** 2;
  return sum;
};

/** Squared distance of each row to its third nearest other one. */
function radii(rows: Float32Array, dim: number): number[] {
  const n = rows.length / dim;
  return Array.from({ length: n }, (_, i) => {
    const distances = Array.from({ length: n }, (__, j) => (j === i ? Infinity : squared(rows, rows, i, j, dim))).sort(
      (a, b) => a - b,
    );
    return distances[Math.min(NEIGHBOURS, n - 1) - 1] ?? 0;
  });
}

/** Share of `points` that lie within the radius of any row of `set`. */
function covered(points: Float32Array, set: Float32Array, dim: number): number {
  const around = radii(set, dim);
  const n = points.length / dim;
  let inside = 0;
  for (let i = 0; i < n; i++) if (around.some((radius, j) => squared(points, set, i, j, dim) <= radius)) inside++;
  return inside / n;
}

/** Of features [n, dim] and [m, dim]. */
export const precisionRecall = (
  made: Float32Array,
  real: Float32Array,
  dim: number,
): { precision: number; recall: number } => ({ precision: covered(made, real, dim), recall: covered(real, made, dim) });

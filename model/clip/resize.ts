/** Image resizing as two matrix products, as PyTorch's `interpolate` does it: corners not aligned, no antialias, no clamping. */
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';

/**
 * The sources that one result reads, with their weights; they may lie outside. `at`: where
 * it lies, in source pixels counted from the middle of the first.
 */
type Taps = (at: number) => readonly (readonly [source: number, weight: number])[];

/** PyTorch's coefficient of cubic convolution. */
const A = -0.75;

/** Cubic convolution at distance d, 0 ≤ d ≤ 2 (Keys 1981). */
export const cubic = (d: number, a = A): number =>
  d <= 1 ? ((a + 2) * d - (a + 3)) * d * d + 1 : ((a * d - 5 * a) * d + 8 * a) * d - 4 * a;

const bicubic: Taps = (at) =>
  [-1, 0, 1, 2].map((tap) => [Math.floor(at) + tap, cubic(Math.abs(at - Math.floor(at) - tap))] as const);

/** Weights [to, from]: those beyond an edge fall on it. */
function resizeMatrix(from: number, to: number, taps: Taps): HostTensor {
  const weights = new Float64Array(to * from);
  for (let i = 0; i < to; i++) {
    for (const [source, weight] of taps((i + 0.5) * (from / to) - 0.5))
      weights[i * from + Math.min(Math.max(source, 0), from - 1)]! += weight;
  }
  return host(Float32Array.from(weights), [to, from]);
}

export interface ResizeTables<T = HostTensor> {
  rows: T;
  columns: T;
}

/** Tables from (height, width) to another. */
export const resizeTables = (
  [height, width]: readonly [number, number],
  [toHeight, toWidth]: readonly [number, number],
  taps: Taps = bicubic,
): ResizeTables => ({ rows: resizeMatrix(height, toHeight, taps), columns: resizeMatrix(width, toWidth, taps) });

/** x [...,H,W] → [...,H',W']. */
export const resize = (x: Tensor, { rows, columns }: ResizeTables<Tensor>): Tensor =>
  x.matmul(columns, { transB: true }).transpose().matmul(rows, { transB: true }).transpose();

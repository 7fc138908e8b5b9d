/** Tables that the DiT takes as inputs, computed in doubles on the host: timestep angles and rotary angles. */
import type { Triple } from '../../engine/frontend/graph.ts';
import { fail, printShapes } from '../../engine/host/errors.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { headDim, type DiTConfig } from '../config.ts';

const THETA = 10000;

/** Timesteps t (0 … 1000, not rounded) → [B, dim]: the cosines, then the sines, of t θ^(-i / half). */
export function timeEmbedding(t: readonly number[], dim: number): HostTensor {
  const half = dim / 2;
  const data = new Float32Array(t.length * dim);
  t.forEach((time, b) => {
    for (let i = 0; i < half; i++) {
      const angle = time * THETA ** (-i / half);
      data[b * dim + i] = Math.cos(angle);
      data[b * dim + half + i] = Math.sin(angle);
    }
  });
  return host(data, [t.length, dim]);
}

/** Rotary pairs of a head that turn with time, height and width; time takes what a third leaves over. */
export function rotaryPairs(headSize: number): Triple {
  const pairs = headSize / 2;
  const third = Math.floor(pairs / 3);
  return [pairs - 2 * third, third, third];
}

/** Angles of the tokens of a (time, height, width) grid, in that order → [t h w, headSize / 2], row by row. */
function rotaryAngles(grid: Triple, headSize: number): Float64Array {
  const pairs = rotaryPairs(headSize);
  const out = new Float64Array(grid[0] * grid[1] * grid[2] * (headSize / 2));
  let at = 0;
  for (let t = 0; t < grid[0]; t++) {
    for (let h = 0; h < grid[1]; h++) {
      for (let w = 0; w < grid[2]; w++) {
        [t, h, w].forEach((position, axis) => {
          for (let i = 0; i < pairs[axis]!; i++) out[at++] = position * THETA ** (-i / pairs[axis]!);
        });
      }
    }
  }
  return out;
}

/** Tokens a sample has along (time, height, width). `shape` is [..., F, H, W] of its latent. */
export function tokenGrid(config: DiTConfig, shape: readonly number[]): Triple {
  const grid = shape.slice(-3).map((n, i) => n / config.patch_size[i]!);
  if (!grid.every(Number.isInteger))
    fail('dit', `latent ${printShapes(shape)} does not divide into patches ${printShapes(config.patch_size)}`);
  return grid as unknown as Triple;
}

export interface DiTTables<T = HostTensor> {
  /** [1 or B, N, head size]; each pair's cosine stands twice. */
  cos: T;
  /** [1 or B, N, head size]; each pair's sine stands twice, the first time negated. */
  sin: T;
  /** u32 [B]: tokens of each sample, when some have fewer than N. */
  lengths?: T;
}

/**
 * Tables for a batch.
 * @param grids tokens along (time, height, width): one grid for all samples, or one a sample
 * @param seqLen N; by default the longest sample's. Rows past a sample's own tokens stay unrotated and are masked as keys.
 */
export const ditTables = (config: DiTConfig, grids: readonly Triple[], seqLen?: number): DiTTables =>
  rotaryTables(headDim(config), grids, seqLen);

/** `ditTables` for heads of `size` numbers. */
export function rotaryTables(
  size: number,
  grids: readonly Triple[],
  seqLen = Math.max(...grids.map(([t, h, w]) => t * h * w)),
): DiTTables {
  const lengths = grids.map(([t, h, w]) => t * h * w);
  if (lengths.some((n) => n > seqLen)) fail('dit', `samples of ${lengths.join(', ')} tokens do not fit into ${seqLen}`);
  const cos = new Float32Array(grids.length * seqLen * size).fill(1);
  const sin = new Float32Array(grids.length * seqLen * size);
  grids.forEach((grid, b) => {
    rotaryAngles(grid, size).forEach((angle, i) => {
      const at = b * seqLen * size + 2 * i;
      cos[at] = cos[at + 1] = Math.cos(angle);
      sin[at + 1] = Math.sin(angle);
      sin[at] = -sin[at + 1]!;
    });
  });
  const shape = [grids.length, seqLen, size];
  return {
    cos: host(cos, shape),
    sin: host(sin, shape),
    ...(lengths.some((n) => n < seqLen) && { lengths: host(lengths, [grids.length], 'u32') }),
  };
}

/** Turns the interleaved pairs of x [B, N, heads, head size] by the tables' angles. */
export function rotate(x: Tensor, { cos, sin }: Pick<DiTTables<Tensor>, 'cos' | 'sin'>): Tensor {
  const swapped = x.reshape([-1, 2]).flip(1).reshape(x.shape);
  return x.mul(cos.unsqueeze(2)).add(swapped.mul(sin.unsqueeze(2)));
}

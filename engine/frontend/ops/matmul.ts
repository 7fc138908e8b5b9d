/** Matrix products, plain or batched; flags say which stored operand is transposed. Accumulates and returns f32. */
import { fail, printShapes } from '../../host/errors.ts';
import type { OpAttrs, TensorType } from '../graph.ts';
import { sizeOf } from '../graph.ts';
import type { OpDef } from './op.ts';
import { arity, isFloat, isStorage } from './op.ts';
import { KERNEL } from './traits.ts';

/** Sizes of the product of two stored operands. */
function matmulSizes(
  a: readonly number[],
  b: readonly number[],
  { transA, transB }: OpAttrs['matmul'],
): { batch: number; m: number; n: number; k: number } {
  const [aRows, aCols] = a.slice(-2) as [number, number];
  const [bRows, bCols] = b.slice(-2) as [number, number];
  return {
    batch: a.length === 3 ? a[0]! : 1,
    m: transA ? aCols : aRows,
    k: transA ? aRows : aCols,
    n: transB ? bRows : bCols,
  };
}

export const matmul: OpDef<'matmul'> = {
  infer(x, attrs) {
    arity('matmul', x, 2);
    for (const t of x)
      if (!isFloat(t.dtype) && !isStorage(t.dtype))
        fail('matmul', `expected floats, got ${t.dtype}${printShapes(t.shape)}`);
    const [a, b] = x.map((t) => t.shape) as [readonly number[], readonly number[]];
    if (a.length !== b.length || (a.length !== 2 && a.length !== 3))
      fail('matmul', `expected two operands of 2 or of 3 axes, got ${printShapes(a, b)}`);
    if (a.length === 3 && a[0] !== b[0]) fail('matmul', `batch sizes differ: ${printShapes(a, b)}`);
    const { m, n, k } = matmulSizes(a, b, attrs);
    if (k !== b.at(attrs.transB ? -1 : -2)) {
      const marked = (s: readonly number[], t: boolean): string => printShapes(s) + (t ? 'ᵀ' : '');
      fail('matmul', `inner sizes differ: ${marked(a, attrs.transA)} · ${marked(b, attrs.transB)}`);
    }
    return [{ shape: [...a.slice(0, -2), m, n], dtype: 'f32' } satisfies TensorType];
  },
  oracle([a, b], attrs) {
    const { batch, m, n, k } = matmulSizes(a!.shape, b!.shape, attrs);
    const y = new Float64Array(batch * m * n);
    const [aRow, aCol] = attrs.transA ? [1, m] : [k, 1];
    const [bRow, bCol] = attrs.transB ? [1, k] : [n, 1];
    for (let s = 0; s < batch; s++) {
      for (let i = 0; i < m; i++) {
        for (let j = 0; j < n; j++) {
          let sum = 0;
          for (let l = 0; l < k; l++)
            sum += a!.data[s * m * k + i * aRow + l * aCol]! * b!.data[s * k * n + l * bRow + j * bCol]!;
          y[(s * m + i) * n + j] = sum;
        }
      }
    }
    return [y];
  },
  vjp({ x, dy, attrs: { transA, transB }, needs, make }) {
    const [a, b, g] = [x[0]!, x[1]!, dy[0]!];
    return [
      needs[0]
        ? (transA
            ? make('matmul', [b, g], { transA: transB, transB: true })
            : make('matmul', [g, b], { transA: false, transB: !transB }))[0]!
        : null,
      needs[1]
        ? (transB
            ? make('matmul', [g, a], { transA: true, transB: transA })
            : make('matmul', [a, g], { transA: !transA, transB: false }))[0]!
        : null,
    ];
  },
  flops([a], outs, { transA }) {
    return 2 * sizeOf(outs[0]!) * a!.shape.at(transA ? -2 : -1)!;
  },
  traits: { ...KERNEL, epilogue: 'placed', reads: 'any', half: 'cast', linear: [0, 1] },
};

/** Part of stage `lower`: which kernel family an op with a kernel of its own goes to, and what problem it is there. */
import { numel, type Access, type Caps, type DType, type Epilogue, type Launch } from '../../kernels/kernel.ts';
import { attention, attentionGrad } from '../../kernels/attention/index.ts';
import { conv3d, conv3dInput, conv3dWeight } from '../../kernels/conv3d/index.ts';
import { gather, scatterAdd } from '../../kernels/gather/index.ts';
import { matmul } from '../../kernels/matmul/index.ts';
import type { OperandType } from '../../kernels/matmul/plan.ts';
import { order } from '../../kernels/order/index.ts';
import { pool } from '../../kernels/pool/index.ts';
import { random } from '../../kernels/random/index.ts';
import { layerNorm, layerNormGrad, rmsNorm, rmsNormGrad, softmax, type RowsProblem } from '../../kernels/rows/index.ts';
import { scan } from '../../kernels/scan/index.ts';
import { linesOf } from '../frontend/ops/order.ts';
import { sizeOf, typeOf, type Inline, type Node, type OpName, type Reduction, type Triple } from '../frontend/graph.ts';

/** Slots are the node's inputs, then its outputs. */
export type Anchor<K extends OpName> = (caps: Caps, node: Node<K>, access: Access[], epilogue?: Epilogue) => Launch;

const widest = (access: readonly Access[]): Access => (access.includes('read_write') ? 'read_write' : 'read');
const shapeOf = (n: Node, i: number) => typeOf(n.inputs[i]!).shape;
const dtypeOf = (n: Node, i: number) => typeOf(n.inputs[i]!).dtype;

function rows<K extends OpName>(family: (caps: Caps, p: RowsProblem) => Launch): Anchor<K> {
  return (caps, n, access, epilogue) => {
    const shape = shapeOf(n, 0);
    const cols = shape.at(-1) ?? 1;
    const { eps = 0 } = n.attrs as { eps?: number };
    return family(caps, { rows: numel(shape.slice(0, -1)), cols, eps, access, epilogue });
  };
}

function convolution<K extends 'conv3d' | 'conv3dInput' | 'conv3dWeight'>(
  family: typeof conv3d,
  shapes: (n: Node<K>) => { x: readonly number[]; w: readonly number[]; y: readonly number[] },
): Anchor<K> {
  return (caps, n, access, epilogue) => {
    const { x, w, y } = shapes(n);
    const { stride, padLo, half = false } = n.attrs;
    return family(caps, {
      N: x[0]!,
      C: x[1]!,
      O: w[0]!,
      in: x.slice(2) as unknown as Triple,
      out: y.slice(2) as unknown as Triple,
      kernel: w.slice(2) as unknown as Triple,
      stride,
      padLo,
      half,
      access: widest(access),
      epilogue,
    });
  };
}

/** argmax and argmin are the first of one; NaN is before it either way. */
function ordered<K extends 'argmax' | 'argmin' | 'topK'>(largest: (n: Node<K>) => boolean): Anchor<K> {
  return (caps, n, [access]) => {
    const { axis, k = 1 } = n.attrs as { axis: number; k?: number };
    return order(caps, {
      ...linesOf(shapeOf(n as unknown as Node, 0), axis),
      dtype: element(dtypeOf(n as unknown as Node, 0)),
      k,
      largest: largest(n),
      nanFirst: n.op !== 'topK',
      values: n.op === 'topK',
      access: access!,
    });
  };
}

function pooling<K extends 'sumPool' | 'maxPool'>(op: 'sum' | 'max'): Anchor<K> {
  return (caps, n, [access]) => {
    const x = shapeOf(n as unknown as Node, 0);
    const { kernel, stride, dilation, padLo } = n.attrs;
    const [from, to] = [x, n.outs[0]!.shape].map((s) => s.slice(-3) as unknown as Triple) as [Triple, Triple];
    const lines = numel(x.slice(0, -3));
    return pool(caps, { op, lines, in: from, out: to, kernel, stride, dilation, padLo, access: access! });
  };
}

function attentionOf<K extends 'attention' | 'attentionGrad'>(family: typeof attention, lengthsAt: number): Anchor<K> {
  return (caps, n, access) => {
    const [B, N, H, D] = shapeOf(n, 0) as [number, number, number, number];
    const L = shapeOf(n, 1)[1]!;
    const { scale, half = false } = n.attrs;
    return family(caps, { B, N, L, H, D, scale, half, lengths: n.inputs.length > lengthsAt, access });
  };
}

/** Every op that is neither an input nor inlined nor a reduction. */
export const ANCHORS: { [K in Exclude<OpName, Inline | Reduction | 'input'>]: Anchor<K> } = {
  random: (caps, n, [access]) =>
    random(caps, { n: sizeOf(n.outs[0]!), dist: n.attrs.dist, stream: n.attrs.stream, access: access! }),
  matmul: (caps, n, access, epilogue) => {
    const { transA, transB } = n.attrs;
    const a = shapeOf(n, 0);
    const [M, N] = n.outs[0]!.shape.slice(-2) as [number, number];
    return matmul(caps, {
      batch: a.length === 3 ? a[0]! : 1,
      M,
      N,
      K: a.at(transA ? -2 : -1)!,
      transA,
      transB,
      dtypeA: float(dtypeOf(n, 0)),
      dtypeB: float(dtypeOf(n, 1)),
      access: [access[0]!, access[1]!],
      epilogue,
    });
  },
  conv3d: convolution(conv3d, (n) => ({ x: shapeOf(n, 0), w: shapeOf(n, 1), y: n.outs[0]!.shape })),
  conv3dInput: convolution(conv3dInput, (n) => ({ x: n.outs[0]!.shape, w: shapeOf(n, 1), y: shapeOf(n, 0) })),
  conv3dWeight: convolution(conv3dWeight, (n) => ({ x: shapeOf(n, 0), w: n.outs[0]!.shape, y: shapeOf(n, 1) })),
  attention: attentionOf(attention, 3),
  attentionGrad: attentionOf(attentionGrad, 6),
  softmax: rows(softmax),
  layerNorm: rows(layerNorm),
  layerNormGrad: rows(layerNormGrad),
  rmsNorm: rows(rmsNorm),
  rmsNormGrad: rows(rmsNormGrad),
  argmax: ordered(() => true),
  argmin: ordered(() => false),
  topK: ordered((n) => n.attrs.largest),
  cumSum: (caps, n, [access]) => {
    const { axis, exclusive, reverse } = n.attrs;
    const { shape, dtype } = n.outs[0]!;
    return scan(caps, { ...linesOf(shape, axis), dtype: element(dtype), exclusive, reverse, access: access! });
  },
  sumPool: pooling('sum'),
  maxPool: pooling('max'),
  gather: (caps, n, access) => {
    const table = shapeOf(n, 0);
    return gather(caps, {
      ids: sizeOf(typeOf(n.inputs[1]!)),
      rows: table[0]!,
      width: numel(table.slice(1)),
      idsDtype: integer(dtypeOf(n, 1)),
      access: widest(access),
    });
  },
  scatterAdd: (caps, n, access) =>
    scatterAdd(caps, {
      ids: sizeOf(typeOf(n.inputs[0]!)),
      rows: n.attrs.rows,
      width: sizeOf(n.outs[0]!) / n.attrs.rows,
      idsDtype: integer(dtypeOf(n, 0)),
      access: widest(access),
    }),
};

/** What a kernel computes in: floats as f32. */
export const element = (d: DType): 'f32' | 'i32' | 'u32' => (d === 'i32' || d === 'u32' ? d : 'f32');

function float(d: DType): OperandType {
  if (d !== 'i32' && d !== 'u32') return d;
  throw new Error(`[matmul] expected floats, got ${d}`);
}

function integer(d: DType): 'i32' | 'u32' {
  if (d === 'i32' || d === 'u32') return d;
  throw new Error(`[gather] expected i32 or u32 ids, got ${d}`);
}

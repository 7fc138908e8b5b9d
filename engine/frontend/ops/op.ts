/** What an op is: a record of type rule, reference, gradient and cost. */
import type { DType } from '../../../kernels/kernel.ts';
import { isPacked } from '../../../kernels/packed.ts';
import { fail, printShapes } from '../../host/errors.ts';
import type { OpAttrs, OpName, TensorType } from '../graph.ts';
import type { Tensor } from '../tensor.ts';
import type { HostTensor } from '../tree.ts';
import type { Traits } from './traits.ts';

/** Makes a node and gives its outputs. */
export type Make = <K extends OpName>(op: K, inputs: readonly Tensor[], attrs: OpAttrs[K]) => Tensor[];

/** What a gradient rule sees. Values of `x` and `y` are recomputed only when used, so prefer shapes where shapes do. */
export interface VjpContext<K extends OpName> {
  x: Tensor[];
  y: Tensor[];
  /** Cotangents of the outputs; null where none arrived, never all null. */
  dy: (Tensor | null)[];
  attrs: OpAttrs[K];
  /** Which inputs want a cotangent. */
  needs: boolean[];
  make: Make;
  /** The gradient through the op's `composed` form. */
  throughComposed: () => (Tensor | null)[];
}

export interface OpDef<K extends OpName> {
  /** Output types; throws an EngineError for inputs that do not fit. */
  infer: (x: readonly TensorType[], attrs: OpAttrs[K]) => TensorType[];
  /** Reference in float64. */
  oracle: (x: readonly HostTensor[], attrs: OpAttrs[K], outs: readonly TensorType[]) => ArrayLike<number>[];
  /** Cotangents of the inputs; null for an op without gradient. */
  vjp: ((c: VjpContext<K>) => (Tensor | null)[]) | null;
  /** The same op in primitives. Higher derivatives go through it. */
  composed?: (x: readonly Tensor[], attrs: OpAttrs[K], make: Make) => Tensor[];
  flops: (x: readonly TensorType[], outs: readonly TensorType[], attrs: OpAttrs[K]) => number;
  traits: Traits;
}

/** What arithmetic takes. */
export const isFloat = (dtype: DType): boolean => dtype === 'f32' || dtype === 'f16';
/** What no kernel writes: bf16 is read by `cast` and `matmul` only, what is packed by `matmul`. */
export const isStorage = (dtype: DType): boolean => dtype === 'bf16' || isPacked(dtype);
/** Floats of fewer bits than f32. */
export const isNarrow = (dtype: DType): boolean => dtype === 'f16' || isStorage(dtype);

export function arity(op: OpName, x: readonly TensorType[], least: number, most = least): void {
  if (x.length < least || x.length > most)
    fail(op, `expected ${least === most ? least : `${least} to ${most}`} operands, got ${x.length}`);
}

export function floats(op: OpName, x: readonly TensorType[]): void {
  for (const t of x) if (!isFloat(t.dtype)) fail(op, `expected f32 or f16, got ${t.dtype}${printShapes(t.shape)}`);
}

export const sameShape = (a: readonly number[], b: readonly number[]): boolean =>
  a.length === b.length && a.every((n, i) => n === b[i]);

/** Steps between neighbours along each axis of a row-major tensor. */
export function strides(shape: readonly number[]): number[] {
  const out = shape.map(() => 1);
  let step = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    out[i] = step;
    step *= shape[i]!;
  }
  return out;
}

/** Every index of `shape` in row-major order. The array is reused. */
export function eachIndex(shape: readonly number[], visit: (index: number[], flat: number) => void): void {
  const index = shape.map(() => 0);
  const count = shape.reduce((a, b) => a * b, 1);
  for (let flat = 0; flat < count; flat++) {
    visit(index, flat);
    for (let axis = shape.length - 1; axis >= 0 && ++index[axis]! === shape[axis]; axis--) index[axis] = 0;
  }
}

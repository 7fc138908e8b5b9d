/** Trees: nested plain objects and arrays around leaves. Also tensors in host memory, the commonest leaf. */
import type { DType } from '../../kernels/kernel.ts';
import { numel } from '../../kernels/kernel.ts';
import { checkShape, fail, printShapes } from '../host/errors.ts';

export type HostData = Float64Array | Float32Array | Int32Array | Uint32Array;

/** A tensor in host memory. f16 is held as Float32Array. */
export interface HostTensor {
  readonly shape: readonly number[];
  readonly dtype: DType;
  readonly data: HostData;
}

/** What an array's type says of its numbers. */
export const dtypeOf = (data: unknown): DType =>
  data instanceof Int32Array ? 'i32' : data instanceof Uint32Array ? 'u32' : 'f32';

/** Numbers as a host tensor; the dtype follows the array's type unless given. Throws when the count does not match the shape. */
export function host(data: HostData | readonly number[], shape: readonly number[], dtype?: DType): HostTensor {
  if (data.length !== numel(shape)) fail('host', `${data.length} numbers do not fill ${printShapes(shape)}`);
  checkShape('host', shape);
  const type = dtype ?? dtypeOf(data);
  if (!Array.isArray(data)) return { shape, dtype: type, data: data as HostData };
  return {
    shape,
    dtype: type,
    data: type === 'i32' ? Int32Array.from(data) : type === 'u32' ? Uint32Array.from(data) : Float32Array.from(data),
  };
}

export interface Flat<L = unknown> {
  leaves: L[];
  /** `params.blocks.0.w`: where each leaf stands; '' when the tree is one leaf. */
  paths: string[];
  /** The structure as text: equal keys mean equal structures. */
  key: string;
  /** The same structure around other leaves. */
  rebuild(leaves: readonly unknown[]): unknown;
}

const isPlain = (x: object): boolean => {
  const proto = Object.getPrototypeOf(x) as unknown;
  return proto === Object.prototype || proto === null;
};
/** Tensor types and host tensors are plain objects but leaves: they have a shape and a dtype. */
const isBranch = (x: unknown): x is Record<string, unknown> | unknown[] =>
  Array.isArray(x) || (typeof x === 'object' && x !== null && isPlain(x) && !('shape' in x && 'dtype' in x));

/**
 * Leaves of a tree in order of their sorted keys. A leaf is whatever is no plain object and no array; null and undefined are
 * empty branches, which stay where they are.
 */
export function flatten<L = unknown>(tree: unknown): Flat<L> {
  const leaves: L[] = [];
  const paths: string[] = [];
  const walk = (x: unknown, path: string): string => {
    if (x === null || x === undefined) return '-';
    if (!isBranch(x)) {
      leaves.push(x as L);
      paths.push(path);
      return '*';
    }
    const at = (k: string | number): string => (path ? `${path}.${k}` : `${k}`);
    if (Array.isArray(x)) return `[${x.map((e, i) => walk(e, at(i))).join()}]`;
    return `{${Object.keys(x)
      .sort()
      .map((k) => `${JSON.stringify(k)}:${walk(x[k], at(k))}`)
      .join()}}`;
  };
  const key = walk(tree, '');
  const rebuild = (values: readonly unknown[]): unknown => {
    if (values.length !== leaves.length) fail('tree', `${values.length} leaves do not fill a tree of ${leaves.length}`);
    let next = 0;
    const build = (x: unknown): unknown => {
      if (x === null || x === undefined) return x;
      if (!isBranch(x)) return values[next++];
      if (Array.isArray(x)) return x.map(build);
      return Object.fromEntries(
        Object.keys(x)
          .sort()
          .map((k) => [k, build(x[k])]),
      );
    };
    return build(tree);
  };
  return { leaves, paths, key, rebuild };
}

/** `fn` over the leaves of trees of one structure; the result has the same structure. */
export function mapTree<T>(fn: (...leaves: never[]) => unknown, first: T, ...rest: readonly unknown[]): T {
  const flat = flatten(first);
  const others = rest.map((tree) => {
    const other = flatten(tree);
    if (other.key !== flat.key) fail('tree', `structures differ: ${flat.key} and ${other.key}`);
    return other.leaves;
  });
  return flat.rebuild(
    flat.leaves.map((leaf, i) => (fn as (...leaves: unknown[]) => unknown)(leaf, ...others.map((o) => o[i]))),
  ) as T;
}

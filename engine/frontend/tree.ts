/** Trees: nested plain objects and arrays around leaves. Also tensors in host memory, the commonest leaf. */
import type { DType } from '../../kernels/kernel.ts';
import { BYTES, numel, storageBytes } from '../../kernels/kernel.ts';
import { findBlock, isPacked } from '../../kernels/packed.ts';
import { fail, printShapes, shapeFault } from '../host/errors.ts';

type HostData = Float64Array | Float32Array | Int32Array | Uint32Array;

/** A tensor in host memory. f16 is held as Float32Array. */
export interface HostTensor {
  readonly shape: readonly number[];
  readonly dtype: DType;
  readonly data: HostData;
}

export type Typed = Float32Array | Int32Array | Uint32Array | Uint16Array | Uint8Array;
/** What is uploaded: f16 and bf16 as their bits, packed matrices as their bytes. */
export type Numbers = Typed | HostData | readonly number[];

/** What is wrong with a shape or a dtype, if anything is. */
export function typeFault(shape: readonly number[], dtype: DType): string | undefined {
  const block = findBlock(dtype);
  if (!block && !Object.hasOwn(BYTES, dtype))
    return `expected one of ${Object.keys(BYTES).join(', ')} or a packed type, got ${dtype}`;
  if (!Array.isArray(shape)) return `a shape is an array of sizes, got ${nameOf(shape)}`;
  if (block && (shape.length !== 2 || shape[1]! % block.elements))
    return `${dtype} is of matrices with rows of whole blocks of ${block.elements}, got ${printShapes(shape)}`;
  return shapeFault(shape);
}

/** What is wrong with data for a tensor: they are no numbers, not as many as the shape says, or none of the dtype. */
export function dataFault(data: Numbers, shape: readonly number[], dtype: DType): string | undefined {
  const typed = ArrayBuffer.isView(data) && 'length' in data && !data.constructor.name.startsWith('Big');
  if (!typed && !(Array.isArray(data) && data.every((x) => typeof x === 'number')))
    return `data are numbers in an array or a typed array, got ${nameOf(data)}`;
  if (isPacked(dtype)) {
    const bytes = storageBytes(dtype, numel(shape));
    return data.length === bytes
      ? undefined
      : `${data.length} bytes do not fill ${dtype}${printShapes(shape)}, ${bytes} do`;
  }
  if (data.length !== numel(shape)) return `${data.length} numbers do not fill ${printShapes(shape)}`;
  if ((dtype !== 'i32' && dtype !== 'u32') || (typed && dtypeOf(data) === dtype)) return undefined;
  const to = dtype === 'i32' ? Int32Array.of(0) : Uint32Array.of(0);
  const bad = Array.from(data).findIndex((x) => {
    to[0] = x;
    return to[0] !== x;
  });
  return bad < 0 ? undefined : `${data[bad]} at element ${bad} is no ${dtype}: round it, or leave it f32`;
}

/** @throws what `typeFault` finds */
export function checkType(op: string, shape: readonly number[], dtype: DType): void {
  const fault = typeFault(shape, dtype);
  if (fault) fail(op, fault);
}

/** @throws what `typeFault` and `dataFault` find */
export function checkTensor(op: string, data: Numbers, shape: readonly number[], dtype: DType): void {
  const fault = typeFault(shape, dtype) ?? dataFault(data, shape, dtype);
  if (fault) fail(op, fault);
}

/** What something is, in a message. */
export const nameOf = (x: unknown): string =>
  typeof x === 'object' && x !== null
    ? ((x as { constructor?: { name: string } }).constructor?.name ?? 'an object')
    : x === null
      ? 'null'
      : typeof x;

/** What an array's type says of its numbers. */
export const dtypeOf = (data: unknown): DType =>
  data instanceof Int32Array ? 'i32' : data instanceof Uint32Array ? 'u32' : 'f32';

/** Numbers as a host tensor; the dtype follows the array's type unless given. Throws when the count does not match the shape. */
export function host(data: HostData | readonly number[], shape: readonly number[], dtype?: DType): HostTensor {
  const type = dtype ?? dtypeOf(data);
  checkTensor('host', data, shape, type);
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

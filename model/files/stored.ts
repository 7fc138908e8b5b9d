/** Tensors as they lie in files: their types, where their values stand, and the one kind of error that a bad file gives. */
import { openFile, type OpenFile } from '../../engine/host/files.ts';
import { numel } from '../../kernels/kernel.ts';
import type { Checksum } from './crc32.ts';
import { BLOCKS, type Block, type BlockType } from '../../kernels/packed.ts';
import { fromBF16, fromF16, fromF8E4M3, fromF8E5M2 } from '../halves.ts';
import { brokenBlock, unpack } from '../packed.ts';

/** f16, bf16 and the eight-bit floats are held as their bits, ggml's block types as their bytes. */
export const ARRAYS = {
  F64: Float64Array,
  F32: Float32Array,
  F16: Uint16Array,
  BF16: Uint16Array,
  F8_E4M3: Uint8Array,
  F8_E5M2: Uint8Array,
  I64: BigInt64Array,
  U64: BigUint64Array,
  I32: Int32Array,
  U32: Uint32Array,
  I16: Int16Array,
  U16: Uint16Array,
  I8: Int8Array,
  U8: Uint8Array,
  BOOL: Uint8Array,
  ...(Object.fromEntries(Object.keys(BLOCKS).map((t) => [t.toUpperCase(), Uint8Array])) as Record<
    Uppercase<BlockType>,
    typeof Uint8Array
  >),
} as const;
export type StoredType = keyof typeof ARRAYS;
export type StoredData = InstanceType<(typeof ARRAYS)[StoredType]>;

/** Stored floats as f32; absent for whole numbers. */
export const FLOATS: Partial<Record<StoredType, (x: StoredData) => Float32Array>> = {
  F64: (x) => Float32Array.from(x as Float64Array),
  F32: (x) => x as Float32Array,
  F16: (x) => fromF16(x as Uint16Array),
  BF16: (x) => fromBF16(x as Uint16Array),
  F8_E4M3: (x) => fromF8E4M3(x as Uint8Array),
  F8_E5M2: (x) => fromF8E5M2(x as Uint8Array),
  ...Object.fromEntries(
    (Object.keys(BLOCKS) as BlockType[]).map((t) => [t.toUpperCase(), (x: StoredData) => unpack(t, x as Uint8Array)]),
  ),
};

/** ggml's type, where it is one. */
export const packedAs = (dtype: StoredType): BlockType | undefined =>
  (Object.keys(BLOCKS) as BlockType[]).find((t) => t.toUpperCase() === dtype);

/** Bits of the exponent: a float with all of them set is not finite. */
const EXPONENT: Partial<Record<StoredType, number>> = { F32: 0x7f800000, F16: 0x7c00, BF16: 0x7f80, F8_E5M2: 0x7c };

/** Place of the first float that is NaN or infinite; -1 where there is none, and for whole numbers. */
export function nonFiniteAt(dtype: StoredType, data: StoredData): number {
  if (data instanceof Float64Array) return data.findIndex((x) => !Number.isFinite(x));
  const packed = packedAs(dtype);
  if (packed) return brokenBlock(packed, data as Uint8Array) * BLOCKS[packed].elements;
  if (dtype === 'F8_E4M3') return (data as Uint8Array).findIndex((bits) => (bits & 0x7f) === 0x7f);
  const mask = EXPONENT[dtype];
  if (mask === undefined) return -1;
  const bits =
    data instanceof Float32Array
      ? new Uint32Array(data.buffer, data.byteOffset, data.length)
      : (data as Uint16Array | Uint8Array);
  for (let i = 0; i < bits.length; i++) if ((bits[i]! & mask) === mask) return i;
  return -1;
}

/** What numbers are stored in whole numbers of. */
export const blockIn = (dtype: StoredType): Block => {
  const packed = packedAs(dtype);
  return packed ? BLOCKS[packed] : { elements: 1, bytes: ARRAYS[dtype].BYTES_PER_ELEMENT };
};
/** Bytes of `count` numbers, whole blocks. */
export const bytesOf = (dtype: StoredType, count: number): number =>
  (count / blockIn(dtype).elements) * blockIn(dtype).bytes;
/** Items of an array that holds `count` numbers, and back. */
export const itemsOf = (dtype: StoredType, count: number): number =>
  bytesOf(dtype, count) / ARRAYS[dtype].BYTES_PER_ELEMENT;
export const numbersIn = (dtype: StoredType, items: number): number => items / itemsOf(dtype, 1);

export const isObject = (x: unknown): x is Record<string, unknown> =>
  typeof x === 'object' && x !== null && !Array.isArray(x);
/** A whole number that is exact as a double. */
export const isSize = (x: unknown): x is number => Number.isSafeInteger(x) && (x as number) >= 0;

export function decodeUtf8(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (error) {
    throw new Error('holds text that is not UTF-8', { cause: error });
  }
}

const SHOWN = 5;

const LONGEST = 200; // characters of one of them
const clipped = (text: string): string => (text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text);

/**
 * Things that are wrong in one line: how many, and the first of them.
 * @param what they are; its first word loses its s where there is one
 */
export const few = (what: string, all: readonly string[]): string =>
  `${all.length} ${all.length === 1 ? what.replace(/^(\w+)s\b/, '$1') : what}: ${all.slice(0, SHOWN).map(clipped).join(', ')}${all.length > SHOWN ? ', …' : ''}`;

export interface Entry {
  readonly dtype: StoredType;
  readonly shape: readonly number[];
  readonly scale?: Entry;
}

/** Values in one file: row-major from the byte `start` on, or a view of other strides. */
interface Piece {
  readonly file: DataFile;
  readonly start: number;
  readonly count: number;
  /** Told of the bytes that are read. */
  readonly checksum?: Checksum;
  /** Strides in elements; `start` is where the first element stands. */
  readonly view?: { readonly shape: readonly number[]; readonly strides: readonly number[] };
}

/** A tensor is its pieces one after the other; almost always there is one. */
export interface StoredTensor extends Entry {
  readonly pieces: readonly Piece[];
  /** Eight-bit floats: what they are multiplied by, one number for each run of equal length in row-major order. */
  readonly scale?: StoredTensor;
  /** Its writer drops axes of size 1, and may join others: a model's shape of as many numbers is its shape too. */
  readonly loose?: boolean;
}

/** What a reader of a format finds in a file. */
export interface Archive {
  readonly metadata: Readonly<Record<string, string>>;
  readonly tensors: ReadonlyMap<string, StoredTensor>;
}

/** A file of weights that is damaged, of another format, or of another model. The message is `[format] path: why`. */
export class WeightsError extends Error {
  readonly path: string;

  constructor(format: string, path: string, why: string, cause?: unknown) {
    super(`[${format}] ${path}: ${why}`, { cause });
    this.name = 'WeightsError';
    this.path = path;
  }
}

const LARGEST_READ = 2 ** 30; // some systems take no more at once

/** A file read by ranges; nothing outside of it is ever asked for. */
export class DataFile {
  readonly path: string;
  readonly size: number;
  private readonly handle: OpenFile;

  private constructor(path: string, size: number, handle: OpenFile) {
    this.path = path;
    this.size = size;
    this.handle = handle;
  }

  static async open(path: string): Promise<DataFile> {
    const handle = await openFile(path).catch((error: Error & { code?: string }) => {
      throw new WeightsError('weights', path, error.code === 'ENOENT' ? 'there is no such file' : error.message, error);
    });
    if (handle.isFile) return new DataFile(path, handle.size, handle);
    await handle.close();
    throw new WeightsError('weights', path, 'is not a file');
  }

  /** Fills `target` from the byte `position` on. */
  async readInto(position: number, target: Uint8Array): Promise<void> {
    if (position < 0 || position + target.length > this.size)
      throw new Error(`bytes ${position} to ${position + target.length} are asked for, the file has ${this.size}`);
    for (let done = 0; done < target.length;) {
      const bytesRead = await this.handle.read(
        target,
        done,
        Math.min(target.length - done, LARGEST_READ),
        position + done,
      );
      if (!bytesRead) throw new Error(`ends at byte ${position + done}, ${target.length - done} too early`);
      done += bytesRead;
    }
  }

  async read(position: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
    if (position + length > this.size)
      throw new Error(`bytes ${position} to ${position + length} are asked for, the file has ${this.size}`); // before memory is taken for them
    const bytes = new Uint8Array(length);
    await this.readInto(position, bytes);
    return bytes;
  }

  close(): Promise<void> {
    return this.handle.close();
  }
}

/** Elements `from` to `to` of a piece, into `out`. */
export async function readPiece(
  { file, start, checksum, view }: Piece,
  dtype: StoredType,
  from: number,
  to: number,
  out: StoredData,
): Promise<void> {
  if (!view) {
    const [at, bytes] = [
      start + bytesOf(dtype, from),
      new Uint8Array(out.buffer, out.byteOffset, bytesOf(dtype, to - from)),
    ];
    await file.readInto(at, bytes);
    return checksum?.follow(at, bytes);
  }
  let first = Infinity,
    last = -1;
  walk(view, from, to, (_, at) => {
    first = Math.min(first, at);
    last = Math.max(last, at);
  });
  if (last < 0) return;
  const at = start + bytesOf(dtype, first);
  const bytes = await file.read(at, bytesOf(dtype, last - first + 1));
  checksum?.follow(at, bytes);
  const stored = new ARRAYS[dtype](bytes.buffer);
  walk(view, from, to, (i, at) => {
    out[i] = stored[at - first]!;
  });
}

/** Calls `each` with the running number of every element of a view and where it stands. */
function walk(
  { shape, strides }: NonNullable<Piece['view']>,
  from: number,
  to: number,
  each: (i: number, at: number) => void,
): void {
  const place = shape.map((_, axis) => Math.floor(from / numel(shape.slice(axis + 1))) % shape[axis]!);
  for (let i = 0, at = place.reduce((sum, p, axis) => sum + p * strides[axis]!, 0); i < to - from; i++) {
    each(i, at);
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      at += strides[axis]!;
      if (++place[axis]! < shape[axis]!) break;
      at -= place[axis]! * strides[axis]!;
      place[axis] = 0;
    }
  }
}

/** Writes PyTorch archives as torch.save does, for the tests: state dicts whose tensors may share a storage, and pickles of any bytes. */
import { Buffer } from 'node:buffer';
import { crc32Of } from '../../model/files/crc32.ts';

const STORAGE = {
  F64: 'Double',
  F32: 'Float',
  F16: 'Half',
  BF16: 'BFloat16',
  I64: 'Long',
  I32: 'Int',
  I16: 'Short',
  I8: 'Char',
  U8: 'Byte',
  BOOL: 'Bool',
} as const;

export type Storage = ArrayBufferView | { readonly byteLength: number };

export interface PthTensor {
  dtype: keyof typeof STORAGE;
  shape: readonly number[];
  /** The storage's bytes, or how many zeros; tensors that name one object share it. */
  storage: Storage;
  /** In elements; row-major from 0 unless given. */
  offset?: number;
  strides?: readonly number[];
}

const u16 = (x: number): Buffer => {
  const b = Buffer.alloc(2);
  b.writeUInt16LE(x);
  return b;
};
const u32 = (x: number): Buffer => {
  const b = Buffer.alloc(4);
  b.writeUInt32LE(x);
  return b;
};
const u64 = (x: number): Buffer => {
  const b = Buffer.alloc(8);
  b.writeBigUInt64LE(BigInt(x));
  return b;
};
const text = (s: string): Buffer => Buffer.concat([Buffer.from('X'), u32(Buffer.byteLength(s)), Buffer.from(s)]);
const int = (x: number): Buffer =>
  x < 2 ** 31 ? Buffer.concat([Buffer.from('J'), u32(x)]) : Buffer.concat([Buffer.from('\x8a\x08', 'latin1'), u64(x)]);
const tuple = (items: readonly Buffer[]): Buffer => Buffer.concat([Buffer.from('('), ...items, Buffer.from('t')]);
const op = (s: string): Buffer => Buffer.from(s, 'latin1');

const itemBytes: Record<keyof typeof STORAGE, number> = {
  F64: 8,
  F32: 4,
  F16: 2,
  BF16: 2,
  I64: 8,
  I32: 4,
  I16: 2,
  I8: 1,
  U8: 1,
  BOOL: 1,
};
const rowMajor = (shape: readonly number[]): number[] =>
  shape.map((_, axis) => shape.slice(axis + 1).reduce((a, b) => a * b, 1));

/** `OrderedDict` of tensors with the attribute that state dicts have. */
export function pickleState(state: Readonly<Record<string, PthTensor>>): { pickle: Buffer; storages: Storage[] } {
  const storages = [...new Set(Object.values(state).map((t) => t.storage))];
  const items = Object.entries(state).flatMap(
    ([name, { dtype, shape, storage, offset = 0, strides = rowMajor(shape) }]) => {
      const id = tuple([
        text('storage'),
        op(`ctorch\n${STORAGE[dtype]}Storage\n`),
        text(String(storages.indexOf(storage))),
        text('cpu'),
        int(storage.byteLength / itemBytes[dtype]),
      ]);
      const args = tuple([
        id,
        op('Q'),
        int(offset),
        tuple(shape.map(int)),
        tuple(strides.map(int)),
        op('\x89'),
        op('ccollections\nOrderedDict\n)R'),
      ]);
      return [text(name), op('ctorch._utils\n_rebuild_tensor_v2\n'), args, op('R')];
    },
  );
  const attributes = Buffer.concat([op('}'), text('_metadata'), op('ccollections\nOrderedDict\n)R'), op('sb')]);
  return {
    pickle: Buffer.concat([op('\x80\x02ccollections\nOrderedDict\n)Rq\x00('), ...items, op('u'), attributes, op('.')]),
    storages,
  };
}

const bytesOf = (a: ArrayBufferView): Buffer => Buffer.from(a.buffer, a.byteOffset, a.byteLength);

/** What stands where in a file; all else is zero. */
export interface Sparse {
  readonly size: number;
  readonly pieces: readonly { readonly at: number; readonly bytes: Buffer }[];
}
export type Member = readonly [name: string, data: Buffer | number];

/** A zip of stored members, the data of each at a multiple of 64 as PyTorch has it; zeros that take no memory have no checksum. */
export function layOut(members: readonly Member[], zip64 = false): Sparse {
  const pieces: { at: number; bytes: Buffer }[] = [],
    directory: Buffer[] = [];
  const small = (x: number): Buffer => u32(zip64 ? 2 ** 32 - 1 : x);
  let at = 0;
  for (const [name, data] of members) {
    const header = at,
      length = typeof data === 'number' ? data : data.length;
    const crc = u32(typeof data === 'number' ? 0 : crc32Of(data));
    const fill = (64 - ((header + 30 + name.length + 4) % 64)) % 64;
    const sizes = Buffer.concat([small(length), small(length)]); // the directory's count
    const local = Buffer.concat([
      op('PK\x03\x04'),
      u16(0),
      u16(0x800),
      Buffer.alloc(6),
      crc,
      sizes,
      u16(name.length),
      u16(4 + fill),
      Buffer.from(name),
      op('FB'),
      u16(fill),
      Buffer.alloc(fill, 'Z'),
    ]);
    pieces.push({ at, bytes: local }, ...(typeof data === 'number' ? [] : [{ at: at + local.length, bytes: data }]));
    at += local.length + length;
    const wide = zip64 ? Buffer.concat([u16(1), u16(24), u64(length), u64(length), u64(header)]) : Buffer.alloc(0);
    directory.push(
      op('PK\x01\x02'),
      u16(0),
      u16(0),
      u16(0x800),
      Buffer.alloc(6),
      crc,
      sizes,
      u16(name.length),
      u16(wide.length),
      Buffer.alloc(10),
      small(header),
      Buffer.from(name),
      wide,
    );
  }
  const list = Buffer.concat(directory),
    n = members.length,
    count = u16(zip64 ? 0xffff : n);
  const end64 = zip64
    ? [
        op('PK\x06\x06'),
        u64(44),
        u16(45),
        u16(45),
        u32(0),
        u32(0),
        u64(n),
        u64(n),
        u64(list.length),
        u64(at),
        op('PK\x06\x07'),
        u32(0),
        u64(at + list.length),
        u32(1),
      ]
    : [];
  const bytes = Buffer.concat([
    list,
    ...end64,
    op('PK\x05\x06'),
    u32(0),
    count,
    count,
    small(list.length),
    small(at),
    u16(0),
  ]);
  return { size: at + bytes.length, pieces: [...pieces, { at, bytes }] };
}

export function zip(members: readonly Member[], zip64 = false): Buffer {
  const { size, pieces } = layOut(members, zip64);
  const all = Buffer.alloc(size);
  for (const { at, bytes } of pieces) bytes.copy(all, at);
  return all;
}

const membersOf = (pickle: Buffer, storages: readonly Storage[]): Member[] => [
  ['a/data.pkl', pickle],
  ['a/byteorder', op('little')],
  ...storages.map((s, i): Member => [`a/data/${i}`, ArrayBuffer.isView(s) ? bytesOf(s) : s.byteLength]),
  ['a/version', op('3\n')],
];

/** An archive around a pickle. */
export const archive = (pickle: Buffer, storages: readonly Storage[] = [], zip64 = false): Buffer =>
  zip(membersOf(pickle, storages), zip64);

export function pth(state: Readonly<Record<string, PthTensor>>, zip64 = false): Buffer {
  const { pickle, storages } = pickleState(state);
  return archive(pickle, storages, zip64);
}

/** As `pth` with zip64; storages of zeros take no memory. */
export function sparsePth(state: Readonly<Record<string, PthTensor>>): Sparse {
  const { pickle, storages } = pickleState(state);
  return layOut(membersOf(pickle, storages), true);
}

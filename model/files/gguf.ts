/**
 * GGUF files, as ggml and its tools write quantised models: a reader that trusts nothing in them. Versions 2 and 3 have one layout.
 * https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
 */
import { printShapes } from '../../engine/host/errors.ts';
import { quoted } from './json.ts';
import { numel } from '../../kernels/kernel.ts';
import {
  blockIn,
  bytesOf,
  decodeUtf8,
  isSize,
  type Archive,
  type DataFile,
  type StoredTensor,
  type StoredType,
} from './stored.ts';

/** ggml's numbers of the types that are read; 4 and 5 were removed from the format. */
export const TYPES: Readonly<Record<number, StoredType>> = {
  0: 'F32',
  1: 'F16',
  2: 'Q4_0',
  3: 'Q4_1',
  6: 'Q5_0',
  7: 'Q5_1',
  8: 'Q8_0',
  10: 'Q2_K',
  11: 'Q3_K',
  12: 'Q4_K',
  13: 'Q5_K',
  14: 'Q6_K',
  20: 'IQ4_NL',
  23: 'IQ4_XS',
  30: 'BF16',
};

/** Numbers of metadata: their bytes, and what stands there as text. */
const NUMBERS: Readonly<Record<number, { bytes: number; read: (v: DataView) => unknown }>> = {
  0: { bytes: 1, read: (v) => v.getUint8(0) },
  1: { bytes: 1, read: (v) => v.getInt8(0) },
  2: { bytes: 2, read: (v) => v.getUint16(0, true) },
  3: { bytes: 2, read: (v) => v.getInt16(0, true) },
  4: { bytes: 4, read: (v) => v.getUint32(0, true) },
  5: { bytes: 4, read: (v) => v.getInt32(0, true) },
  6: { bytes: 4, read: (v) => v.getFloat32(0, true) },
  7: { bytes: 1, read: (v) => v.getUint8(0) !== 0 },
  10: { bytes: 8, read: (v) => v.getBigUint64(0, true) },
  11: { bytes: 8, read: (v) => v.getBigInt64(0, true) },
  12: { bytes: 8, read: (v) => v.getFloat64(0, true) },
};
const [U32, TEXT, LIST] = [4, 8, 9];

const FIRST_READ = 2 ** 20; // a model's header; a text model's holds its vocabulary too
const LARGEST_HEADER = 2 ** 28;
const LEAST_KEY = 13; // bytes: a length, a type, a value
const LEAST_TENSOR = 32; // a length, axes, one size, a type, a place
const MOST_AXES = 5; // of patch embeddings; ggml itself writes up to four
const ALIGNMENT = 'general.alignment';
const SHAPE = 'comfy.gguf.orig_shape.';

/** The header goes on behind what was read of the file. */
class Further extends Error {}

/** The begin of a file, from front to back. */
class Cursor {
  at = 0;
  private readonly begin: Uint8Array<ArrayBuffer>;
  private readonly size: number;

  /** @param size of the whole file */
  constructor(begin: Uint8Array<ArrayBuffer>, size: number) {
    [this.begin, this.size] = [begin, size];
  }

  /** @throws where the file is too short for `count` things of at least `least` bytes */
  room(count: bigint, least: number, what: string): number {
    if (count < 0n || count * BigInt(least) > BigInt(this.size - this.at))
      throw new Error(`says it has ${count} ${what}, for which ${this.size - this.at} bytes are too few`);
    return Number(count);
  }

  take(bytes: number, what: string): DataView {
    if (this.at + bytes > this.size) throw new Error(`ends at byte ${this.size}, inside ${what}`);
    if (this.at + bytes > this.begin.length) throw new Further();
    this.at += bytes;
    return new DataView(this.begin.buffer, this.begin.byteOffset + this.at - bytes, bytes);
  }

  u32 = (what: string): number => this.take(4, what).getUint32(0, true);
  u64 = (what: string): bigint => this.take(8, what).getBigUint64(0, true);
  i64 = (what: string): bigint => this.take(8, what).getBigInt64(0, true);

  text(what: string): string {
    const length = this.room(this.u64(what), 1, `bytes of ${what}`);
    const { buffer, byteOffset } = this.take(length, what);
    return decodeUtf8(new Uint8Array(buffer as ArrayBuffer, byteOffset, length));
  }

  /** One value of a key, lists as arrays. */
  value(type: number, what: string): unknown {
    if (type === TEXT) return this.text(what);
    const number = NUMBERS[type];
    if (number) return number.read(this.take(number.bytes, what));
    if (type !== LIST) throw new Error(`${what} has type ${type}, which the format does not know`);
    const of = this.u32(what);
    if (of !== TEXT && !NUMBERS[of]) throw new Error(`${what} is a list of type ${of}, which cannot stand in one`);
    const count = this.room(this.u64(what), NUMBERS[of]?.bytes ?? 8, `values in ${what}`);
    return Array.from({ length: count }, () => this.value(of, what));
  }
}

/** As text: lists as JSON. */
const shown = (value: unknown): string =>
  Array.isArray(value)
    ? JSON.stringify(value, (_, x: unknown) => (typeof x === 'bigint' ? String(x) : x))
    : String(value);

interface Info {
  readonly dtype: StoredType;
  readonly shape: readonly number[];
  readonly offset: bigint;
  readonly bytes: number;
}

function readInfo(c: Cursor, name: string): Info {
  const what = `tensor ${quoted(name)}`;
  const axes = c.u32(what);
  if (axes < 1 || axes > MOST_AXES) throw new Error(`${what} has ${axes} axes, of 1 to ${MOST_AXES}`);
  const sizes = Array.from({ length: axes }, () => c.i64(what)); // innermost first
  const count = sizes.reduce((a, b) => a * b, 1n);
  if (sizes.some((n) => n < 1n) || count > BigInt(Number.MAX_SAFE_INTEGER))
    throw new Error(`${what} has the sizes ${sizes.join(' x ')}, which no tensor has`);
  const type = c.u32(what);
  const dtype = TYPES[type];
  if (!dtype)
    throw new Error(
      `${what} is of ggml's type ${type}; read are ${Object.entries(TYPES)
        .map(([n, t]) => `${t} (${n})`)
        .join(', ')}`,
    );
  const { elements } = blockIn(dtype);
  if (Number(sizes[0]) % elements)
    throw new Error(`${what} has rows of ${sizes[0]}, ${dtype} has blocks of ${elements}`);
  const shape = sizes.map(Number).reverse();
  return { dtype, shape, offset: c.u64(what), bytes: bytesOf(dtype, Number(count)) };
}

function readHeader(c: Cursor): { keys: Map<string, unknown>; infos: Map<string, Info>; alignment: number } {
  c.take(4, 'its first word');
  const version = c.u32('its version');
  if (version !== 2 && version !== 3)
    throw new Error(
      `is of version ${version}${version >= 2 ** 24 ? ' (or big-endian)' : ''}; versions 2 and 3 are read`,
    );
  const [tensors, count] = [c.i64('its counts'), c.i64('its counts')];
  c.room(tensors, LEAST_TENSOR, 'tensors');
  const keys = new Map<string, unknown>();
  let alignment = 32;
  for (let i = c.room(count, LEAST_KEY, 'keys'); i > 0; i--) {
    const key = c.text('a key');
    if (!key) throw new Error('has a key without a name');
    if (keys.has(key)) throw new Error(`has the key ${quoted(key)} twice`);
    const type = c.u32(`key ${quoted(key)}`);
    const value = c.value(type, `key ${quoted(key)}`);
    keys.set(key, value);
    if (key !== ALIGNMENT) continue;
    alignment = type === U32 ? (value as number) : 0;
    if (!alignment || Math.log2(alignment) % 1)
      throw new Error(`${ALIGNMENT} is ${quoted(shown(value))}, a power of two of type u32 is expected`);
  }
  const infos = new Map<string, Info>();
  for (let i = Number(tensors); i > 0; i--) {
    const name = c.text("a tensor's name");
    if (infos.has(name)) throw new Error(`has the tensor ${quoted(name)} twice`);
    infos.set(name, readInfo(c, name));
  }
  return { keys, infos, alignment };
}

/** The shape that ComfyUI's tools note beside a tensor that they wrote in another. */
function shapeOf(keys: ReadonlyMap<string, unknown>, name: string, { shape }: Info): readonly number[] {
  const noted = keys.get(SHAPE + name);
  if (noted === undefined) return shape;
  if (!Array.isArray(noted) || !noted.every(isSize) || numel(noted) !== numel(shape))
    throw new Error(`${SHAPE}${name} is ${quoted(shown(noted))}, of as many numbers as ${printShapes(shape)} expected`);
  return noted;
}

/** The header of a file. @throws why it is no GGUF file, or none that is read */
export async function readGguf(file: DataFile): Promise<Archive> {
  for (let read = FIRST_READ; ; read *= 4) {
    const begin = await file.read(0, Math.min(read, file.size));
    const c = new Cursor(begin, file.size);
    let header;
    try {
      header = readHeader(c);
    } catch (error) {
      if (!(error instanceof Further)) throw error;
      if (read >= LARGEST_HEADER)
        throw new Error(`has a header of more than ${LARGEST_HEADER} bytes`, { cause: error });
      continue;
    }
    const { keys, infos, alignment } = header;
    const aligned = (n: number): number => Math.ceil(n / alignment) * alignment;
    const start = aligned(c.at);
    const tensors = new Map<string, StoredTensor>();
    let at = 0;
    for (const [name, info] of infos) {
      if (info.offset !== BigInt(at))
        throw new Error(
          `tensor ${quoted(name)} begins at byte ${info.offset} of the data, where ${at} is expected: one follows the other, at multiples of ${alignment}`,
        );
      if (start + at + info.bytes > file.size)
        throw new Error(`tensor ${quoted(name)} ends at byte ${start + at + info.bytes}, the file has ${file.size}`);
      const shape = shapeOf(keys, name, info);
      tensors.set(name, {
        dtype: info.dtype,
        shape,
        pieces: [{ file, start: start + at, count: numel(shape) }],
        loose: true,
      });
      at = aligned(at + info.bytes);
    }
    return { metadata: Object.fromEntries([...keys].map(([key, value]) => [key, shown(value)])), tensors };
  }
}

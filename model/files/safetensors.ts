/**
 * Safetensors files: a reader that trusts nothing in the header, and an atomic writer.
 *
 * Format: u64 length of the header, the header as JSON (name → dtype, shape, byte range), the data without holes.
 * https://huggingface.co/docs/safetensors
 */
import { parseJson, quoted, type JsonLimits } from './json.ts';
import { Draft } from '../../engine/host/draft.ts';
import { printShapes } from '../../engine/host/errors.ts';
import { NDArray } from '../../engine/runtime/ndarray.ts';
import type { HostTensor } from '../../engine/frontend/tree.ts';
import { numel } from '../../kernels/kernel.ts';
import { rounded, type FloatType } from './encode.ts';
import {
  ARRAYS,
  bytesOf,
  decodeUtf8,
  isObject,
  isSize,
  packedAs,
  type Archive,
  type DataFile,
  type Entry,
  type StoredTensor,
  type StoredType,
} from './stored.ts';
import { CHUNK_BYTES } from './weights.ts';

/** First byte and the byte past the last, counted from the start of the data. */
interface Ranged extends Entry {
  readonly range: readonly [number, number];
}

const MAX_HEADER = 100e6; // bytes, the format's own; long strings may fill it, nothing else
/** name → { dtype, shape, range }, and no model of Wan's kind has a tenth as many tensors. */
const HEADER: JsonLimits = { depth: 3, members: 100_000, items: 64, unique: true };

function parseEntry(name: string, value: unknown, dataBytes: number): Ranged {
  const fail = (why: string) => new Error(`tensor ${quoted(name)}: ${why}`);
  if (!isObject(value)) throw fail('its description is not an object');
  const { dtype, shape, data_offsets: range } = value;
  if (typeof dtype !== 'string' || !Object.hasOwn(ARRAYS, dtype) || packedAs(dtype as StoredType))
    throw fail(`unknown dtype ${quoted(dtype)}`);
  if (!Array.isArray(shape) || !shape.every(isSize))
    throw fail(`shape ${quoted(shape)} is not a list of whole numbers of 0 or more`);
  if (!Array.isArray(range) || range.length !== 2 || !range.every(isSize))
    throw fail(`data_offsets ${quoted(range)} are not two whole numbers`);
  const [begin, end] = range as [number, number];
  if (begin > end) throw fail(`data_offsets [${begin}, ${end}] run backwards`);
  if (end > dataBytes) throw fail(`data ends at byte ${end}, the file has ${dataBytes}`);
  const bytes = shape.reduce<number>((a, b) => a * (b as number), bytesOf(dtype as StoredType, 1));
  if (bytes !== end - begin)
    throw fail(`${dtype} ${printShapes(shape as number[])} needs ${bytes} bytes, data_offsets give ${end - begin}`);
  return { dtype: dtype as StoredType, shape: shape as number[], range: [begin, end] };
}

/** The header's JSON, checked: every byte of the `dataBytes` behind it must belong to one tensor. */
function parseHeader(
  text: string,
  dataBytes: number,
): { metadata: Record<string, string>; entries: Map<string, Ranged> } {
  const json = parseJson(text, HEADER);
  if (!/^[{[]/.test(text)) throw new Error('its header does not begin with {');
  if (!isObject(json)) throw new Error('its header is not an object');
  const { __metadata__: metadata = {}, ...tensors } = json;
  if (!isObject(metadata) || Object.values(metadata).some((v) => typeof v !== 'string'))
    throw new Error('__metadata__ must hold strings only');
  const entries = new Map(Object.entries(tensors).map(([name, value]) => [name, parseEntry(name, value, dataBytes)]));
  let at = 0;
  for (const [
    name,
    {
      range: [begin, end],
    },
  ] of [...entries].sort(([, a], [, b]) => a.range[0] - b.range[0] || a.range[1] - b.range[1])) {
    if (begin !== at)
      throw new Error(
        `tensor ${quoted(name)} begins at byte ${begin} of the data, ${begin < at ? 'inside the tensor before it, which ends' : 'after a hole from byte'} ${at}`,
      );
    at = end;
  }
  if (at !== dataBytes) throw new Error(`${dataBytes - at} bytes stand behind the last tensor`);
  return { metadata: metadata as Record<string, string>, entries };
}

/** The header of a file. @throws why it is no safetensors file */
export async function readSafetensors(file: DataFile): Promise<Archive> {
  if (file.size < 8) throw new Error(`has ${file.size} bytes, a header's length alone takes 8`);
  const length = new DataView((await file.read(0, 8)).buffer).getBigUint64(0, true);
  if (length > file.size - 8) throw new Error(`says its header has ${length} bytes, the file has ${file.size}`);
  if (length > MAX_HEADER) throw new Error(`says its header has ${length} bytes, the format allows ${MAX_HEADER}`);
  const dataStart = 8 + Number(length);
  const { metadata, entries } = parseHeader(decodeUtf8(await file.read(8, Number(length))), file.size - dataStart);
  const placed = ({ dtype, shape, range: [begin, end] }: Ranged): StoredTensor => ({
    dtype,
    shape,
    pieces: [{ file, start: dataStart + begin, count: (end - begin) / bytesOf(dtype, 1) }],
  });
  return { metadata, tensors: new Map([...entries].map(([name, entry]) => [name, placed(entry)])) };
}

/** A tensor that is to be written: its values in row-major order, in chunks. */
export interface Output extends Entry {
  readonly values: () => AsyncIterable<Chunk> | Iterable<Chunk>;
}
interface Chunk extends ArrayBufferView {
  readonly length: number;
}

/** Writes all or nothing (`Draft`). */
export async function writeTensors(
  path: string,
  tensors: Readonly<Record<string, Output>>,
  metadata: Readonly<Record<string, string>> = {},
): Promise<void> {
  // Wide types first, so that every tensor is aligned to its own size.
  const sorted = Object.entries(tensors).sort(
    ([a, { dtype: x }], [b, { dtype: y }]) => bytesOf(y, 1) - bytesOf(x, 1) || (a < b ? -1 : 1),
  );
  const header: Record<string, unknown> = Object.keys(metadata).length ? { __metadata__: metadata } : {};
  let at = 0;
  for (const [name, { dtype, shape }] of sorted) {
    const bytes = numel(shape) * bytesOf(dtype, 1);
    header[name] = { dtype, shape, data_offsets: [at, at + bytes] };
    at += bytes;
  }
  const text = new TextEncoder().encode(JSON.stringify(header));
  const head = new Uint8Array(8 + Math.ceil(text.length / 8) * 8).fill(0x20);
  new DataView(head.buffer).setBigUint64(0, BigInt(head.length - 8), true);
  head.set(text, 8);

  const draft = new Draft(path);
  try {
    draft.write(head);
    for (const [name, { dtype, shape, values }] of sorted) {
      let left = numel(shape);
      for await (const chunk of values()) {
        draft.write(new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.byteLength));
        left -= chunk.length;
      }
      if (left) throw new Error(`tensor ${quoted(name)}: ${dtype} ${printShapes(shape)} got ${-left} values too many`);
    }
    draft.keep();
  } catch (error) {
    draft.drop();
    throw error;
  }
}

/** f32 values in device memory, in chunks. */
async function* download(t: NDArray): AsyncGenerator<Float32Array> {
  t.check();
  for (let at = 0; at < t.size; at += CHUNK_BYTES / 4) {
    yield new Float32Array(
      await t.device.readBuffer(t.buffer, t.offset + 4 * at, 4 * Math.min(CHUNK_BYTES / 4, t.size - at)),
    );
  }
}

/**
 * Tensors in host memory or, f32, on a device as a file; see `writeTensors`.
 * @param dtype of all tensors in the file; u32 and i32 tensors are stored as such
 */
export async function saveTensors(
  path: string,
  tensors: Readonly<Record<string, HostTensor | NDArray>>,
  { dtype = 'F32', metadata = {} }: { dtype?: FloatType; metadata?: Readonly<Record<string, string>> } = {},
): Promise<void> {
  const output = (t: HostTensor | NDArray): Output => {
    if (t instanceof NDArray) {
      const values = async function* () {
        for await (const chunk of download(t)) yield rounded(chunk, dtype);
      };
      return { dtype, shape: t.shape, values };
    }
    const whole = t.dtype === 'i32' ? 'I32' : t.dtype === 'u32' ? 'U32' : undefined;
    return {
      dtype: whole ?? dtype,
      shape: t.shape,
      values: () => [whole ? t.data : rounded(Float32Array.from(t.data), dtype)],
    };
  };
  await writeTensors(path, Object.fromEntries(Object.entries(tensors).map(([name, t]) => [name, output(t)])), metadata);
}

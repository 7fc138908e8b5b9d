/**
 * Safetensors files: a reader that trusts nothing in the header, sharded checkpoints by their index, and an atomic writer.
 *
 * Format: u64 length of the header, the header as JSON (name → dtype, shape, byte range), the data without holes.
 * https://huggingface.co/docs/safetensors
 */
import { open, readFile, rename, rm, type FileHandle } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { printShapes } from '../engine/errors.ts';
import { host, type HostTensor } from '../engine/tree.ts';
import { fromBF16, fromF16, toBF16, toF16 } from './halves.ts';

const ARRAYS = {
  F64: Float64Array, F32: Float32Array, F16: Uint16Array, BF16: Uint16Array,
  I64: BigInt64Array, U64: BigUint64Array, I32: Int32Array, U32: Uint32Array, I16: Int16Array, U16: Uint16Array, I8: Int8Array, U8: Uint8Array, BOOL: Uint8Array,
} as const;
export type StoredType = keyof typeof ARRAYS;
/** f16 and bf16 come as their bits. */
export type StoredData = InstanceType<(typeof ARRAYS)[StoredType]>;

export interface Entry {
  readonly dtype: StoredType;
  readonly shape: readonly number[];
  /** First byte and the byte past the last, counted from the start of the data. */
  readonly range: readonly [number, number];
}

export interface Header {
  readonly metadata: Readonly<Record<string, string>>;
  readonly entries: ReadonlyMap<string, Entry>;
  /** Bytes before the data. */
  readonly dataStart: number;
}

const MAX_HEADER = 100e6;

const isObject = (x: unknown): x is Record<string, unknown> => typeof x === 'object' && x !== null && !Array.isArray(x);
const isSize = (x: unknown): x is number => Number.isSafeInteger(x) && (x as number) >= 0;

/** JSON.parse keeps the last of two equal keys in silence; here the second is an error. `text` is valid JSON. */
function refuseDuplicates(text: string): void {
  const open: (Set<string> | undefined)[] = [];
  for (const [, token, colon] of text.matchAll(/("(?:[^"\\]|\\.)*"|[{}[\]])(\s*:)?/gs)) {
    if (token === '{') open.push(new Set());
    else if (token === '[') open.push(undefined);
    else if (token === '}' || token === ']') open.pop();
    else if (colon) {
      const name = JSON.parse(token!) as string;
      if (open.at(-1)!.has(name)) throw new Error(`the name ${JSON.stringify(name)} stands twice`);
      open.at(-1)!.add(name);
    }
  }
}

function parseEntry(name: string, value: unknown, dataBytes: number): Entry {
  const fail = (why: string) => new Error(`tensor ${JSON.stringify(name)}: ${why}`);
  if (!isObject(value)) throw fail('its description is not an object');
  const { dtype, shape, data_offsets: range } = value;
  if (typeof dtype !== 'string' || !Object.hasOwn(ARRAYS, dtype)) throw fail(`unknown dtype ${JSON.stringify(dtype)}`);
  if (!Array.isArray(shape) || !shape.every(isSize)) throw fail(`shape ${JSON.stringify(shape)} is not a list of whole numbers of 0 or more`);
  if (!Array.isArray(range) || range.length !== 2 || !range.every(isSize)) throw fail(`data_offsets ${JSON.stringify(range)} are not two whole numbers`);
  const [begin, end] = range as [number, number];
  if (begin > end) throw fail(`data_offsets [${begin}, ${end}] run backwards`);
  if (end > dataBytes) throw fail(`data ends at byte ${end}, the file has ${dataBytes}`);
  const bytes = shape.reduce<number>((a, b) => a * (b as number), ARRAYS[dtype as StoredType].BYTES_PER_ELEMENT);
  if (bytes !== end - begin) throw fail(`${dtype} ${printShapes(shape as number[])} needs ${bytes} bytes, data_offsets give ${end - begin}`);
  return { dtype: dtype as StoredType, shape: shape as number[], range: [begin, end] };
}

/** The header's JSON, checked: every byte of the `dataBytes` behind it must belong to one tensor. */
function parseHeader(text: string, dataBytes: number): Omit<Header, 'dataStart'> {
  const json: unknown = JSON.parse(text);
  if (!isObject(json)) throw new Error('the header is not an object');
  refuseDuplicates(text);
  const { __metadata__: metadata = {}, ...tensors } = json;
  if (!isObject(metadata) || Object.values(metadata).some((v) => typeof v !== 'string')) throw new Error('__metadata__ must hold strings only');
  const entries = new Map(Object.entries(tensors).map(([name, value]) => [name, parseEntry(name, value, dataBytes)]));
  let at = 0;
  for (const [name, { range: [begin, end] }] of [...entries].sort(([, a], [, b]) => a.range[0] - b.range[0] || a.range[1] - b.range[1])) {
    if (begin !== at) throw new Error(`tensor ${JSON.stringify(name)} begins at byte ${begin} of the data, ${begin < at ? 'inside the tensor before it, which ends' : 'after a hole from byte'} ${at}`);
    at = end;
  }
  if (at !== dataBytes) throw new Error(`${dataBytes - at} bytes stand behind the last tensor`);
  return { metadata: metadata as Record<string, string>, entries };
}

async function readAt(file: FileHandle, position: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = new Uint8Array(length);
  for (let done = 0; done < length;) {
    const { bytesRead } = await file.read(bytes, done, Math.min(length - done, 2 ** 30), position + done);
    if (!bytesRead) throw new Error(`ends at byte ${position + done}, ${length - done} too early`);
    done += bytesRead;
  }
  return bytes;
}

async function readHeader(file: FileHandle): Promise<Header> {
  const { size } = await file.stat();
  if (size < 8) throw new Error(`has ${size} bytes, a header's length alone takes 8`);
  const length = new DataView((await readAt(file, 0, 8)).buffer).getBigUint64(0, true);
  if (length > size - 8) throw new Error(`says its header has ${length} bytes, the file has ${size}`);
  if (length > MAX_HEADER) throw new Error(`says its header has ${length} bytes, the format allows ${MAX_HEADER}`);
  const dataStart = 8 + Number(length);
  const text = new TextDecoder('utf-8', { fatal: true }).decode(await readAt(file, 8, Number(length)));
  return { ...parseHeader(text, size - dataStart), dataStart };
}

const named = (path: string, error: unknown): Error => new Error(`[safetensors] ${path}: ${(error as Error).message}`, { cause: error });

interface Shard { path: string; file: FileHandle; header: Header }

/** One file, or all shards of an index, open for reading; tensors are read one by one, so large files need little memory. */
export class Weights {
  readonly metadata: Readonly<Record<string, string>>;
  readonly entries: ReadonlyMap<string, Entry>;
  private readonly files: readonly FileHandle[];
  private readonly places: ReadonlyMap<string, { path: string; file: FileHandle; start: number }>;

  private constructor(shards: readonly Shard[]) {
    this.files = shards.map((s) => s.file);
    this.metadata = Object.assign({}, ...shards.map((s) => s.header.metadata)) as Record<string, string>;
    this.entries = new Map(shards.flatMap((s) => [...s.header.entries]));
    this.places = new Map(shards.flatMap(({ path, file, header }) =>
      [...header.entries].map(([name, e]) => [name, { path, file, start: header.dataStart + e.range[0] }])));
  }

  /** `path` is a .safetensors file or the .index.json of a sharded checkpoint. */
  static async open(path: string): Promise<Weights> {
    const map = path.endsWith('.json') ? await readIndex(path) : undefined;
    const paths = map ? [...new Set(map.values())].map((name) => join(dirname(path), name)) : [path];
    const files: FileHandle[] = [];
    try {
      const shards: Shard[] = [];
      for (const p of paths) {
        const file = await open(p);
        files.push(file);
        shards.push({ path: p, file, header: await readHeader(file).catch((e) => { throw named(p, e); }) });
      }
      if (map) checkIndex(path, map, shards);
      return new Weights(shards);
    } catch (error) {
      for (const file of files) await file.close();
      throw error;
    }
  }

  /** The tensor as it is stored. The data is the caller's own. */
  async read(name: string): Promise<StoredData> {
    const entry = this.entries.get(name);
    const place = this.places.get(name);
    if (!entry || !place) throw new Error(`[safetensors] no tensor ${JSON.stringify(name)}`);
    const bytes = await readAt(place.file, place.start, entry.range[1] - entry.range[0]).catch((e) => { throw named(place.path, e); });
    return new ARRAYS[entry.dtype](bytes.buffer);
  }

  /** The tensor as f32, or i32 for integers; i64 values must fit. */
  async tensor(name: string): Promise<HostTensor> {
    const data = await this.read(name);
    const { dtype, shape } = this.entries.get(name)!;
    if (dtype === 'F16') return host(fromF16(data as Uint16Array), shape);
    if (dtype === 'BF16') return host(fromBF16(data as Uint16Array), shape);
    if (data instanceof Float32Array) return host(data, shape);
    if (data instanceof Float64Array) return host(Float32Array.from(data), shape);
    if (data instanceof Uint32Array) return host(data, shape, 'u32');
    const whole = Int32Array.from(data as ArrayLike<number | bigint>, Number);
    if (data.some((v, i) => Number(v) !== whole[i])) throw new Error(`[safetensors] tensor ${JSON.stringify(name)}: ${dtype} values do not fit i32`);
    return host(whole, shape, 'i32');
  }

  async close(): Promise<void> {
    for (const file of this.files) await file.close();
  }
}

async function readIndex(path: string): Promise<Map<string, string>> {
  const json: unknown = JSON.parse(await readFile(path, 'utf8'));
  const map = isObject(json) ? json['weight_map'] : undefined;
  if (!isObject(map) || Object.values(map).some((v) => typeof v !== 'string' || /[\\/]|^\.\.?$/.test(v))) {
    throw new Error(`[safetensors] ${path}: weight_map must give the name of a file beside the index for each tensor`);
  }
  return new Map(Object.entries(map as Record<string, string>));
}

/** Every tensor must stand where the index says, and nowhere else. */
function checkIndex(path: string, map: Map<string, string>, shards: readonly Shard[]): void {
  const found = shards.flatMap((s) => [...s.header.entries.keys()].map((name) => [name, s.path] as const));
  const wrong = [
    ...found.filter(([name, p]) => !map.has(name) || join(dirname(path), map.get(name)!) !== p).map(([name, p]) => `${name} stands in ${p}, unknown to the index`),
    ...[...map].filter(([name, file]) => !found.some(([n, p]) => n === name && p === join(dirname(path), file))).map(([name, file]) => `${name} is not in ${file}`),
  ];
  if (wrong.length) throw new Error(`[safetensors] ${path}:\n  ${wrong.join('\n  ')}`);
}

/**
 * Reads the tensors `expected` names, as f32. Any difference in names or shapes is an error that lists all of them.
 * @param expected name → shape, as `ditShapes` and its like give it
 */
export async function loadParams(path: string, expected: Readonly<Record<string, readonly number[]>>): Promise<Record<string, HostTensor>> {
  const weights = await Weights.open(path);
  try {
    const names = Object.keys(expected);
    const wrong = [
      ...names.filter((n) => !weights.entries.has(n)).map((n) => `missing: ${n} ${printShapes(expected[n]!)}`),
      ...[...weights.entries].filter(([n]) => !(n in expected)).map(([n, e]) => `unexpected: ${n} ${printShapes(e.shape)}`),
      ...names.filter((n) => weights.entries.has(n) && String(weights.entries.get(n)!.shape) !== String(expected[n]))
        .map((n) => `wrong shape: ${n} ${printShapes(weights.entries.get(n)!.shape)}, expected ${printShapes(expected[n]!)}`),
    ];
    if (wrong.length) throw new Error(`[safetensors] ${path} does not fit the model:\n  ${wrong.join('\n  ')}`);
    const params: Record<string, HostTensor> = {};
    for (const n of names) params[n] = await weights.tensor(n);
    return params;
  } finally {
    await weights.close();
  }
}

const ENCODERS = { F32: (x: Float32Array) => x, F16: toF16, BF16: toBF16 } as const;

/**
 * Writes all or nothing: a file beside `path` is filled, flushed to the disk and then renamed.
 * @param dtype of all tensors in the file; u32 and i32 tensors are stored as such
 */
export async function saveTensors(path: string, tensors: Readonly<Record<string, HostTensor>>, { dtype = 'F32', metadata = {} }: { dtype?: keyof typeof ENCODERS; metadata?: Record<string, string> } = {}): Promise<void> {
  const encoded = (t: HostTensor) => t.data instanceof Int32Array || t.data instanceof Uint32Array ? t.data : ENCODERS[dtype](Float32Array.from(t.data));
  const stored = (t: HostTensor): StoredType => t.data instanceof Int32Array ? 'I32' : t.data instanceof Uint32Array ? 'U32' : dtype;
  // Wide types first, so that every tensor is aligned to its own size.
  const names = Object.keys(tensors).sort((a, b) => bytesPer(stored(tensors[b]!)) - bytesPer(stored(tensors[a]!)) || (a < b ? -1 : 1));
  const header: Record<string, unknown> = Object.keys(metadata).length ? { __metadata__: metadata } : {};
  let at = 0;
  for (const name of names) {
    const t = tensors[name]!;
    const bytes = t.data.length * bytesPer(stored(t));
    header[name] = { dtype: stored(t), shape: t.shape, data_offsets: [at, at + bytes] };
    at += bytes;
  }
  const text = new TextEncoder().encode(JSON.stringify(header));
  const head = new Uint8Array(8 + Math.ceil(text.length / 8) * 8).fill(0x20);
  new DataView(head.buffer).setBigUint64(0, BigInt(head.length - 8), true);
  head.set(text, 8);

  const temporary = `${path}.${process.pid}.part`;
  try {
    const file = await open(temporary, 'w');
    try {
      await file.writeFile(head);
      for (const name of names) {
        const data = encoded(tensors[name]!);
        await file.writeFile(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
      }
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

const bytesPer = (dtype: StoredType): number => ARRAYS[dtype].BYTES_PER_ELEMENT;

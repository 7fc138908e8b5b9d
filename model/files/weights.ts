/** Weights in one file or many, open for reading; tensors are read one by one or in chunks, so large files need little memory. */
import { numel } from '../../kernels/kernel.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import {
  ARRAYS,
  blockIn,
  bytesOf,
  FLOATS,
  itemsOf,
  nonFiniteAt,
  numbersIn,
  readPiece,
  WeightsError,
  type DataFile,
  type Entry,
  type StoredData,
  type StoredType,
  type StoredTensor,
} from './stored.ts';
import { quoted } from './json.ts';

/** Host memory that reading a tensor in chunks takes. */
export const CHUNK_BYTES = 2 ** 24;

/** What floats are multiplied by: a number for each `run` of them. */
export interface Scales {
  readonly run: number;
  readonly values: Float32Array;
}

/** What stands at element `at`, which is not finite; of a block what spoils it. */
function firstBad(dtype: StoredType, data: StoredData, at: number): string {
  const { elements } = blockIn(dtype);
  const block = FLOATS[dtype]!(data.slice(itemsOf(dtype, at), itemsOf(dtype, at + elements)));
  return String(block.find((x) => !Number.isFinite(x)) ?? block[0]);
}

export class Weights {
  /** The file, index or folder that was opened. */
  readonly path: string;
  readonly metadata: Readonly<Record<string, string>>;
  private readonly files: readonly DataFile[];
  private readonly tensors: ReadonlyMap<string, StoredTensor>;
  /** Tensors that were read whole and found so. */
  private readonly finite = new Set<string>();

  constructor(
    path: string,
    files: readonly DataFile[],
    tensors: ReadonlyMap<string, StoredTensor>,
    metadata: Readonly<Record<string, string>>,
  ) {
    this.path = path;
    this.files = files;
    this.tensors = tensors;
    this.metadata = metadata;
  }

  /** Name → dtype and shape. */
  get entries(): ReadonlyMap<string, Entry> {
    return this.tensors;
  }

  /** The same files with the tensors under other names, in other order, or joined; closing either closes both. */
  with(tensors: (own: ReadonlyMap<string, StoredTensor>) => ReadonlyMap<string, StoredTensor>): Weights {
    return new Weights(this.path, this.files, tensors(this.tensors), this.metadata);
  }

  /** Elements `from` to `to`, in row-major order, as they are stored: of blocks those they stand in. The data is the caller's own. */
  async read(name: string, from = 0, to = Infinity): Promise<StoredData> {
    return this.stored(this.find(name), from, to);
  }

  /** What elements of scaled floats are multiplied by, from `from` to `to`, which are ends of runs, and the length of a run. */
  async scales(name: string, from = 0, to = Infinity): Promise<Scales | undefined> {
    const { shape, scale } = this.find(name);
    if (!scale) return undefined;
    const run = numel(shape) / numel(scale.shape);
    const values = FLOATS[scale.dtype]!(
      await this.stored(scale, Math.floor(from / run), Math.ceil(Math.min(to, numel(shape)) / run)),
    );
    const bad = values.findIndex((x) => !Number.isFinite(x));
    if (bad >= 0)
      throw new WeightsError(
        'weights',
        this.path,
        `tensor ${quoted(name)} has ${values[bad]} as a scale: the file is damaged`,
      );
    return { run, values };
  }

  private async stored(t: StoredTensor, from: number, to: number): Promise<StoredData> {
    const { elements } = blockIn(t.dtype);
    const end = Math.min(Math.ceil(to / elements) * elements, numel(t.shape));
    const begin = Math.floor(from / elements) * elements;
    const out = new ARRAYS[t.dtype](itemsOf(t.dtype, Math.max(0, end - begin)));
    await this.fill(t, begin, end, out);
    return out;
  }

  /**
   * All elements in row-major order. A chunk holds until the next one is asked for: all lie in one buffer.
   * @param memory the buffer; its size is that of a chunk, which holds whole rows of matrices where it can
   */
  async *chunks(name: string, memory?: ArrayBuffer): AsyncGenerator<StoredData> {
    const t = this.find(name);
    const count = numel(t.shape),
      buffer = memory ?? new ArrayBuffer(Math.min(CHUNK_BYTES, bytesOf(t.dtype, count)));
    const { elements, bytes } = blockIn(t.dtype);
    const row = Math.max(elements, 4 * (t.shape.at(-1) ?? 1)); // four rows are whole words
    const most = Math.floor(buffer.byteLength / bytes) * elements;
    const step = most >= row ? most - (most % row) : most;
    for (let at = 0; at < count; at += step) {
      const end = Math.min(at + step, count);
      const chunk = new ARRAYS[t.dtype](buffer, 0, itemsOf(t.dtype, end - at));
      await this.fill(t, at, end, chunk);
      yield chunk;
    }
  }

  /** The tensor as f32, or i32 for integers; i64 values must fit. */
  async tensor(name: string): Promise<HostTensor> {
    return this.whole(name, await this.read(name));
  }

  /** The same, where it will be computed with. @throws as `checkFinite` does */
  async finiteTensor(name: string): Promise<HostTensor> {
    const data = await this.read(name);
    this.checkFinite(name, data);
    return this.whole(name, data);
  }

  private async whole(name: string, data: StoredData): Promise<HostTensor> {
    const wide = this.widened(name, data, this.find(name).shape);
    if (this.find(name).scale) await this.scaled(name, wide.data as Float32Array, 0);
    return wide;
  }

  /** Multiplies numbers of a tensor from element `from` on by their scales, where it has some, in their place. */
  async scaled(name: string, values: Float32Array, from: number): Promise<Float32Array> {
    const scales = await this.scales(name, from, from + values.length);
    if (!scales) return values;
    const { run, values: by } = scales;
    const first = Math.floor(from / run);
    for (let i = 0; i < values.length; i++) values[i]! *= by[Math.floor((from + i) / run) - first]!;
    return values;
  }

  /** Rows of the first axis by their number, as `tensor` gives them: [ids, ...]. */
  async rows(name: string, ids: readonly number[]): Promise<HostTensor> {
    const {
      dtype,
      shape: [count = 0, ...rest],
    } = this.find(name);
    const outside = ids.find((id) => !(id >= 0 && id < count));
    if (outside !== undefined)
      throw new WeightsError(
        'weights',
        this.path,
        `tensor ${quoted(name)} has rows 0 to ${count - 1}, asked for ${outside}`,
      );
    const size = numel(rest);
    const items = itemsOf(dtype, size);
    const out = new ARRAYS[dtype](ids.length * items);
    for (const [i, id] of ids.entries())
      await this.fill(this.find(name), id * size, (id + 1) * size, out.subarray(i * items, (i + 1) * items));
    const wide = this.widened(name, out, [ids.length, ...rest]);
    for (const [i, id] of ids.entries())
      await this.scaled(name, wide.data.subarray(i * size, (i + 1) * size) as Float32Array, id * size);
    return wide;
  }

  async close(): Promise<void> {
    for (const file of this.files) await file.close();
  }

  /**
   * That floats are finite, once a tensor: what is not spoils everything that is computed with it, and is blamed on something else.
   * @param data of the tensor from element `from` on
   * @throws WeightsError
   */
  checkFinite(name: string, data: StoredData, from = 0): void {
    const { dtype, shape } = this.find(name);
    if (this.finite.has(name)) return;
    const bad = nonFiniteAt(dtype, data);
    if (bad >= 0)
      throw new WeightsError(
        'weights',
        this.path,
        `tensor ${quoted(name)} holds ${firstBad(dtype, data, bad)} at ${from + bad} of ${numel(shape)} values, which is not finite: the file is damaged, or what made it had diverged`,
      );
    if (from + numbersIn(dtype, data.length) >= numel(shape)) this.finite.add(name);
  }

  private find(name: string): StoredTensor {
    const found = this.tensors.get(name);
    if (!found) throw new WeightsError('weights', this.path, `no tensor ${quoted(name)}`);
    return found;
  }

  private widened(name: string, data: StoredData, shape: readonly number[]): HostTensor {
    const { dtype } = this.find(name);
    const float = FLOATS[dtype];
    if (float) return host(float(data), shape);
    if (data instanceof Uint32Array) return host(data, shape, 'u32');
    const whole = Int32Array.from(data as ArrayLike<number | bigint>, Number);
    if (data.some((v, i) => Number(v) !== whole[i]))
      throw new WeightsError('weights', this.path, `tensor ${quoted(name)}: ${dtype} values do not fit i32`);
    return host(whole, shape, 'i32');
  }

  private async fill({ dtype, pieces }: StoredTensor, from: number, to: number, out: StoredData): Promise<void> {
    let begin = 0;
    for (const piece of pieces) {
      const lo = Math.max(from, begin),
        hi = Math.min(to, begin + piece.count);
      if (lo < hi) {
        const error = (e: Error) => new WeightsError('weights', piece.file.path, e.message, e);
        const part = out.subarray(itemsOf(dtype, lo - from), itemsOf(dtype, hi - from));
        await readPiece(piece, dtype, lo - begin, hi - begin, part).catch((e: Error) => {
          throw error(e);
        });
      }
      begin += piece.count;
    }
  }
}

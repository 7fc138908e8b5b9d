/** Weights in one file or many, open for reading; tensors are read one by one or in chunks, so large files need little memory. */
import { numel } from '../../kernels/kernel.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import {
  ARRAYS,
  bytesPer,
  FLOATS,
  nonFiniteAt,
  readPiece,
  WeightsError,
  type DataFile,
  type Entry,
  type StoredData,
  type StoredTensor,
} from './stored.ts';
import { quoted } from './json.ts';

/** Host memory that reading a tensor in chunks takes. */
export const CHUNK_BYTES = 2 ** 24;

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

  /** Elements `from` to `to`, in row-major order, as they are stored. The data is the caller's own. */
  async read(name: string, from = 0, to = Infinity): Promise<StoredData> {
    const t = this.find(name);
    const end = Math.min(to, numel(t.shape));
    const out = new ARRAYS[t.dtype](Math.max(0, end - from));
    await this.fill(t, from, end, out);
    return out;
  }

  /**
   * All elements in row-major order. A chunk holds until the next one is asked for: all lie in one buffer.
   * @param memory the buffer; its size is that of a chunk
   */
  async *chunks(name: string, memory?: ArrayBuffer): AsyncGenerator<StoredData> {
    const t = this.find(name);
    const count = numel(t.shape),
      buffer = memory ?? new ArrayBuffer(Math.min(CHUNK_BYTES, count * bytesPer(t.dtype)));
    const step = Math.floor(buffer.byteLength / bytesPer(t.dtype));
    for (let at = 0; at < count; at += step) {
      const chunk = new ARRAYS[t.dtype](buffer, 0, Math.min(step, count - at));
      await this.fill(t, at, at + chunk.length, chunk);
      yield chunk;
    }
  }

  /** The tensor as f32, or i32 for integers; i64 values must fit. */
  async tensor(name: string): Promise<HostTensor> {
    return this.widened(name, await this.read(name), this.find(name).shape);
  }

  /** The same, where it will be computed with. @throws as `checkFinite` does */
  async finiteTensor(name: string): Promise<HostTensor> {
    const data = await this.read(name);
    this.checkFinite(name, data);
    return this.widened(name, data, this.find(name).shape);
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
    const out = new ARRAYS[dtype](ids.length * size);
    for (const [i, id] of ids.entries())
      await this.fill(this.find(name), id * size, (id + 1) * size, out.subarray(i * size, (i + 1) * size));
    return this.widened(name, out, [ids.length, ...rest]);
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
        `tensor ${quoted(name)} holds ${FLOATS[dtype]!(data.slice(bad, bad + 1))[0]} at ${from + bad} of ${numel(shape)} values, which is not finite: the file is damaged, or what made it had diverged`,
      );
    if (from + data.length >= numel(shape)) this.finite.add(name);
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
        await readPiece(piece, dtype, lo - begin, hi - begin, out.subarray(lo - from, hi - from)).catch((e: Error) => {
          throw error(e);
        });
      }
      begin += piece.count;
    }
  }
}

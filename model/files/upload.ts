/** Weights from files onto a device in chunks: whatever their size, the host holds a few chunks of them at a time. */
import type { Device } from '../../engine/runtime/device.ts';
import type { NDArray } from '../../engine/runtime/ndarray.ts';
import { BYTES, numel } from '../../kernels/kernel.ts';
import { toBF16, toF16 } from '../halves.ts';
import { isMatrix } from '../params.ts';
import { quoted } from './json.ts';
import { bytesPer, FLOATS, WeightsError, type StoredType } from './stored.ts';
import { CHUNK_BYTES, type Weights } from './weights.ts';

/** How weights lie on a device. */
export type WeightType = 'f32' | 'f16' | 'bf16';

/** What a device's queue may hold before it is waited for. */
const QUEUED_BYTES = 2 ** 25;

/** Host memory that uploads take at most, beside what the driver needs: a chunk, its conversion by way of f32, and the queue. */
export const UPLOAD_HOST_BYTES = 3 * CHUNK_BYTES + QUEUED_BYTES;

const HALF = { f32: (x: Float32Array) => x, f16: toF16, bf16: toBF16 } as const;
const KEPT: Partial<Record<StoredType, WeightType>> = { F16: 'f16', BF16: 'bf16' };

/** Bytes written to a device since it was last waited for. */
const queued = new WeakMap<Device, number>();

/** The queue's copies are the host's until the device has taken them. */
async function count(device: Device, bytes: number): Promise<void> {
  const sum = (queued.get(device) ?? 0) + bytes;
  queued.set(device, sum < QUEUED_BYTES ? sum : 0);
  if (sum >= QUEUED_BYTES) await device.idle();
}

/** Numbers in host memory as a tensor on a device. */
export async function uploadData(
  device: Device,
  data: Parameters<Device['tensor']>[0],
  shape: readonly number[],
  dtype: WeightType,
): Promise<NDArray> {
  const t = device.tensor(data, shape, dtype);
  await count(device, t.bytes);
  return t;
}

interface UploadOptions {
  /** As they are stored unless given: f32, f16 or bf16. */
  dtype?: WeightType | undefined;
  /** Told of the bytes of every chunk that was read. */
  onRead?: (bytes: number) => void;
  /** Memory for a chunk, where many tensors are uploaded. */
  memory?: ArrayBuffer;
}

/** One tensor; f64 becomes f32, whole numbers i32. */
export async function upload(
  device: Device,
  weights: Weights,
  name: string,
  { dtype, onRead = () => {}, memory }: UploadOptions = {},
): Promise<NDArray> {
  const entry = weights.entries.get(name);
  const float = entry && FLOATS[entry.dtype];
  if (!float) {
    const whole = await weights.tensor(name);
    return device.tensor(whole.data, whole.shape, whole.dtype);
  }
  const type = dtype ?? KEPT[entry.dtype] ?? 'f32';
  const out = device.empty(entry.shape, type);
  try {
    let [at, from] = [out.offset, 0];
    for await (const chunk of weights.chunks(name, memory)) {
      weights.checkFinite(name, chunk, from);
      from += chunk.length;
      const data = KEPT[entry.dtype] === type ? (chunk as Uint16Array) : HALF[type](float(chunk));
      device.write(out.buffer, at, data, type);
      at += data.length * BYTES[type];
      await count(device, data.byteLength);
      onRead(chunk.byteLength);
    }
    return out;
  } catch (error) {
    out.free();
    throw error;
  }
}

/** One tensor as it lies on a device, in host memory. */
export async function bitsOf(weights: Weights, name: string, type: WeightType): Promise<Float32Array | Uint16Array> {
  const { dtype } = weights.entries.get(name)!;
  const data = await weights.read(name);
  weights.checkFinite(name, data);
  return KEPT[dtype] === type ? (data as Uint16Array) : HALF[type](FLOATS[dtype]!(data));
}

export interface UploadAllOptions {
  /** Of matrices and convolution kernels; as they are stored unless given. Biases, gains and modulations stay in the type they have. */
  dtype?: WeightType | undefined;
  /** All unless given. */
  names?: Iterable<string>;
  /** Told of the bytes read so far, and of all there are to read. */
  onProgress?: (done: number, total: number) => void;
}

/** Weights under their names. What fails frees what was uploaded. */
export async function uploadWeights(
  device: Device,
  weights: Weights,
  { dtype, names = weights.entries.keys(), onProgress = () => {} }: UploadAllOptions = {},
): Promise<Record<string, NDArray>> {
  const wanted = [...names].map((name) => {
    const entry = weights.entries.get(name);
    if (!entry) throw new WeightsError('weights', weights.path, `no tensor ${quoted(name)}`);
    return { name, ...entry };
  });
  const memory = new ArrayBuffer(CHUNK_BYTES);
  const total = wanted.reduce((n, { shape, dtype: d }) => n + numel(shape) * bytesPer(d), 0);
  let done = 0;
  const onRead = (bytes: number): void => onProgress((done += bytes), total);
  const uploaded: Record<string, NDArray> = {};
  try {
    for (const { name, shape } of wanted)
      uploaded[name] = await upload(device, weights, name, {
        dtype: isMatrix(name, shape) ? dtype : undefined,
        onRead,
        memory,
      });
    await device.idle();
    return uploaded;
  } catch (error) {
    for (const t of Object.values(uploaded)) t.free();
    throw error;
  }
}

/** Weights from files onto a device in chunks: whatever their size, the host holds a few chunks of them at a time. */
import type { Device } from '../../engine/runtime/device.ts';
import type { NDArray } from '../../engine/runtime/ndarray.ts';
import { numel } from '../../kernels/kernel.ts';
import { findBlock, fp8Of, isPacked, type Fp8, type Packed } from '../../kernels/packed.ts';
import { toBF16, toF16 } from '../halves.ts';
import { isMatrix } from '../params.ts';
import { quoted } from './json.ts';
import {
  bytesOf,
  FLOATS,
  numbersIn,
  packedAs,
  WeightsError,
  type Entry,
  type StoredData,
  type StoredType,
} from './stored.ts';
import { CHUNK_BYTES, type Scales, type Weights } from './weights.ts';

/** Floats that any stored weights can become. */
export type FloatStorage = 'f32' | 'f16' | 'bf16';
/** How weights lie on a device: packed ones only as their files have them. */
type WeightType = FloatStorage | Packed;

/** What a device's queue may hold before it is waited for. */
const QUEUED_BYTES = 2 ** 25;

/** Host memory that uploads take at most, beside what the driver needs: a chunk, its conversion by way of f32, and the queue. */
export const UPLOAD_HOST_BYTES = 3 * CHUNK_BYTES + QUEUED_BYTES;

const HALF = { f32: (x: Float32Array) => x, f16: toF16, bf16: toBF16 } as const;
const KEPT: Partial<Record<StoredType, FloatStorage>> = { F16: 'f16', BF16: 'bf16' };
const EIGHT: Partial<Record<StoredType, Fp8>> = { F8_E4M3: 'f8_e4m3', F8_E5M2: 'f8_e5m2' };

/** Tables that are looked up, not multiplied. */
const TABLE = /(token|pos)_embedding(\.embedding)?\.weight$/;

/** How a tensor lies on a device as it is stored: a linear's matrix of whole blocks stays packed, all else that is packed becomes f32. */
export function keptAs(name: string, { dtype, shape, scale }: Entry): WeightType {
  const row = shape.at(-1) ?? 1;
  const code = EIGHT[dtype];
  const scaled = scale && code && (`${code}/${Math.min(row, numel(shape) / numel(scale.shape))}` as Packed);
  const packed = packedAs(dtype) ?? scaled ?? code;
  if (!packed) return KEPT[dtype] ?? 'f32';
  const whole = row % (findBlock(packed)?.elements ?? Infinity) === 0;
  return whole && shape.length === 2 && isMatrix(name, shape) && !TABLE.test(name) ? packed : 'f32';
}

/** Codes in runs behind their scales; the first is that of element `from`. */
function behindScales(codes: Uint8Array, type: Packed, from: number, { run, values }: Scales): Uint8Array {
  const own = fp8Of(type)!.run!;
  const out = new Uint8Array((codes.length / own) * (own + 4));
  const view = new DataView(out.buffer);
  const first = Math.floor(from / run);
  for (let i = 0, at = 0; i < codes.length; i += own, at += own + 4) {
    view.setFloat32(at, values[Math.floor((from + i) / run) - first]!, true);
    out.set(codes.subarray(i, i + own), at + 4);
  }
  return out;
}

/** Stored numbers of a tensor from element `from` on as they lie on a device, whole rows or runs of them. */
async function laid(weights: Weights, name: string, chunk: StoredData, from: number, type: WeightType) {
  const { dtype, scale } = weights.entries.get(name)!;
  if (isPacked(type)) {
    const codes = chunk as Uint8Array;
    if (!scale) return codes;
    const scales = (await weights.scales(name, from, from + codes.length))!;
    return behindScales(codes, type, from, scales);
  }
  if (KEPT[dtype] === type) return chunk as Uint16Array;
  return HALF[type](await weights.scaled(name, FLOATS[dtype]!(chunk), from));
}

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
  /** As they are stored unless given. */
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
  const type = dtype ?? keptAs(name, entry);
  const out = device.empty(entry.shape, type);
  try {
    let [at, from] = [out.offset, 0];
    for await (const chunk of weights.chunks(name, memory)) {
      weights.checkFinite(name, chunk, from);
      const data = await laid(weights, name, chunk, from, type);
      from += numbersIn(entry.dtype, chunk.length);
      device.write(out.buffer, at, data, type);
      at += data.byteLength;
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
export async function bitsOf(weights: Weights, name: string, type: WeightType) {
  const data = await weights.read(name);
  weights.checkFinite(name, data);
  return laid(weights, name, data, 0, type);
}

export interface Placement {
  /** Of matrices and convolution kernels; as they are stored unless given. Biases, gains and modulations stay in the type they have. */
  dtype?: FloatStorage | undefined;
  /** Packed matrices become `dtype` too; they stay packed unless given. */
  unpacked?: boolean | undefined;
}

/** How a tensor of a file lies on a device. */
export function placedAs(name: string, entry: Entry, { dtype, unpacked = false }: Placement): WeightType {
  const kept = keptAs(name, entry);
  return isMatrix(name, entry.shape) && dtype && (unpacked || !isPacked(kept)) ? dtype : kept;
}

export interface UploadAllOptions extends Placement {
  /** All unless given. */
  names?: Iterable<string>;
  /** Told of the bytes read so far, and of all there are to read. */
  onProgress?: (done: number, total: number) => void;
}

/** Weights under their names. What fails frees what was uploaded. */
export async function uploadWeights(
  device: Device,
  weights: Weights,
  { names = weights.entries.keys(), onProgress = () => {}, ...placement }: UploadAllOptions = {},
): Promise<Record<string, NDArray>> {
  const wanted = [...names].map((name) => {
    const entry = weights.entries.get(name);
    if (!entry) throw new WeightsError('weights', weights.path, `no tensor ${quoted(name)}`);
    return { name, entry };
  });
  const memory = new ArrayBuffer(CHUNK_BYTES);
  const total = wanted.reduce((n, { entry: { shape, dtype } }) => n + bytesOf(dtype, numel(shape)), 0);
  let done = 0;
  const onRead = (bytes: number): void => onProgress((done += bytes), total);
  const uploaded: Record<string, NDArray> = {};
  try {
    for (const { name, entry } of wanted)
      uploaded[name] = await upload(device, weights, name, { dtype: placedAs(name, entry, placement), onRead, memory });
    await device.idle();
    return uploaded;
  } catch (error) {
    for (const t of Object.values(uploaded)) t.free();
    throw error;
  }
}

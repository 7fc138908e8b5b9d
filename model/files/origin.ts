/** A network's weights before they are on a device, in host memory or still in their files, and the way there: one tensor at a time. */
import type { Device } from '../../engine/runtime/device.ts';
import type { NDArray } from '../../engine/runtime/ndarray.ts';
import { Streamed } from '../../engine/runtime/streamed.ts';
import type { HostTensor } from '../../engine/frontend/tree.ts';
import { toBF16 } from '../halves.ts';
import { isMatrix } from '../params.ts';
import { isPacked, type Packed } from '../../kernels/packed.ts';
import { bitsOf, keptAs, upload, uploadData, type FloatStorage } from './upload.ts';
import { CHUNK_BYTES, type Weights } from './weights.ts';

/** A tensor of a file that is open for as long as it may be asked for. */
export class FileTensor {
  readonly weights: Weights;
  readonly name: string;

  constructor(weights: Weights, name: string) {
    [this.weights, this.name] = [weights, name];
  }

  get shape(): readonly number[] {
    return this.weights.entries.get(this.name)!.shape;
  }

  /** As f32. */
  read(): Promise<HostTensor> {
    return this.weights.finiteTensor(this.name);
  }
}

/** By the names that the network has for them. */
export type Origin = Readonly<Record<string, HostTensor | FileTensor>>;

/** All tensors of a file. */
export const inFile = (weights: Weights): Record<string, FileTensor> =>
  Object.fromEntries([...weights.entries.keys()].map((name) => [name, new FileTensor(weights, name)]));

/** Of matrices of floats; packed ones stay as their files have them. */
type Stored = Exclude<FloatStorage, 'f16'>;

/** The block that a parameter belongs to, if it does: what of a network is brought to the device together. */
export const blockOf = (name: string): string | undefined => /^blocks\.\d+(?=\.)/.exec(name)?.[0];

function storedAs(name: string, t: HostTensor | FileTensor, stored: Stored | undefined): Stored | Packed {
  if (!stored) return 'f32';
  const kept = t instanceof FileTensor ? keptAs(name, t.weights.entries.get(t.name)!) : stored;
  if (isPacked(kept)) return kept;
  return isMatrix(name, t.shape) ? stored : 'f32';
}
const halved = ({ data }: HostTensor, dtype: Stored | Packed) =>
  dtype === 'bf16' ? toBF16(data as Float32Array) : data;

type Placing<T> = (name: string, t: HostTensor | FileTensor) => Promise<T>;

function toDevice(device: Device, stored: Stored | undefined): Placing<NDArray> {
  const memory = new ArrayBuffer(CHUNK_BYTES);
  return async (name, t) => {
    const dtype = storedAs(name, t, stored);
    if (t instanceof FileTensor) return upload(device, t.weights, t.name, { dtype, memory });
    return uploadData(device, halved(t, dtype), t.shape, dtype);
  };
}

/**
 * Weights onto a device. What fails frees what was uploaded.
 * @param stored type of a frozen network's matrices that no file packs; vectors and modulations, and all that is trained, are f32
 */
export const place = (device: Device, origin: Origin, stored?: Stored): Promise<Record<string, NDArray>> =>
  each(device, origin, toDevice(device, stored));

/**
 * A frozen network with its blocks in host memory, as they would lie on the device:
 * each block is a set that comes when it is computed with.
 */
export function placeAround(
  device: Device,
  origin: Origin,
  stored: Stored,
): Promise<Record<string, NDArray | Streamed>> {
  const around = toDevice(device, stored);
  return each<NDArray | Streamed>(device, origin, async (name, t) => {
    const block = blockOf(name);
    if (block === undefined) return around(name, t);
    const dtype = storedAs(name, t, stored);
    const bits = t instanceof FileTensor ? await bitsOf(t.weights, t.name, dtype) : halved(t, dtype);
    return new Streamed(bits, t.shape, dtype, block);
  });
}

/** One tensor after the other. What fails frees those that are there. */
async function each<T extends { free(): void }>(
  device: Device,
  origin: Origin,
  one: Placing<T>,
): Promise<Record<string, T>> {
  const placed: Record<string, T> = {};
  try {
    for (const [name, t] of Object.entries(origin)) placed[name] = await one(name, t);
    await device.idle();
    return placed;
  } catch (error) {
    for (const t of Object.values(placed)) t.free();
    throw error;
  }
}

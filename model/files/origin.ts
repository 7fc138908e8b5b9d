/** A network's weights before they are on a device, in host memory or still in their files, and the way there: one tensor at a time. */
import type { Device } from '../../engine/runtime/device.ts';
import type { NDArray } from '../../engine/runtime/ndarray.ts';
import type { HostTensor } from '../../engine/frontend/tree.ts';
import { toBF16 } from '../halves.ts';
import { isMatrix } from '../params.ts';
import { upload, uploadData, type WeightType } from './upload.ts';
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

/** Floats onto a device. What fails frees what was uploaded. @param stored type of matrices; vectors and modulations are f32 */
export async function place(
  device: Device,
  origin: Origin,
  stored: Exclude<WeightType, 'f16'> = 'f32',
): Promise<Record<string, NDArray>> {
  const memory = new ArrayBuffer(CHUNK_BYTES);
  const placed: Record<string, NDArray> = {};
  const one = async (name: string, t: HostTensor | FileTensor): Promise<NDArray> => {
    const dtype = isMatrix(name, t.shape) ? stored : 'f32';
    if (t instanceof FileTensor) return upload(device, t.weights, t.name, { dtype, memory });
    return uploadData(device, dtype === 'bf16' ? toBF16(t.data as Float32Array) : t.data, t.shape, dtype);
  };
  try {
    for (const [name, t] of Object.entries(origin)) placed[name] = await one(name, t);
    await device.idle();
    return placed;
  } catch (error) {
    for (const t of Object.values(placed)) t.free();
    throw error;
  }
}

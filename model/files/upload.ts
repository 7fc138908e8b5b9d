/** Weights from files onto a device in chunks, so that the host holds little of them at a time. */
import type { Device } from '../../engine/device.ts';
import type { NDArray, Typed } from '../../engine/ndarray.ts';
import type { DType } from '../../kernels/kernel.ts';
import type { StoredType } from './stored.ts';
import type { Weights } from './weights.ts';

/** Types that a device keeps as they are stored. */
const KEPT: Partial<Record<StoredType, DType>> = { F32: 'f32', F16: 'f16', BF16: 'bf16' };

/** One tensor in the type it is stored in; types that devices lack become f32 or i32. */
export async function upload(device: Device, weights: Weights, name: string): Promise<NDArray> {
  const entry = weights.entries.get(name);
  const dtype = entry && KEPT[entry.dtype];
  if (!dtype) {
    const wide = await weights.tensor(name);
    return device.tensor(wide.data, wide.shape, wide.dtype);
  }
  const out = device.empty(entry.shape, dtype);
  let at = out.offset;
  for await (const chunk of weights.chunks(name)) {
    device.write(out.buffer, at, chunk as Typed, dtype);
    at += chunk.byteLength;
  }
  return out;
}

/** Numbers as the bytes that a device takes. */
import type { DType } from '../../kernels/kernel.ts';
import { isPacked } from '../../kernels/packed.ts';
import { EngineError } from '../host/errors.ts';
import type { Numbers, Typed } from '../frontend/tree.ts';

/** Data as writeBuffer takes it: 4-byte multiples, and never a view on shared memory, which segfaults Dawn. */
export function uploadable(data: Numbers, dtype: DType): Uint32Array<ArrayBuffer> {
  const bits = isPacked(dtype) ? Uint8Array : dtype === 'f16' || dtype === 'bf16' ? Uint16Array : undefined;
  if (bits && !(data instanceof bits))
    throw new EngineError('tensor', `${dtype} takes its bits in a ${bits.name}, got a ${data.constructor.name}`);
  const typed =
    dtype === 'f32' && !(data instanceof Float32Array)
      ? Float32Array.from(data)
      : dtype === 'i32' && !(data instanceof Int32Array)
        ? Int32Array.from(data)
        : dtype === 'u32' && !(data instanceof Uint32Array)
          ? Uint32Array.from(data)
          : (data as Typed);
  const shared = typeof SharedArrayBuffer !== 'undefined' && typed.buffer instanceof SharedArrayBuffer;
  if (!shared && typed.byteLength % 4 === 0 && typed.byteOffset % 4 === 0) {
    return new Uint32Array(typed.buffer as ArrayBuffer, typed.byteOffset, typed.byteLength / 4);
  }
  const copy = new Uint8Array(Math.ceil(typed.byteLength / 4) * 4);
  copy.set(new Uint8Array(typed.buffer as ArrayBuffer, typed.byteOffset, typed.byteLength));
  return new Uint32Array(copy.buffer);
}

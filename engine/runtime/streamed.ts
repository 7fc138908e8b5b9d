/**
 * Tensors that stay in host memory: a program that is given one brings it when its kernels are about to read it, and keeps it no longer.
 */
import { boundBytes, type DType } from '../../kernels/kernel.ts';
import { printType } from '../frontend/graph.ts';
import { checkTensor, type Numbers } from '../frontend/tree.ts';
import { uploadable } from './bits.ts';

/** Its data may not change as long as programs are given it. */
export class Streamed {
  readonly shape: readonly number[];
  readonly dtype: DType;
  /** What is brought together, by name: a block's weights, mostly. Two sets are on the device at a time. */
  readonly set: string;
  /** As they lie on the device. */
  readonly data: Uint8Array<ArrayBuffer>;

  /** @param data f16 and bf16 as their bits in a Uint16Array. @throws for data that do not fit */
  constructor(data: Numbers, shape: readonly number[], dtype: DType, set: string) {
    checkTensor('streamed', data, shape, dtype);
    this.shape = Object.freeze([...shape]);
    this.dtype = dtype;
    this.set = set;
    const { buffer, byteOffset, byteLength } = uploadable(data, dtype);
    this.data = new Uint8Array(buffer, byteOffset, byteLength);
  }

  /** Bytes that it is bound with. */
  get bytes(): number {
    return boundBytes(this.data.byteLength);
  }

  /** What Node prints. */
  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return `Streamed ${printType(this)}`;
  }

  /** Its memory comes back once nobody holds it. */
  free(): void {}
}

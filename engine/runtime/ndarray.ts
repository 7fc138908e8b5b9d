/** Concrete tensors on a device. */
import { ALIGN, boundBytes, BYTES, numel, type DType } from '../../kernels/kernel.ts';
import { EngineError } from '../host/errors.ts';
import type { Device } from './device.ts';
import { printType } from '../frontend/graph.ts';

export type Typed = Float32Array | Int32Array | Uint32Array | Uint16Array;

/**
 * A tensor in device memory: f32, i32, u32, or f16 and bf16 (their bits in a Uint16Array).
 *
 * Results of a compiled function that were not written into a donated argument belong to their program and hold until its
 * next call; `keep()` copies one out. A stale one throws when it is used.
 */
export class NDArray {
  readonly device: Device;
  readonly shape: readonly number[];
  readonly dtype: DType;
  readonly buffer: GPUBuffer;
  readonly offset: number;
  /** False for a window into a program's memory or another tensor's. */
  readonly owned: boolean;
  /** The tensor that this one is a view of. */
  readonly whole: NDArray | undefined;
  private readonly alive: () => boolean;
  private freed = false;

  constructor(
    device: Device,
    shape: readonly number[],
    dtype: DType,
    buffer: GPUBuffer,
    offset = 0,
    alive?: () => boolean,
    whole?: NDArray,
  ) {
    this.device = device;
    this.shape = shape;
    this.dtype = dtype;
    this.buffer = buffer;
    this.offset = offset;
    this.owned = alive === undefined && !whole;
    this.whole = whole;
    this.alive = alive ?? (() => true);
  }

  get size(): number {
    return numel(this.shape);
  }
  /** Bytes that it is bound with. */
  get bytes(): number {
    return boundBytes(this.size * BYTES[this.dtype]);
  }

  /**
   * The numbers from `at` on as a tensor of its own, in the same memory; freeing it frees the whole.
   * @throws when it would begin where no kernel may bind
   */
  view(at: number, shape: readonly number[]): NDArray {
    const offset = this.offset + at * BYTES[this.dtype];
    if (offset % ALIGN) throw new EngineError('tensor', `a view begins at a multiple of ${ALIGN} bytes, got ${offset}`);
    return new NDArray(this.device, shape, this.dtype, this.buffer, offset, undefined, this);
  }

  /** Throws if this tensor's memory no longer holds it. */
  check(): void {
    this.whole?.check();
    if (this.freed) throw new EngineError('tensor', `${printType(this)} was freed`);
    if (!this.alive())
      throw new EngineError(
        'tensor',
        `the program that made this ${printType(this)} has run again: read() or keep() results before the next call`,
      );
  }

  async read(): Promise<Float32Array> {
    const bytes = await this.bits();
    if (this.dtype === 'f32') return new Float32Array(bytes, 0, this.size);
    if (this.dtype === 'f16' || this.dtype === 'bf16')
      throw new EngineError('tensor', `read() gives f32; cast the ${this.dtype} tensor first or take bits()`);
    return Float32Array.from(
      this.dtype === 'i32' ? new Int32Array(bytes, 0, this.size) : new Uint32Array(bytes, 0, this.size),
    );
  }

  /** The value of a tensor of one. */
  async item(): Promise<number> {
    if (this.size !== 1)
      throw new EngineError('tensor', `item() is of one value, this is ${printType(this)}: read() gives them all`);
    return (await this.read())[0]!;
  }

  /** The raw bytes. */
  async bits(): Promise<ArrayBuffer> {
    this.check();
    return this.device.readBuffer(this.buffer, this.offset, this.bytes);
  }

  /** A copy with its own memory. */
  keep(): NDArray {
    this.check();
    const copy = this.device.empty(this.shape, this.dtype);
    this.device.copy(this.buffer, this.offset, copy.buffer, 0, this.bytes);
    return copy;
  }

  /** Gives the memory back. A program's result is its program's and stays. */
  free(): void {
    this.whole?.free();
    if (!this.owned || this.freed) return;
    this.freed = true;
    this.device.release(this.buffer);
  }
}

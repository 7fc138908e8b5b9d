/** Concrete tensors on a device. */
import { ALIGN, boundBytes, numel, storageBytes, type DType } from '../../kernels/kernel.ts';
import { callSite, EngineError, withSite } from '../host/errors.ts';
import type { Device } from './device.ts';
import type { Watched } from './garbage.ts';
import { printType } from '../frontend/graph.ts';
import { checkType } from '../frontend/tree.ts';

/** Where in a buffer a tensor lies that is not all of one. */
interface Lent {
  offset: number;
  /** The tensor that it is a view of. */
  whole?: NDArray;
  /** Why its bytes are another's by now, if they are. */
  stale?: () => string | undefined;
}

/**
 * A tensor in device memory: f32, i32, u32, f16 and bf16 (their bits in a Uint16Array), or a packed matrix (its bytes).
 *
 * Results of a compiled function that were not written into a donated argument belong to their program and hold until its
 * next call (see `compile`); `keep()` copies one out. A stale one throws when it is used. Memory comes back by `free()`, or once
 * nobody holds the tensor any more.
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
  /** Calls that were given it to overwrite, and have not begun. */
  awaited = 0;
  private readonly stale: (() => string | undefined) | undefined;
  private readonly watched: Watched | undefined;
  private freed = false;

  /** Takes `buffer` over, unless it is lent. */
  constructor(device: Device, shape: readonly number[], dtype: DType, buffer: GPUBuffer, lent?: Lent) {
    this.device = device;
    this.shape = Object.freeze([...shape]);
    this.dtype = dtype;
    this.buffer = buffer;
    this.offset = lent?.offset ?? 0;
    this.owned = !lent;
    this.whole = lent?.whole;
    this.stale = lent?.stale;
    if (!lent) this.watched = device.garbage.watch(this, device.release.bind(device, buffer));
  }

  get size(): number {
    return numel(this.shape);
  }
  /** Bytes that it is bound with. */
  get bytes(): number {
    return boundBytes(storageBytes(this.dtype, this.size));
  }

  /**
   * The numbers from `at` on as a tensor of its own, in the same memory; freeing it frees the whole.
   * @throws when it would begin where no kernel may bind, or is not all inside
   */
  view(at: number, shape: readonly number[]): NDArray {
    this.check();
    checkType('tensor', shape, this.dtype);
    const from = storageBytes(this.dtype, at);
    const offset = this.offset + from;
    const end = from + boundBytes(storageBytes(this.dtype, numel(shape)));
    if (!(at >= 0 && end <= this.bytes))
      throw new EngineError(
        'tensor',
        `a view of ${printType({ shape, dtype: this.dtype })} from ${at} on is not all in ${printType(this)}`,
      );
    if (offset % ALIGN) throw new EngineError('tensor', `a view begins at a multiple of ${ALIGN} bytes, got ${offset}`);
    return new NDArray(this.device, shape, this.dtype, this.buffer, { offset, whole: this });
  }

  /** The tensor whose memory this one is in. */
  private get root(): NDArray {
    return this.whole?.root ?? this;
  }

  /** Throws if this tensor's memory no longer holds it. */
  check(): void {
    this.whole?.check();
    if (this.freed) throw new EngineError('tensor', `${printType(this)} was freed`);
    const why = this.stale?.();
    if (why) throw new EngineError('tensor', `the program that made this ${printType(this)} ${why}`);
  }

  async read(): Promise<Float32Array> {
    const bytes = await this.bits();
    if (this.dtype === 'f32') return new Float32Array(bytes, 0, this.size);
    if (this.dtype !== 'i32' && this.dtype !== 'u32')
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

  /** The raw bytes, as the calls before leave them. */
  async bits(): Promise<ArrayBuffer> {
    this.check();
    if (this.device.inUse) {
      const site = callSite();
      await this.device.inTurn(() => Promise.resolve());
      withSite(site, () => this.check());
    }
    return this.device.readBuffer(this.buffer, this.offset, this.bytes);
  }

  /** A copy with its own memory. */
  keep(): NDArray {
    this.check();
    if (this.root.awaited)
      throw new EngineError('tensor', `${printType(this)} was donated to a call that has not begun: await that first`);
    const copy = this.device.empty(this.shape, this.dtype);
    this.device.copy(this.buffer, this.offset, copy.buffer, 0, this.bytes);
    return copy;
  }

  /** What Node prints. */
  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return `NDArray ${printType(this)}`;
  }

  /** Gives the memory back. A program's result is its program's and stays. */
  free(): void {
    this.whole?.free();
    if (!this.watched) return;
    this.freed = true;
    this.device.garbage.give(this.watched);
  }
}

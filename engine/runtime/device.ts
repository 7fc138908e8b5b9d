/** A device: the adapter that was opened, its memory budget, its pipelines, and the way in and out for tensors. */
import { boundBytes, numel, storageBytes, type Caps, type DType } from '../../kernels/kernel.ts';
import { openAdapter, type AdapterInfo, type DeviceState } from '../host/adapter.ts';
import { EngineError, mib } from '../host/errors.ts';
import { cores, memory, waiting } from '../host/runtime.ts';
import { Garbage } from './garbage.ts';
import { Pace } from './pace.ts';
import { Scratch } from './scratch.ts';
import { Staging } from './staging.ts';
import { uploadable } from './bits.ts';
import { checkTensor, checkType, dtypeOf, type Numbers } from '../frontend/tree.ts';
import { tuningFor } from './tuning.ts';
import { NDArray } from './ndarray.ts';
import { pipelineOf } from './pipeline.ts';
import { destroyIdle, Warmup } from './warmup.ts';
import { compile, type CompiledFunction, type CompileOptions } from './compile.ts';

/** Bytes taken between two sweeps for garbage: a GPU does not tell how many it has. */
const SWEEP_EVERY = 2 ** 30;
/** Bind groups made between two: only the collector gives one back, and on Mesa's CPU drivers each holds a memory mapping (pipeline.ts). */
const SWEEP_GROUPS = 2 ** 14;
const USAGE = { mapRead: 0x1, mapWrite: 0x2, copySrc: 0x4, copyDst: 0x8, uniform: 0x40, storage: 0x80 };

interface Counters {
  buffers: number;
  pipelines: number;
  bindGroups: number;
  dispatches: number;
}

/** Opens the best adapter (see `doctor`) or the one asked for. */
export async function open(options: Parameters<typeof openAdapter>[0] = {}): Promise<Device> {
  const { device, caps, info, state, another } = await openAdapter(options);
  const tuning = tuningFor(info, caps);
  return new Device(
    device,
    { ...caps, ...(tuning && { tuning }) },
    info,
    state,
    another && new Warmup(another, cores()),
  );
}

export class Device {
  readonly gpu: GPUDevice;
  readonly caps: Caps;
  readonly info: AdapterInfo;
  /** Where kernels are compiled at their first launch. */
  readonly warmup: Warmup | undefined;
  /** What has been created so far; a replayed program changes `dispatches` only. */
  readonly counters: Counters = { buffers: 0, pipelines: 0, bindGroups: 0, dispatches: 0 };
  /** Bytes held now and at most. Software drivers never refuse an allocation, so the engine counts for itself. */
  allocated = 0;
  peak = 0;
  /** Bytes this device may hold; an impossible plan is refused against it. */
  budget: number;
  readonly scratch = new Scratch(
    (bytes) => this.buffer(bytes),
    (buffer) => this.release(buffer),
  );
  /** The way in for tensors that stay in host memory, and in and out for values that wait there. */
  readonly staging = new Staging(
    {
      in: (bytes) => this.buffer(bytes, USAGE.mapWrite | USAGE.copySrc),
      out: (bytes) => this.buffer(bytes, USAGE.mapRead | USAGE.copyDst),
    },
    (buffer) => this.release(buffer),
  );
  /** How long kernels take here, and a submit may. */
  readonly pace: Pace;
  /** What nobody holds any more is given back here. */
  readonly garbage = new Garbage();
  /** The first operand of a run that was asked for its ranges and left f16's: program, op, largest number and line. */
  outOfRange: string | undefined;
  private turn: Promise<unknown> = Promise.resolve();
  private turns = 0;
  private closed = false;
  /** Bytes held when garbage was last swept. */
  private swept = 0;
  /** Bind groups made until then. */
  private sweptGroups = 0;
  private readonly state: DeviceState;
  private readonly pipelines = new Map<string, Promise<GPUComputePipeline>>();

  constructor(gpu: GPUDevice, caps: Caps, info: AdapterInfo, state: DeviceState, warmup?: Warmup) {
    this.gpu = gpu;
    this.caps = caps;
    this.info = info;
    this.state = state;
    this.warmup = warmup;
    this.pace = new Pace(info.kind);
    // WebGPU does not tell a GPU's memory; a software driver takes the host's and would be killed for too much.
    this.budget = info.kind === 'software' ? 0.8 * memory().total : Infinity;
  }

  get maxBufferBytes(): number {
    return this.gpu.limits.maxBufferSize;
  }

  /** Runs `body` after those that came before: a run that waits between its kernels must not meet another in the arenas. */
  inTurn<T>(body: () => Promise<T>): Promise<T> {
    this.turns++;
    const mine = this.turn.then(body);
    const over = () => void this.turns--;
    this.turn = mine.then(over, over);
    return mine;
  }

  /** Whether somebody waits for a turn, or has it: who is to come after them has to wait as well. */
  get inUse(): boolean {
    return this.turns > 0;
  }

  /** Compiles a function over trees of tensors; see `compile`. */
  compile<A extends readonly unknown[], R>(
    fn: (...args: A) => R,
    options: CompileOptions = {},
  ): CompiledFunction<A, R> {
    return compile(this, fn, options);
  }

  /** Why the driver has given the device up, if it has: nothing on it can be read again, another must be opened. */
  get lost(): string | undefined {
    return this.state.lost && `lost: ${this.state.lost.reason} ${this.state.lost.message}`;
  }

  /** Throws the first GPU error or the loss of the device: neither is ever swallowed. */
  check(): void {
    if (this.closed) throw new EngineError('device', 'it was closed: open() gives another');
    if (this.state.error) throw new EngineError('device', this.state.error.message);
    if (this.lost) throw new EngineError('device', this.lost);
  }

  buffer(bytes: number, usage = USAGE.storage | USAGE.copySrc | USAGE.copyDst): GPUBuffer {
    this.check();
    const size = boundBytes(bytes);
    if (size > this.maxBufferBytes)
      throw new EngineError('memory', `${mib(size)} is over this adapter's ${mib(this.maxBufferBytes)} a buffer`);
    if (this.allocated + size > this.budget) {
      throw new EngineError(
        'memory',
        `${mib(size)} more would exceed the budget of ${mib(this.budget)} (${mib(this.allocated)} in use)`,
      );
    }
    this.allocated += size;
    this.peak = Math.max(this.peak, this.allocated);
    this.counters.buffers++;
    return this.gpu.createBuffer({ size, usage });
  }

  /** Gives back what nobody holds, where it is that or refusing `bytes`, or has been let grow for long. */
  makeRoom(bytes: number): void {
    const wanted = this.allocated + bytes;
    if (wanted <= this.budget && wanted - this.swept <= SWEEP_EVERY) return;
    this.garbage.sweep();
    this.swept = this.allocated;
  }

  /** Counts bind groups that are about to be made. */
  makeGroups(count: number): void {
    this.counters.bindGroups += count;
    if (this.counters.bindGroups - this.sweptGroups <= SWEEP_GROUPS) return;
    this.garbage.sweep();
    this.sweptGroups = this.counters.bindGroups;
  }

  uniforms(bytes: number): GPUBuffer {
    return this.buffer(bytes, USAGE.uniform | USAGE.copyDst);
  }

  release(buffer: GPUBuffer): void {
    this.allocated -= buffer.size;
    buffer.destroy();
  }

  pipeline(wgsl: string, label: string): Promise<GPUComputePipeline> {
    let found = this.pipelines.get(wgsl);
    if (!found) {
      this.counters.pipelines++;
      found = this.build(wgsl, label);
      this.pipelines.set(wgsl, found);
    }
    return found;
  }

  private async build(wgsl: string, label: string): Promise<GPUComputePipeline> {
    this.gpu.pushErrorScope('validation');
    const module = this.gpu.createShaderModule({ code: wgsl, label });
    void this.gpu.popErrorScope(); // the pipeline's rejection below tells it with its text
    try {
      return await pipelineOf(this.gpu, { wgsl, label }, module);
    } catch (error) {
      const { messages } = await module.getCompilationInfo();
      const text = messages
        .filter((m) => m.type === 'error')
        .map((m) => `${m.lineNum}:${m.linePos} ${m.message}`)
        .join('; ');
      throw new EngineError('shader', `${label}: ${text || (error as Error).message}\n${wgsl}`);
    }
  }

  /** Uninitialised (zeroed by WebGPU). */
  empty(shape: readonly number[], dtype: DType = 'f32'): NDArray {
    checkType('tensor', shape, dtype);
    const bytes = storageBytes(dtype, numel(shape));
    if (bytes > this.maxBufferBytes)
      throw new EngineError(
        'tensor',
        `[${shape.join()}] ${dtype} takes ${mib(bytes)}, over this adapter's ${mib(this.maxBufferBytes)} a buffer`,
      );
    this.check();
    this.makeRoom(bytes);
    return new NDArray(this, shape, dtype, this.buffer(bytes));
  }

  zeros(shape: readonly number[], dtype: DType = 'f32'): NDArray {
    return this.empty(shape, dtype);
  }

  /**
   * Uploads; the dtype follows the array's type unless given. f16 and bf16 take their bits in a
   * Uint16Array, packed matrices their bytes; Float64Array is rounded to f32.
   */
  tensor(data: Numbers, shape: readonly number[], dtype: DType = dtypeOf(data)): NDArray {
    checkTensor('tensor', data, shape, dtype);
    const bytes = uploadable(data, dtype);
    const out = this.empty(shape, dtype);
    this.upload(out.buffer, out.offset, bytes);
    return out;
  }

  /** @throws for data that are not numbers of this dtype, or too many */
  write(buffer: GPUBuffer, offset: number, data: Numbers, dtype: DType): void {
    this.check();
    this.upload(buffer, offset, uploadable(data, dtype));
  }

  private upload(buffer: GPUBuffer, offset: number, bytes: Uint32Array<ArrayBuffer>): void {
    checkRange('write', buffer, offset, bytes.byteLength);
    this.gpu.queue.writeBuffer(buffer, offset, bytes);
  }

  copy(from: GPUBuffer, fromOffset: number, to: GPUBuffer, toOffset: number, bytes: number): void {
    this.check();
    checkRange('copy', from, fromOffset, bytes);
    checkRange('copy', to, toOffset, bytes);
    const encoder = this.gpu.createCommandEncoder();
    encoder.copyBufferToBuffer(from, fromOffset, to, toOffset, bytes);
    this.gpu.queue.submit([encoder.finish()]);
  }

  async readBuffer(buffer: GPUBuffer, offset: number, bytes: number): Promise<ArrayBuffer> {
    this.check();
    checkRange('read', buffer, offset, bytes);
    const staging = this.gpu.createBuffer({ size: bytes, usage: USAGE.mapRead | USAGE.copyDst });
    this.copy(buffer, offset, staging, 0, bytes);
    try {
      await waiting(staging.mapAsync(1));
    } catch (error) {
      this.check(); // says why, where it is known
      throw error;
    }
    const out = staging.getMappedRange().slice(0);
    staging.unmap();
    staging.destroy();
    this.check();
    return out;
  }

  /** Waits until all submitted work is done. */
  async idle(): Promise<void> {
    await waiting(this.gpu.queue.onSubmittedWorkDone());
    this.check();
  }

  /**
   * Gives everything back once the device is idle, which nobody has to wait for: Dawn's `destroy` waits itself, and lets nothing else run.
   * What is used of it afterwards is refused.
   */
  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.warmup?.close();
    void destroyIdle(this.gpu);
  }
}

/** @throws for bytes that are not all in the buffer, which the driver would refuse together with all that comes after */
function checkRange(op: string, { size }: GPUBuffer, offset: number, bytes: number): void {
  if (offset >= 0 && offset % 4 === 0 && bytes >= 0 && bytes % 4 === 0 && offset + bytes <= size) return;
  throw new EngineError(op, `${bytes} bytes from ${offset} on are not in a buffer of ${size}, by fours`);
}

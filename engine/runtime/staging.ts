/**
 * The way of tensors from host memory to a device and back: a few mapped buffers each, filled and copied from in turn. However much goes
 * through, no more than these is memory that both host and device see, of which drivers have little.
 */
import { waiting } from '../host/runtime.ts';
import type { Span } from './program-memory.ts';
import { largestArenas } from './scratch.ts';

const SLOTS = 4;
const SLOT_BYTES = 2 ** 23;
/** What all of one way take, as long as a program needs them. */
export const STAGING_BYTES = SLOTS * SLOT_BYTES;
const [READ, WRITE] = [1, 2];

interface Slot {
  buffer: GPUBuffer;
  /** When host memory can be copied to it, or from it. */
  mapped: Promise<unknown>;
}

/** Bytes in host memory, and where they lie on the device. */
export interface Part {
  bytes: Uint8Array;
  at: Span;
}

type Allocate = (bytes: number) => GPUBuffer;

export class Staging {
  private readonly allocate: { in: Allocate; out: Allocate };
  private readonly release: (buffer: GPUBuffer) => void;
  /** Bytes of host memory that each has asked for. */
  private readonly users = new Map<object, readonly number[]>();
  /** The one that was filled longest ago first. */
  private slots: Slot[] = [];
  private out: GPUBuffer[] = [];
  private memory: Uint8Array<ArrayBuffer>[] = [];

  constructor(allocate: { in: Allocate; out: Allocate }, release: (buffer: GPUBuffer) => void) {
    this.allocate = allocate;
    this.release = release;
  }

  /** @param host bytes of each piece of host memory for values. @throws where the budget has no room, with nothing held */
  enter(user: object, host: readonly number[] = []): void {
    this.users.set(user, host);
    try {
      while (this.slots.length < SLOTS) this.slots.push(slotOf(this.allocate.in(SLOT_BYTES)));
      while (host.length && this.out.length < SLOTS) this.out.push(this.allocate.out(SLOT_BYTES));
    } catch (error) {
      this.leave(user);
      throw error;
    }
  }

  leave(user: object): void {
    if (!this.users.delete(user)) return;
    const wanted = largestArenas([...this.users.values()]);
    this.memory = this.memory.slice(0, wanted.length);
    if (!wanted.length) {
      for (const buffer of this.out) this.release(buffer);
      this.out = [];
    }
    if (this.users.size) return;
    for (const { buffer } of this.slots) this.release(buffer);
    this.slots = [];
  }

  /** The host memory that all users share, for a run of one of them: what it puts there holds until another runs. */
  pieces(host: readonly number[]): readonly Uint8Array[] {
    host.forEach((size, i) => {
      if (!((this.memory[i]?.length ?? 0) >= size)) this.memory[i] = new Uint8Array(size);
    });
    return this.memory;
  }

  /** Queues the parts' way to the device, as fast as it takes them: kernels that are submitted from now on find them there. */
  async bring(gpu: GPUDevice, parts: readonly Part[]): Promise<void> {
    let open: { slot: Slot; room: Uint8Array; filled: number; encoder: GPUCommandEncoder } | undefined;
    const send = (): void => {
      if (!open) return;
      const { slot, encoder } = open;
      slot.buffer.unmap();
      gpu.queue.submit([encoder.finish()]);
      this.slots.push(slotOf(slot.buffer));
      open = undefined;
    };
    for (const { bytes, at } of parts) {
      for (let from = 0; from < bytes.length;) {
        open ??= await this.next(gpu);
        const { slot, room, filled, encoder } = open;
        const count = Math.min(bytes.length - from, SLOT_BYTES - filled);
        room.set(bytes.subarray(from, from + count), filled);
        encoder.copyBufferToBuffer(slot.buffer, filled, at.buffer, at.offset + from, count);
        open.filled += count;
        from += count;
        if (open.filled === SLOT_BYTES) send();
      }
    }
    send();
  }

  /** Copies parts to host memory: they are there when it is done, which waits for the kernels before. */
  async put(gpu: GPUDevice, parts: readonly Part[]): Promise<void> {
    const under: Promise<void>[] = [];
    const free = [...this.out];
    const one = async (buffer: GPUBuffer, to: Uint8Array): Promise<void> => {
      await waiting(buffer.mapAsync(READ, 0, to.length));
      to.set(new Uint8Array(buffer.getMappedRange(0, to.length)));
      buffer.unmap();
      free.push(buffer);
    };
    for (const { bytes, at } of parts) {
      for (let from = 0; from < bytes.length; from += SLOT_BYTES) {
        if (!free.length) await under.shift();
        const buffer = free.shift()!;
        const to = bytes.subarray(from, from + SLOT_BYTES);
        const encoder = gpu.createCommandEncoder();
        encoder.copyBufferToBuffer(at.buffer, at.offset + from, buffer, 0, to.length);
        gpu.queue.submit([encoder.finish()]);
        under.push(one(buffer, to));
        under.at(-1)!.catch(() => {}); // told when it is waited for
      }
    }
    await Promise.all(under);
  }

  private async next(gpu: GPUDevice) {
    const slot = this.slots.shift()!;
    try {
      await waiting(slot.mapped);
    } catch (error) {
      this.slots.push(slot); // the device is lost: it is given back with the others
      throw error;
    }
    return { slot, room: new Uint8Array(slot.buffer.getMappedRange()), filled: 0, encoder: gpu.createCommandEncoder() };
  }
}

/** A buffer once it can be written again. */
function slotOf(buffer: GPUBuffer): Slot {
  const mapped = buffer.mapAsync(WRITE);
  mapped.catch(() => {}); // told when it is waited for
  return { buffer, mapped };
}

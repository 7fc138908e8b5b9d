/**
 * The way of tensors from host memory to a device: a few mapped buffers, filled and copied from in turn. However much is brought, no
 * more than these is memory that both host and device see, of which drivers have little.
 */
import { waiting } from '../host/runtime.ts';
import type { Span } from './program-memory.ts';

const SLOTS = 4;
const SLOT_BYTES = 2 ** 23;
/** What all of them take, as long as a program needs them. */
export const STAGING_BYTES = SLOTS * SLOT_BYTES;
const WRITE = 2;

interface Slot {
  buffer: GPUBuffer;
  /** When the device has copied what was in it. */
  mapped: Promise<unknown>;
}

/** Bytes, and where they go. */
export interface Part {
  bytes: Uint8Array;
  to: Span;
}

export class Staging {
  private readonly allocate: (bytes: number) => GPUBuffer;
  private readonly release: (buffer: GPUBuffer) => void;
  private readonly users = new Set<object>();
  /** The one that was filled longest ago first. */
  private slots: Slot[] = [];

  constructor(allocate: (bytes: number) => GPUBuffer, release: (buffer: GPUBuffer) => void) {
    this.allocate = allocate;
    this.release = release;
  }

  /** @throws where the budget has no room, with nothing held */
  enter(user: object): void {
    this.users.add(user);
    try {
      while (this.slots.length < SLOTS) this.slots.push(slotOf(this.allocate(SLOT_BYTES)));
    } catch (error) {
      this.leave(user);
      throw error;
    }
  }

  leave(user: object): void {
    if (!this.users.delete(user) || this.users.size) return;
    for (const { buffer } of this.slots) this.release(buffer);
    this.slots = [];
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
    for (const { bytes, to } of parts) {
      for (let from = 0; from < bytes.length;) {
        open ??= await this.next(gpu);
        const { slot, room, filled, encoder } = open;
        const count = Math.min(bytes.length - from, SLOT_BYTES - filled);
        room.set(bytes.subarray(from, from + count), filled);
        encoder.copyBufferToBuffer(slot.buffer, filled, to.buffer, to.offset + from, count);
        open.filled += count;
        from += count;
        if (open.filled === SLOT_BYTES) send();
      }
    }
    send();
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

/** Memory that a device holds, with nothing in it that nobody holds and that a collector might give back at any moment. */
import type { Device } from '../engine/runtime/device.ts';
import { pause } from '../engine/host/runtime.ts';

/** Bytes, once all garbage is swept. */
export async function held(device: Device): Promise<number> {
  await pause(1); // what this turn of the event loop made would stay
  device.garbage.sweep();
  return device.allocated;
}

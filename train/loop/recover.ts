/** A lost device inside a run (driver reset, sleep, another program's fault): open another, and go on from what is saved. */
import type { Device } from '../../engine/runtime/device.ts';
import { easeSubmits } from '../../engine/runtime/pace.ts';

const LOSSES = 3; // without QUIET seconds of work between them
const QUIET = 600;
const SETTLE_MS = 100; // a failed wait may be told before the loss that made it fail

/**
 * Runs `body` on a device from `open`. When the device is lost, opens another and runs `body` again; it must resume from disk, as the
 * training commands do. What a watchdog may have ended goes in smaller pieces then. The devices are closed here.
 * @param onLoss told before each new device
 * @throws any other error, and the third loss in quick succession
 */
export async function recovering<R>(
  open: () => Promise<Device>,
  body: (device: Device) => Promise<R>,
  onLoss: (reason: string) => void,
): Promise<R> {
  for (let losses = 1; ; losses++) {
    const start = performance.now();
    const device = await open();
    try {
      return await body(device);
    } catch (error) {
      await new Promise((done) => setTimeout(done, SETTLE_MS));
      if (performance.now() - start > 1000 * QUIET) losses = 1;
      if (!device.lost) throw error;
      if (losses >= LOSSES)
        throw new Error(
          `[device] ${device.lost}; that was the ${losses}. time in a row: look at the driver and at other programs on this device`,
          { cause: error },
        );
      easeSubmits();
      onLoss(device.lost);
    } finally {
      device.close();
    }
  }
}

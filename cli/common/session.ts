/** What a command works in: an open device, and Ctrl-C that brings things to a good end. */
import process from 'node:process';
import { open, type Device } from '../../engine/runtime/device.ts';
import { recovering } from '../../train/loop/recover.ts';
import { EXIT, Interrupted, report } from './errors.ts';

export interface Session {
  device: Device;
  /** Aborted by the first Ctrl-C. Its reason is the error to end with. */
  signal: AbortSignal;
}

/**
 * Opens the best adapter, says which, runs `body` and closes the device; runs it again on another where the device is lost, so what a
 * body does must bear repeating.
 * @param stopped what a person must know after Ctrl-C: what is kept, how to go on
 */
export const session = <R>(stopped: string, body: (s: Session) => Promise<R>): Promise<R> =>
  untilInterrupted(stopped, (signal) =>
    recovering(
      open,
      (device) => {
        console.error(`adapter: ${device.info.name} (${device.info.kind}), ${device.info.reason}`);
        signal.throwIfAborted();
        return body({ device, signal });
      },
      (reason) =>
        console.error(
          `\nalarm: the device was ${reason}; opening another, which gets less work at a time, and going on from what is saved`,
        ),
    ),
  );

/**
 * Waits for work of which nothing is to be saved: at the first Ctrl-C what it has begun is cleared away and the process ends at once. What
 * the device is at would take as long as it takes.
 */
export async function orLeave<R>(signal: AbortSignal, work: Promise<R>, clear: () => Promise<void>): Promise<R> {
  const stopped = new Promise<undefined>((done) => {
    signal.addEventListener('abort', () => done(undefined), { once: true });
  });
  const made = await Promise.race([work.then((value) => ({ value })), stopped]);
  if (made) return made.value;
  await clear();
  report(signal.reason);
  return leave();
}

/**
 * Ends the process in the midst of work, by the signal that Ctrl-C is: shells tell it as 130. `process.exit` would take the driver's
 * libraries down while its threads compile, which crashes.
 */
function leave(): never {
  process.emit('exit', EXIT.interrupted);
  if (process.platform !== 'win32') {
    process.removeAllListeners('SIGINT');
    process.kill(process.pid, 'SIGINT');
  }
  process.exit(EXIT.interrupted);
}

/** Runs `body`. The first Ctrl-C aborts its signal, whose reason says `stopped`; the second leaves at once. */
export async function untilInterrupted<R>(stopped: string, body: (signal: AbortSignal) => Promise<R>): Promise<R> {
  const controller = new AbortController();
  const interrupt = (): void => {
    if (controller.signal.aborted) {
      process.stderr.write('\x1b[?25h'); // a progress bar may have hidden the cursor
      leave();
    }
    console.error('\nstopping as soon as this step is done; Ctrl-C again leaves at once');
    controller.abort(new Interrupted(stopped));
  };
  process.on('SIGINT', interrupt);
  process.on('SIGTERM', interrupt);
  try {
    return await body(controller.signal);
  } finally {
    process.off('SIGINT', interrupt);
    process.off('SIGTERM', interrupt);
  }
}

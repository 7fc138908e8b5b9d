/**
 * How long kernels take, so that no submit is longer than a desktop's watchdog lets live: Windows ends a dispatch after two seconds, macOS
 * a command buffer after some more. Predicted from arithmetic and traffic, and measured as work goes.
 */
import type { Dispatch } from '../../kernels/kernel.ts';
import { flags } from '../host/flags.ts';

/** Of a submit, where a watchdog may be: a twentieth of the shortest, as predictions may be off by much at first. */
export const SUBMIT_MS = 100;
/** What a GPU is taken for until it is measured: a small one built into a processor. */
const FIRST = { flops: 1e12, bytes: 5e10 };
/** Seconds that any kernel takes. */
const LEAST = 5e-6;
/** Shorter measurements say more of the wait than of the work. */
const TELLING = 2e-3;
/** How much shorter submits become with each device that is lost, and at most. */
const EASE = 4;
const MOST_EASE = 64;

let eased = 1;

/** After a device was lost: work is submitted in smaller pieces on those that are opened from now on. */
export const easeSubmits = (): void => {
  eased = Math.min(MOST_EASE, eased * EASE);
};

export class Pace {
  /** Seconds that a submit should take at most; infinite on a CPU driver, which nothing watches. */
  limit: number;
  /** Measured times over those predicted at the first rates. */
  private factor = 1;
  /** When the last work that is known of was done. */
  private last = 0;

  constructor(kind: 'gpu' | 'software') {
    const ms = flags.VPAE_SUBMIT_MS ?? (kind === 'gpu' ? SUBMIT_MS : Infinity);
    this.limit = ms / 1000 / eased;
  }

  /** Seconds that a kernel will take. */
  predict({ flops, bytes }: Pick<Dispatch, 'flops' | 'bytes'>): number {
    return LEAST + this.factor * Math.max(flops / FIRST.flops, bytes / FIRST.bytes);
  }

  /** The same promise, whose end is remembered. */
  async follow(done: Promise<unknown>): Promise<void> {
    await done;
    if (this.limit < Infinity) this.last = performance.now();
  }

  /** Seconds from when the device could begin with what was just submitted to `done`. */
  async measure(done: Promise<unknown>): Promise<number> {
    const submitted = performance.now();
    await done;
    const now = performance.now();
    const took = now - Math.max(submitted, this.last);
    this.last = now;
    return took / 1000;
  }

  /** @param took seconds of work that was predicted to take so many */
  learn(took: number, predicted: number): void {
    if (took > TELLING) this.factor *= Math.min(4, Math.max(0.25, took / predicted)) ** 0.5;
  }
}

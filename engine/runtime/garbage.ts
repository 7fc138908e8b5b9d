/** The net under `free()`: what nobody holds any more gives its memory back. */
import { collectGarbage } from '../host/runtime.ts';

/** Something that holds device memory, and how to give it back. */
export interface Watched {
  readonly holder: WeakRef<object>;
  readonly release: () => void;
}

export class Garbage {
  private readonly watched = new Set<Watched>();
  private readonly registry = new FinalizationRegistry<Watched>((w) => this.give(w));

  /** Calls `release`, which must not hold `holder` (nor close over where that is made), once nobody holds that any more. */
  watch(holder: object, release: () => void): Watched {
    const watched = { holder: new WeakRef(holder), release };
    this.watched.add(watched);
    this.registry.register(holder, watched, watched);
    return watched;
  }

  /** Gives back now, or does nothing if that has been done. */
  give(watched: Watched): void {
    if (!this.watched.delete(watched)) return;
    this.registry.unregister(watched);
    watched.release();
  }

  /**
   * Gives back all that nobody holds, where the runtime lets its collector be asked: by itself it knows nothing of device memory.
   * What the current turn of the event loop has made or looked at stays until the turn is over.
   */
  sweep(): void {
    collectGarbage();
    for (const w of this.watched) if (!w.holder.deref()) this.give(w);
  }
}

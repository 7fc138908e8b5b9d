/** What a worker can do. The queue names a kind of item; which code that is, this table alone says. */
import type { z } from 'zod';
import type { Device } from '../../engine/runtime/device.ts';
import type { Spread } from '../../train/spread.ts';
import type { Inputs } from './files.ts';

/** What items are done with. */
export interface Bench {
  device: Device;
  signal: AbortSignal;
  inputs: Inputs;
  /** A folder of this process's own. */
  scratch: string;
}

export interface Doing<I> {
  spread: Spread<I>;
  close: () => Promise<void>;
}

interface How<S, I> {
  settings: z.ZodType<S>;
  item: z.ZodType<I>;
  /** Items that are best done together, at most. */
  together: number;
  open: (settings: S, bench: Bench) => Promise<Doing<I>>;
}

/** A kind as a worker has it, for whom settings and items are what the queue holds. */
export interface Kind extends Omit<How<unknown, unknown>, 'settings' | 'item'> {
  check: (item: unknown) => unknown;
}

export const kindOf = <S, I>({ settings, item, together, open }: How<S, I>): Kind => ({
  together,
  check: (found) => item.parse(found),
  async open(found, bench) {
    const { spread, close } = await open(settings.parse(found), bench);
    return { close, spread: (items, keep) => spread(items as I[], keep) };
  },
});

const KINDS: Record<string, () => Promise<Kind>> = {
  clips: async () => (await import('../sample/farmed.ts')).CLIPS,
  latents: async () => (await import('../data/latents.ts')).LATENTS,
};

/** Undefined where there is none of this name. */
export const kindNamed = async (name: string): Promise<Kind | undefined> =>
  Object.hasOwn(KINDS, name) ? KINDS[name]!() : undefined;

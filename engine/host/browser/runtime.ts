/** What the engine asks of its runtime, in a page: the part of ../runtime.ts that is needed where Dawn is the browser's own. */
const page = globalThis as {
  location?: { search: string };
  navigator?: { gpu?: GPU; hardwareConcurrency?: number; deviceMemory?: number };
};

export const runtime = 'this browser';
export const platform = 'browser';
export const arch = 'unknown';

/** Flags stand in the page's address: `?DEBUG=2`. */
export const env = (name: string): string | undefined =>
  new URLSearchParams(page.location?.search).get(name) ?? undefined;

/** A name only: a page has no such folder. */
export const cacheDir = (...parts: string[]): string => ['vpae', ...parts].join('/');

export const readText = (_path: string): string | undefined => undefined;

export const writeText = (path: string, _text: string): void => {
  throw new Error(`[host] a page cannot write ${path}: DEBUG=2 prints the times`);
};

export const pathOf = (url: string): string => url;

export const cores = (): number => page.navigator?.hardwareConcurrency ?? 1;

export const pause = (ms: number): Promise<void> =>
  new Promise((resolve) => {
    setTimeout(resolve, ms);
  });

const USUAL_GIB = 4;

/** Bytes of main memory, as far as a browser tells: Chrome rounds and says 8 GiB for more, others say nothing. */
export function memory(): { total: number; free: number } {
  const total = (page.navigator?.deviceMemory ?? USUAL_GIB) * 2 ** 30;
  return { total, free: total };
}

/** A page cannot ask its collector: what nobody holds comes back when that runs by itself. */
export const collectGarbage = (): void => {};

export const nativeGpu = (): GPU | undefined => page.navigator?.gpu;

/** A browser wakes us itself. */
export const waiting = <T>(promise: Promise<T>): Promise<T> => promise;

/** A page cannot break off what it runs: the browser asks its user. */
export const withinTime = <R>(_ms: number, work: () => R, _what: string): R => work();

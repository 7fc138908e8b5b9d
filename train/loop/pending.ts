/** The numbers of steps that a device may still be at: they come when it has got so far, while the next step is already queued. */

export type Metrics = Record<string, number>;
export type Pending = Promise<Metrics>;

/** A promise that may fail before anybody waits for it: whoever does is told. */
export function unwatched<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {});
  return promise;
}

/** All of them, by name. */
export const joined = (...parts: readonly Pending[]): Pending =>
  unwatched(Promise.all(parts).then((all) => Object.assign({}, ...all) as Metrics));

/** Each one's mean over steps that have the same. */
export const meanOf = (parts: readonly Pending[]): Pending =>
  unwatched(
    Promise.all(parts).then((all) =>
      Object.fromEntries(
        Object.keys(all[0]!).map((name) => [name, all.reduce((sum, m) => sum + m[name]! / all.length, 0)]),
      ),
    ),
  );

/** Work that is cut into items of which none needs another: done here one after the other, or by others in whatever order. */

/** Has every item done; `keep` is given each result once, as it comes, with its item's place in the list. */
export type Spread<I> = (
  items: readonly I[],
  keep: (at: number, result: Uint8Array) => void | Promise<void>,
) => Promise<void>;

/** In this process. */
export const here =
  <I>(one: (item: I) => Promise<Uint8Array>): Spread<I> =>
  async (items, keep) => {
    for (const [at, item] of items.entries()) await keep(at, await one(item));
  };

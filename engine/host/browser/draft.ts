/** Files that come to stand whole or not at all: in a page, not at all. */
export class Draft {
  constructor(path: string) {
    throw new Error(`[host] a page cannot write ${path}`);
  }

  write(_bytes: Uint8Array): void {}

  keep(): void {}

  drop(): void {}
}

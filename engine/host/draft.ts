/** Files that come to stand whole or not at all. */
import { closeSync, fsyncSync, openSync, renameSync, rmSync, writeSync } from 'node:fs';
import process from 'node:process';

const LARGEST_WRITE = 2 ** 30; // bytes; some systems take no more at once

/** Filled beside its place, flushed to the disk, and renamed there. Until then what stood there stands. */
export class Draft {
  private readonly path: string;
  private readonly temporary: string;
  private readonly file: number;
  private isOpen = true;

  constructor(path: string) {
    [this.path, this.temporary] = [path, `${path}.${process.pid}.part`];
    this.file = openSync(this.temporary, 'w');
  }

  /** Behind what was written before. */
  write(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length;)
      at += writeSync(this.file, bytes, at, Math.min(LARGEST_WRITE, bytes.length - at));
  }

  /** It takes its place. */
  keep(): void {
    fsyncSync(this.file);
    this.close();
    renameSync(this.temporary, this.path);
  }

  /** Nothing of it stays. */
  drop(): void {
    this.close();
    rmSync(this.temporary, { force: true });
  }

  private close(): void {
    if (this.isOpen) closeSync(this.file);
    this.isOpen = false;
  }
}

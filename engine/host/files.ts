/** Files as the readers of weights need them, under Node and Deno. A browser has browser/files.ts in this file's place. */
import { access, open, readdir, readFile, stat } from 'node:fs/promises';
import * as path from 'node:path';
import * as zlib from 'node:zlib';
import { readText } from './plain.ts';

export const basename = (file: string): string => path.basename(file);
export const dirname = (file: string): string => path.dirname(file);
export const join = (...paths: string[]): string => path.join(...paths);

/** An open file, read by ranges. */
export interface OpenFile {
  readonly isFile: boolean;
  readonly size: number;
  /** Fills `target` from its byte `offset` on, with at most `length` bytes of the file's from `position` on; says how many. */
  read(target: Uint8Array, offset: number, length: number, position: number): Promise<number>;
  close(): Promise<void>;
}

/** @throws an error whose `code` is ENOENT where there is no such file */
export async function openFile(path: string): Promise<OpenFile> {
  const before = await stat(path); // opening a FIFO would wait for its writer
  if (!before.isFile())
    return { isFile: false, size: 0, read: () => Promise.resolve(0), close: () => Promise.resolve() };
  const handle = await open(path);
  const found = await handle.stat();
  return {
    isFile: found.isFile(),
    size: found.size,
    read: async (...range) => (await handle.read(...range)).bytesRead,
    close: () => handle.close(),
  };
}

/** A small file's text. @throws as `openFile` does, and where it is no file or large */
export const readTextFile = (path: string): Promise<string> => Promise.resolve().then(() => readText(path));

export const readBytes = (path: string): Promise<Uint8Array> => readFile(path);

export const exists = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  );

export const isFolder = (path: string): Promise<boolean> =>
  stat(path).then(
    (found) => found.isDirectory(),
    () => false,
  );

/** Names in a folder. */
export const list = (folder: string): Promise<string[]> => readdir(folder);

/** The runtime's own CRC-32, as zip has it: Node's from 22.2 on. */
export const nativeCrc32 = (zlib as { crc32?: (bytes: Uint8Array, crc?: number) => number }).crc32;

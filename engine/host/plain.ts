/**
 * Small files that somebody else may have made, read whole: regular files of bounded size only, so that none can hang or fill the memory.
 */
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';

const MiB = 2 ** 20;

/**
 * A FIFO or a device would keep a reader waiting for ever: neither is opened for more than a look at what it is.
 * @param most bytes
 * @throws what the file system throws (`code`), or why it is not read
 */
export function readPlain(path: string, most = 64 * MiB): Buffer {
  const file = openSync(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
  try {
    const stat = fstatSync(file);
    if (!stat.isFile()) throw new Error(`${stat.isDirectory() ? 'is a folder' : 'is a pipe or a device'}, not a file`);
    if (stat.size > most) throw new Error(`has ${stat.size} bytes, at most ${most} are read`);
    const bytes = Buffer.alloc(stat.size);
    let length = 0;
    for (let got = 1; got && length < bytes.length; length += got)
      got = readSync(file, bytes, length, bytes.length - length, length);
    return bytes.subarray(0, length);
  } finally {
    closeSync(file);
  }
}

/** The text of a small file, as UTF-8; see `readPlain`. */
export const readText = (path: string, most?: number): string => readPlain(path, most).toString('utf8');

/** The same, or nothing where it cannot be read. */
export function textOr(path: string, most?: number): string | undefined {
  try {
    return readText(path, most);
  } catch {
    return undefined;
  }
}

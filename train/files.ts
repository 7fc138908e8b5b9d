/** Files that are written whole or not at all. */
import { closeSync, fsyncSync, mkdirSync, openSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';

/** Writes a file beside its place, flushes it to disk and renames it there; makes missing folders. Throws one clear line, and then the old file still stands. */
export function writeWhole(path: string, content: Uint8Array | string): void {
  const temporary = `${path}.tmp`; // one fixed name, so that what a kill leaves behind is overwritten by the next try
  try {
    mkdirSync(dirname(path), { recursive: true });
    const file = openSync(temporary, 'w');
    try {
      writeFileSync(file, content);
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
    renameSync(temporary, path);
  } catch (error) {
    rmSync(temporary, { force: true });
    const { code, message } = error as NodeJS.ErrnoException;
    const reason = code === 'ENOSPC' ? 'the disk is full' : code === 'EACCES' || code === 'EROFS' ? 'no permission to write there' : message;
    throw new Error(`[write] ${path}: ${reason}`, { cause: error });
  }
}

/** Files that are written whole or not at all, and why a write failed. */
import { mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { Draft } from '../../engine/host/draft.ts';

/** Writes a file whole or not at all (`Draft`); makes missing folders. Throws one clear line, and then the old file still stands. */
export function writeWhole(path: string, content: Uint8Array | string): void {
  let draft: Draft | undefined;
  try {
    mkdirSync(dirname(path), { recursive: true });
    draft = new Draft(path);
    draft.write(typeof content === 'string' ? new TextEncoder().encode(content) : content);
    draft.keep();
  } catch (error) {
    draft?.drop();
    throw new Error(`[write] ${path}: ${reasonOf(error)}`, { cause: error });
  }
}

const REASONS: Record<string, string> = {
  ENOSPC: 'the disk is full',
  EDQUOT: 'the disk quota is used up',
  EACCES: 'no permission to write there',
  EPERM: 'no permission to write there',
  EROFS: 'the file system is read-only',
  ENOENT: 'the folder does not exist',
  ENOTDIR: 'a part of the path is a file',
  EEXIST: 'a file of that name is in the way',
};

/** Why the system refused something, in words. */
export function reasonOf(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  return (code && REASONS[code]) ?? message;
}

/** A failed write as one line that says why and what is left. */
export function writeError(who: string, path: string, error: unknown, rest = ''): Error {
  return new Error(`[${who}] could not write ${path}: ${reasonOf(error)}${rest}`, { cause: error });
}

/** Archives, and folders that are whole once they are there: what is fetched goes through these. */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';

/** Paths of what lies in a folder; none where there is no folder. */
export const list = (dir: string): string[] => (existsSync(dir) ? readdirSync(dir).map((name) => join(dir, name)) : []);

/** Regular files of an uncompressed tar archive. */
export function* untar(tar: Buffer): Generator<{ name: string; data: Buffer }> {
  for (let at = 0; at + 512 <= tar.length && tar[at] !== 0;) {
    const name = tar.toString('latin1', at, at + 100).replace(/\0.*/s, '');
    const size = Number.parseInt(tar.toString('latin1', at + 124, at + 136), 8);
    const type = String.fromCharCode(tar[at + 156]!);
    if (type === '0' || type === '\0') yield { name, data: tar.subarray(at + 512, at + 512 + size) };
    at += 512 + 512 * Math.ceil(size / 512);
  }
}

/** Builds a folder beside its place and moves it there in one step, so that what exists is whole. */
export async function atomically(target: string, build: (dir: string) => Promise<void>): Promise<void> {
  mkdirSync(dirname(target), { recursive: true });
  const hourAgo = Date.now() - 3600e3;
  for (const left of list(dirname(target))) {
    // by a process that was killed
    if (left.startsWith(`${target}.part-`) && statSync(left).mtimeMs < hourAgo)
      rmSync(left, { recursive: true, force: true });
  }
  const dir = mkdtempSync(`${target}.part-`);
  try {
    await build(dir);
    try {
      renameSync(dir, target);
    } catch (error) {
      if (!existsSync(target)) throw error; // another process was faster: its folder serves
    }
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

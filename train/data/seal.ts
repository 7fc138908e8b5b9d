/** Indexes that notice when they were changed: JSON that carries the hash of everything else in it, and of the records it tells of. */
import { createHash } from 'node:crypto';
import { readText } from '../../engine/host/plain.ts';
import { canonical } from '../loop/canonical.ts';

const LARGEST = 2 ** 28; // bytes

export const sha256 = (bytes: Uint8Array | string): string => createHash('sha256').update(bytes).digest('hex');

const sealOf = (value: object): string => sha256(canonical(value)).slice(0, 32);

/** The text of an index. `value` must be plain JSON. */
export const sealed = (value: object): string => {
  const plain = JSON.parse(JSON.stringify(value)) as object;
  return `${JSON.stringify({ ...plain, seal: sealOf(plain) }, null, 1)}\n`;
};

/** @returns the index; one of before there were seals as it is. @throws why it cannot be trusted, or what the file system throws */
export function readSealed(path: string): Record<string, unknown> {
  const value = JSON.parse(readText(path, LARGEST)) as Record<string, unknown> | null;
  if (typeof value !== 'object' || value === null) throw new Error('it is no object');
  const { seal, ...rest } = value;
  if ('seal' in value && seal !== sealOf(rest)) throw new Error('it was changed or damaged after it was written');
  return rest;
}

/** Which weights a file holds, told without reading all of it. */
import { numel } from '../../kernels/kernel.ts';
import type { Weights } from './weights.ts';

const PIECES = 4; // of each tensor
const PIECE = 64; // elements

/** 16 hex digits of SHA-256. */
export async function hashBytes(bytes: Uint8Array): Promise<string> {
  const digest = await crypto.subtle.digest('SHA-256', bytes as Uint8Array<ArrayBuffer>); // never shared memory
  return Array.from(new Uint8Array(digest, 0, 8), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** 16 hex digits over every tensor's name, dtype, shape and some of its elements, from its first to its last. */
export async function fingerprint(weights: Weights): Promise<string> {
  const parts: Uint8Array<ArrayBuffer>[] = [];
  for (const [name, { dtype, shape }] of [...weights.entries].sort(([a], [b]) => (a < b ? -1 : 1))) {
    parts.push(new TextEncoder().encode(`${JSON.stringify([name, dtype, shape])}\n`) as Uint8Array<ArrayBuffer>);
    const last = Math.max(0, numel(shape) - PIECE);
    for (let i = 0; i < PIECES; i++) {
      const from = Math.floor((last * i) / (PIECES - 1));
      const { buffer, byteOffset, byteLength } = await weights.read(name, from, from + PIECE);
      parts.push(new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength));
    }
  }
  return hashBytes(new Uint8Array(await new Blob(parts).arrayBuffer()));
}

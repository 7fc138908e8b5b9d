/** The header of a GGUF file of version 3, with texts as its metadata. */
import { TYPES } from './gguf.ts';
import type { StoredType } from './stored.ts';

/** What the data of every tensor begin at a multiple of: the format's own. */
export const ALIGN = 32;
const TEXT = 8;

interface GgufTensor {
  readonly name: string;
  readonly type: StoredType;
  readonly shape: readonly number[];
  readonly bytes: number;
}

/** @param tensors in the order in which their data will follow, each padded to `ALIGN` */
export function ggufHeader(
  metadata: Readonly<Record<string, string>>,
  tensors: readonly GgufTensor[],
): Uint8Array<ArrayBuffer> {
  const parts: Uint8Array[] = [];
  const u32 = (x: number): void => void parts.push(new Uint8Array(Uint32Array.of(x).buffer));
  const u64 = (x: number): void => void parts.push(new Uint8Array(BigUint64Array.of(BigInt(x)).buffer));
  const text = (x: string): void => {
    const bytes = new TextEncoder().encode(x);
    u64(bytes.length);
    parts.push(bytes);
  };
  parts.push(new TextEncoder().encode('GGUF'));
  u32(3);
  u64(tensors.length);
  u64(Object.keys(metadata).length);
  for (const [key, value] of Object.entries(metadata)) {
    text(key);
    u32(TEXT);
    text(value);
  }
  let at = 0;
  for (const { name, type, shape, bytes } of tensors) {
    text(name);
    u32(shape.length);
    for (const size of shape.toReversed()) u64(size);
    u32(Number(Object.entries(TYPES).find(([, t]) => t === type)![0]));
    u64(at);
    at += Math.ceil(bytes / ALIGN) * ALIGN;
  }
  const length = parts.reduce((sum, p) => sum + p.length, 0);
  const out = new Uint8Array(Math.ceil(length / ALIGN) * ALIGN);
  let to = 0;
  for (const part of parts) {
    out.set(part, to);
    to += part.length;
  }
  return out;
}

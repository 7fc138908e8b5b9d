/** Text that people bring: UTF-8, or UTF-16 by its mark. Anything else is refused, never read as rubbish. */
import { readFileSync } from 'node:fs';
import { standIn } from '../../model/files/standin.ts';

const MARKS: readonly { begins: readonly number[]; encoding?: 'utf-8' | 'utf-16le' | 'utf-16be' }[] = [
  { begins: [0xff, 0xfe, 0, 0] }, // UTF-32
  { begins: [0xef, 0xbb, 0xbf], encoding: 'utf-8' },
  { begins: [0xff, 0xfe], encoding: 'utf-16le' },
  { begins: [0xfe, 0xff], encoding: 'utf-16be' },
];

/** Where text stops being UTF-8: the line, and the byte. */
function firstBad(bytes: Uint8Array): string {
  const before = new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes);
  for (let i = before.indexOf('\ufffd'); i >= 0; i = before.indexOf('\ufffd', i + 1)) {
    const at = new TextEncoder().encode(before.slice(0, i)).length;
    if (bytes[at] === 0xef && bytes[at + 1] === 0xbf && bytes[at + 2] === 0xbd) continue; // it stands there rightly
    const line = before.slice(0, i).split('\n').length;
    return `byte 0x${bytes[at]!.toString(16).padStart(2, '0')} in line ${line}`;
  }
  return 'its end';
}

/** Bytes as text, without a mark of their order. @throws why they are none */
export function decodeText(bytes: Uint8Array): string {
  const { begins, encoding } = MARKS.find((m) => m.begins.every((byte, i) => bytes[i] === byte)) ?? {
    begins: [],
    encoding: 'utf-8' as const,
  };
  const remedy = 'save it as UTF-8';
  if (!encoding) throw new Error(`is UTF-32: ${remedy}`);
  let text: string;
  try {
    text = new TextDecoder(encoding, { fatal: true, ignoreBOM: true }).decode(bytes.subarray(begins.length));
  } catch (error) {
    const found = encoding === 'utf-8' ? `is not UTF-8 (${firstBad(bytes)})` : `is damaged ${encoding.toUpperCase()}`;
    throw new Error(`${found}: ${remedy}`, { cause: error });
  }
  const other = standIn(text);
  if (other !== undefined) throw new Error(other);
  if (text.includes('\0')) throw new Error(`holds zero bytes, as UTF-16 without its mark does: ${remedy}`);
  return text;
}

/** A file as text. @throws one line, `path: why` */
export function readText(path: string): string {
  try {
    return decodeText(readFileSync(path));
  } catch (error) {
    const missing = (error as NodeJS.ErrnoException).code === 'ENOENT';
    throw new Error(`${path}: ${missing ? 'there is no such file' : (error as Error).message}`, { cause: error });
  }
}

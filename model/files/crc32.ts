/** Checksums of zip archives, followed as their bytes are read. */
import { nativeCrc32 } from '../../engine/host/files.ts';
import { quoted } from './json.ts';

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  return crc;
});

/** CRC-32 as zip has it, without the runtime's help: before 22.2 Node has none. @param crc of the bytes before these */
export function crc32Of(bytes: Uint8Array, crc = 0): number {
  let c = ~crc;
  for (let i = 0; i < bytes.length; i++) c = TABLE[(c ^ bytes[i]!) & 255]! ^ (c >>> 8);
  return ~c >>> 0;
}

const crc32 = nativeCrc32 ?? crc32Of;

/**
 * The bytes `start` to `start + length` of a file: their checksum follows reads in order, and
 * is compared where these reach the end; other reads are not checked.
 */
export class Checksum {
  private readonly name: string;
  private readonly start: number;
  private readonly length: number;
  private readonly expected: number;
  private done = 0;
  private crc = 0;

  /** @param expected 0 where the writer left it out */
  constructor(name: string, start: number, length: number, expected: number) {
    [this.name, this.start, this.length, this.expected] = [name, start, length, expected];
  }

  /** @param position of the first byte in the file @throws why the bytes are not those that were written */
  follow(position: number, bytes: Uint8Array): void {
    if (position === this.start) [this.done, this.crc] = [0, 0];
    if (!this.expected || position !== this.start + this.done) return;
    this.crc = crc32(bytes, this.crc);
    this.done += bytes.length;
    if (this.done === this.length && this.crc !== this.expected) {
      throw new Error(
        `${quoted(this.name)} is damaged: its checksum is ${this.crc.toString(16)}, the archive has ${this.expected.toString(16)}; get the file anew`,
      );
    }
  }
}

/** Damage to files: flipped bits, cut and doubled parts, numbers and signs that formats stumble over, and nests without end. */
import { Buffer } from 'node:buffer';

/** Numbers and signs that formats stumble over. */
const PIECES = [
  '-1',
  '0',
  '9007199254740993',
  '1e400',
  '[]',
  '{}',
  '"',
  ',',
  'null',
  '\xff\xff\xff\xff',
  '\x00\x00\x00\x00',
  '\xff\xff\xff\xff\xff\xff\xff\x7f',
  '(',
  't',
  'R',
  'b',
  'Q',
  'h\x00',
  '\x93',
  '}',
  ']',
  'e',
  'u',
].map((p) => Buffer.from(p, 'latin1'));

/** What nests, or repeats, as often as it likes. */
const BOMBS = ['[', '{"a":', '(', ']', '}', '0,', '"x",', '\\', '\x00'];

/** One to three hurts. */
export function mutate(original: Buffer, random: (n: number) => number): Buffer {
  let bytes = Buffer.from(original);
  for (let n = 1 + random(3); n > 0; n--) {
    const at = random(bytes.length + 1),
      piece = PIECES[random(PIECES.length)]!;
    const kind = random(6);
    if (kind === 0 && at < bytes.length) bytes[at] = random(256);
    else if (kind === 1 && at < bytes.length) bytes[at]! ^= 1 << random(8);
    else if (kind === 2 && random(12) === 0) {
      const bomb = Buffer.from(BOMBS[random(BOMBS.length)]!.repeat(10 ** (1 + random(5))), 'latin1');
      bytes = Buffer.concat([bytes.subarray(0, at), bomb, bytes.subarray(at)]);
    } else if (kind === 2) bytes = Buffer.concat([bytes.subarray(0, at), piece, bytes.subarray(at)]);
    else if (kind === 3) piece.copy(bytes, at);
    else if (kind === 4) bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + random(9))]);
    else
      bytes = random(4)
        ? Buffer.concat([bytes.subarray(0, at), bytes.subarray(random(at + 1))])
        : bytes.subarray(0, at);
  }
  return bytes;
}

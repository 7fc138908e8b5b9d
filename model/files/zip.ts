/**
 * The directory of a zip archive whose members are stored, not compressed, as PyTorch writes it; zip64 included.
 *
 * Format: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT §4.3
 */
import { Checksum } from './crc32.ts';
import { decodeUtf8, type DataFile } from './stored.ts';
import { quoted } from './json.ts';

/** Where a member's bytes stand. */
export interface Member {
  readonly start: number;
  readonly length: number;
  readonly checksum: Checksum;
}

const END = { signature: 0x06054b50, bytes: 22 };
const END64_LOCATOR = { signature: 0x07064b50, bytes: 20 };
const END64 = { signature: 0x06064b50, bytes: 56 };
const ENTRY = { signature: 0x02014b50, bytes: 46 };
const LOCAL = { signature: 0x04034b50, bytes: 30 };
const LONGEST_COMMENT = 0xffff;
const MAX_DIRECTORY = 16e6; // bytes
const MAX_MEMBERS = 100_000; // each is looked at
const ZIP64 = { tag: 1, word: 0xffffffff, half: 0xffff };

interface Directory {
  start: number;
  length: number;
  count: number;
}

const view = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

function u64(data: DataView, at: number): number {
  const value = data.getBigUint64(at, true);
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw new Error(`says ${value} where a place in the file should stand`);
  return Number(value);
}

/** The record at the end of the file says where the directory is; a zip64 record before it overrules fields that are too small. */
async function findDirectory(file: DataFile): Promise<Directory> {
  const length = Math.min(file.size, END.bytes + LONGEST_COMMENT);
  const tail = view(await file.read(file.size - length, length));
  let at = length - END.bytes;
  while (
    at >= 0 &&
    !(tail.getUint32(at, true) === END.signature && at + END.bytes + tail.getUint16(at + 20, true) === length)
  )
    at--;
  if (at < 0) throw new Error('is no whole zip archive: its directory is not at the end');
  const directory: Directory = {
    count: tail.getUint16(at + 10, true),
    length: tail.getUint32(at + 12, true),
    start: tail.getUint32(at + 16, true),
  };
  let end = file.size - length + at;
  if (directory.count === ZIP64.half || directory.length === ZIP64.word || directory.start === ZIP64.word) {
    if (end < END64_LOCATOR.bytes) throw new Error('has no zip64 record where its directory needs one');
    const locator = view(await file.read(end - END64_LOCATOR.bytes, END64_LOCATOR.bytes));
    if (locator.getUint32(0, true) !== END64_LOCATOR.signature)
      throw new Error('has no zip64 record where its directory needs one');
    end = u64(locator, 8);
    const record = view(await file.read(end, END64.bytes));
    if (record.getUint32(0, true) !== END64.signature) throw new Error(`has no zip64 record at byte ${end}`);
    Object.assign(directory, { count: u64(record, 32), length: u64(record, 40), start: u64(record, 48) });
  }
  if (directory.start + directory.length > end)
    throw new Error(
      `says its directory has bytes ${directory.start} to ${directory.start + directory.length}, it ends at ${end}`,
    );
  if (directory.count > MAX_MEMBERS)
    throw new Error(`says it has ${directory.count} members, ${MAX_MEMBERS} are allowed`);
  if (directory.length > MAX_DIRECTORY)
    throw new Error(`says its directory has ${directory.length} bytes, ${MAX_DIRECTORY} are allowed`);
  return directory;
}

interface Listed {
  name: string;
  nameBytes: Uint8Array;
  header: number;
  length: number;
  crc: number;
}

/** Zip64 keeps those of size, compressed size and header place that do not fit, in this order. */
function wide(extra: DataView, fields: readonly [size: number, compressed: number, header: number]): readonly number[] {
  if (fields.every((f) => f !== ZIP64.word)) return fields;
  for (let at = 0; at + 4 <= extra.byteLength; at += 4 + extra.getUint16(at + 2, true)) {
    if (extra.getUint16(at, true) !== ZIP64.tag) continue;
    const end = at + 4 + extra.getUint16(at + 2, true);
    let next = at + 4;
    return fields.map((f) => {
      if (f !== ZIP64.word) return f;
      if (next + 8 > Math.min(end, extra.byteLength)) throw new Error('has a zip64 field that is too short');
      next += 8;
      return u64(extra, next - 8);
    });
  }
  throw new Error('has no zip64 field where a size needs one');
}

function parseDirectory(bytes: Uint8Array, count: number): Listed[] {
  const data = view(bytes);
  const members: Listed[] = [];
  let at = 0;
  for (let i = 0; i < count; i++) {
    if (at + ENTRY.bytes > bytes.length || data.getUint32(at, true) !== ENTRY.signature)
      throw new Error(`its directory has ${i} members, ${count} are announced`);
    const [flags, method] = [data.getUint16(at + 8, true), data.getUint16(at + 10, true)];
    const [nameLength, extraLength, commentLength] = [28, 30, 32].map((o) => data.getUint16(at + o, true)) as [
      number,
      number,
      number,
    ];
    const rest = at + ENTRY.bytes;
    at = rest + nameLength + extraLength + commentLength;
    if (at > bytes.length) throw new Error("its directory ends inside a member's entry");
    const nameBytes = bytes.subarray(rest, rest + nameLength);
    const name = decodeUtf8(nameBytes);
    if (flags & 1) throw new Error(`member ${quoted(name)} is encrypted`);
    if (method)
      throw new Error(
        `member ${quoted(name)} is compressed (method ${method}); PyTorch stores its members as they are`,
      );
    const head = rest - ENTRY.bytes;
    const extra = view(bytes.subarray(rest + nameLength, rest + nameLength + extraLength));
    const [size, compressed, header] = wide(extra, [
      data.getUint32(head + 24, true),
      data.getUint32(head + 20, true),
      data.getUint32(head + 42, true),
    ]) as [number, number, number];
    if (size !== compressed)
      throw new Error(`member ${quoted(name)} is stored, but says two sizes, ${compressed} and ${size}`);
    members.push({ name, nameBytes, header, length: size, crc: data.getUint32(head + 16, true) });
  }
  if (at !== bytes.length) throw new Error(`${bytes.length - at} bytes stand behind the last entry of its directory`);
  return members;
}

/** Name → place of every member. @throws when the directory is damaged or members lie outside the file or in one another */
export async function zipMembers(file: DataFile): Promise<Map<string, Member>> {
  const { start, length, count } = await findDirectory(file);
  const members = new Map<string, Member>();
  let before = { name: '', end: 0 };
  for (const { name, nameBytes, header, length: size, crc } of parseDirectory(
    await file.read(start, length),
    count,
  ).sort((a, b) => a.header - b.header)) {
    if (members.has(name)) throw new Error(`member ${quoted(name)} stands twice`);
    if (header < before.end) throw new Error(`member ${quoted(name)} begins inside ${quoted(before.name)}`);
    if (header + LOCAL.bytes + nameBytes.length > start)
      throw new Error(`member ${quoted(name)} begins at byte ${header}, the members end at ${start}`);
    const local = await file.read(header, LOCAL.bytes + nameBytes.length);
    const fields = view(local);
    const begin = header + LOCAL.bytes + nameBytes.length + fields.getUint16(28, true);
    const same =
      fields.getUint32(0, true) === LOCAL.signature &&
      fields.getUint16(26, true) === nameBytes.length &&
      nameBytes.every((byte, i) => local[LOCAL.bytes + i] === byte);
    if (!same) throw new Error(`member ${quoted(name)} is not at byte ${header}, where the directory has it`);
    if (begin + size > start)
      throw new Error(`member ${quoted(name)} ends at byte ${begin + size}, the members end at ${start}`);
    members.set(name, { start: begin, length: size, checksum: new Checksum(name, begin, size, crc) });
    before = { name, end: begin + size };
  }
  return members;
}

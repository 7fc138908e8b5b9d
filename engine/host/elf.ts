/** Reads what a shared library is called and what it needs, so that libraries can be loaded in an order that works anywhere. */

export interface Library {
  soname?: string;
  needed: string[];
}

const PT_LOAD = 1,
  PT_DYNAMIC = 2;
const DT_NULL = 0,
  DT_NEEDED = 1,
  DT_STRTAB = 5,
  DT_SONAME = 14;

/** Of a 64-bit little-endian ELF file (x86-64, AArch64); undefined for anything else. Layout: man 5 elf. */
export function readLibrary(file: Buffer): Library | undefined {
  if (file.length < 64 || file.toString('latin1', 0, 4) !== '\x7fELF' || file[4] !== 2 || file[5] !== 1)
    return undefined;
  const u64 = (at: number) => Number(file.readBigUInt64LE(at));
  const headers = Array.from({ length: file.readUInt16LE(56) }, (_, i) => u64(32) + i * file.readUInt16LE(54)).map(
    (at) => ({ type: file.readUInt32LE(at), offset: u64(at + 8), address: u64(at + 16), size: u64(at + 32) }),
  );
  const dynamic = headers.find((h) => h.type === PT_DYNAMIC);
  if (!dynamic) return undefined;
  const entries: [tag: number, value: number][] = [];
  for (let at = dynamic.offset; u64(at) !== DT_NULL; at += 16) entries.push([u64(at), u64(at + 8)]);
  const table = entries.find(([tag]) => tag === DT_STRTAB)?.[1] ?? 0;
  const home = headers.find((h) => h.type === PT_LOAD && h.address <= table && table < h.address + h.size);
  if (!home) return undefined;
  const text = (value: number): string => {
    const start = table - home.address + home.offset + value;
    return file.toString('latin1', start, file.indexOf(0, start));
  };
  const named = (tag: number) => entries.filter(([t]) => t === tag).map(([, value]) => text(value));
  return { soname: named(DT_SONAME)[0], needed: named(DT_NEEDED) };
}

/** Names of everything `roots` need, what is needed first coming first, roots last. Names outside `libraries` are the system's. */
export function loadOrder(libraries: ReadonlyMap<string, Library>, roots: readonly string[]): string[] {
  const order = new Set<string>();
  const visiting = new Set<string>();
  const visit = (name: string): void => {
    const library = libraries.get(name);
    if (!library || visiting.has(name)) return;
    visiting.add(name);
    library.needed.forEach(visit);
    order.add(name);
  };
  roots.forEach(visit);
  return [...order];
}

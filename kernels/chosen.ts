/** One of many registers by a number known only at run time, for CPU drivers: an array would be kept in memory, and compiles for long. */

/** names[n] as a tree of selects over the bits of `n`; their number is a power of two. */
export function chosen(names: readonly string[], n: string): string {
  if (names.length === 1) return names[0]!;
  const bit = names.length / 2;
  return `select(${chosen(names.slice(0, bit), n)}, ${chosen(names.slice(bit), n)}, (${n} & ${bit}u) != 0u)`;
}

/**
 * Stage `place`: which values live in the caller's tensors, which are results, and which are scratch of the arenas.
 *
 * A donated input is written in place when the group that makes its new value is the last to read the old one; otherwise the
 * new value waits in an arena and is copied at the end. A part that only a join reads is made in its place in the whole.
 */
import { type Group } from './fuse.ts';
import { base, bytesOf, inputOf, keyOf, sizeOf, typeOf, type Value } from '../frontend/graph.ts';

export interface Output {
  value: Value;
  /** Number of the donated input that this result replaces. */
  into?: number;
}

export type Place =
  | { kind: 'arena' }
  | { kind: 'output'; index: number }
  /** From byte `offset` of an input, or of a whole that is joined from its parts. */
  | { kind: 'input'; index: number; offset: number }
  | { kind: 'part'; whole: Value; offset: number };

export interface Placement {
  /** Where each materialised value lives, by key. */
  places: Map<string, Place>;
  /** Key of a written value → the leaf that it overwrites within one pointwise kernel. */
  inPlace: Map<string, Value>;
  /** After the last kernel: value → donated input or output number. */
  copies: { from: Value; to: Place }[];
}

export function place(groups: readonly Group[], outputs: readonly Output[]): Placement {
  const places = new Map<string, Place>();
  const inPlace = new Map<string, Value>();
  const copies: Placement['copies'] = [];
  const lastRead = new Map<number, number>();
  const madeAt = new Map<string, number>();
  const inputs = new Map<number, Value>();
  groups.forEach((g, at) => {
    for (const v of g.leaves) {
      const from = inputOf(v);
      if (!from) continue;
      lastRead.set(from.index, at);
      if (v.node.op === 'input') inputs.set(from.index, v);
      places.set(keyOf(v), { kind: 'input', ...from });
    }
    for (const r of g.roots) {
      madeAt.set(keyOf(r), at);
      places.set(keyOf(r), { kind: 'arena' });
    }
  });
  /** Whether the group that makes `v` may write it over donated input `into`. */
  const writable = (v: Value, into: number, at: number): boolean => {
    const group = groups[at]!;
    const last = lastRead.get(into) ?? -1;
    if (group.kind === 'join') return false; // its parts are written before it
    if (last < at) return true;
    const elsewhere = (leaf: Value): boolean => inputOf(leaf)?.index === into && leaf.node.op !== 'input';
    if (last > at || !group.flat || group.leaves.some(elsewhere)) return false;
    const old = inputs.get(into)!;
    return sizeOf(typeOf(old)) === sizeOf(typeOf(v)) && ![...inPlace.values()].includes(old);
  };
  outputs.forEach(({ value, into }, index) => {
    const v = base(value);
    const key = keyOf(v);
    const target: Place = into === undefined ? { kind: 'output', index } : { kind: 'input', index: into, offset: 0 };
    if (v.node.op === 'input' && into === inputOf(v)!.index) return;
    const at = madeAt.get(key)!;
    const taken = places.get(key)!.kind !== 'arena';
    if (taken || !(into === undefined || writable(v, into, at))) {
      copies.push({ from: v, to: target });
      return;
    }
    places.set(key, target);
    if (into !== undefined && lastRead.get(into) === at) inPlace.set(key, inputs.get(into)!);
  });
  placeParts(groups, outputs, places);
  return { places, inPlace, copies };
}

/** Parts that nothing but one join reads, once. */
function placeParts(groups: readonly Group[], outputs: readonly Output[], places: Map<string, Place>): void {
  const reads = new Map<string, number>();
  const count = (v: Value): void => void reads.set(keyOf(v), (reads.get(keyOf(v)) ?? 0) + 1);
  for (const g of groups) (g.kind === 'join' ? g.node.inputs.map(base) : g.leaves).forEach(count);
  for (const { value } of outputs) count(base(value));
  for (const {
    kind,
    node,
    roots: [whole],
  } of groups) {
    if (kind !== 'join') continue;
    let offset = 0;
    for (const part of node.inputs.map(base)) {
      if (reads.get(keyOf(part)) === 1 && places.get(keyOf(part))!.kind === 'arena')
        places.set(keyOf(part), { kind: 'part', whole: whole!, offset });
      offset += bytesOf(typeOf(part));
    }
  }
}

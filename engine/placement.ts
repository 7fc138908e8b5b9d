/**
 * Stage `place`: which values live in the caller's tensors, which are results, and which are scratch of the arenas.
 *
 * A donated input is written in place when the group that makes its new value is the last to read the old one; otherwise the
 * new value waits in an arena and is copied at the end.
 */
import { type Group } from './fuse.ts';
import { base, keyOf, sizeOf, typeOf, type Node, type Value } from './graph.ts';

export interface Output {
  value: Value;
  /** Number of the donated input that this result replaces. */
  into?: number;
}

export type Place = { kind: 'input'; index: number } | { kind: 'output'; index: number } | { kind: 'arena' };

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
      if (v.node.op !== 'input') continue;
      const { index } = (v.node as Node<'input'>).attrs;
      lastRead.set(index, at);
      inputs.set(index, v);
      places.set(keyOf(v), { kind: 'input', index });
    }
    for (const r of g.roots) {
      madeAt.set(keyOf(r), at);
      places.set(keyOf(r), { kind: 'arena' });
    }
  });
  outputs.forEach(({ value, into }, index) => {
    const v = base(value);
    const key = keyOf(v);
    const target: Place = into === undefined ? { kind: 'output', index } : { kind: 'input', index: into };
    if (v.node.op === 'input' && into === (v.node as Node<'input'>).attrs.index) return;
    const at = madeAt.get(key)!;
    const taken = places.get(key)!.kind !== 'arena';
    if (taken || !(into === undefined || writable(groups[at]!, v, into, at, lastRead, inputs, inPlace))) {
      copies.push({ from: v, to: target });
      return;
    }
    places.set(key, target);
    if (into !== undefined && lastRead.get(into) === at) inPlace.set(key, inputs.get(into)!);
  });
  return { places, inPlace, copies };
}

function writable(
  group: Group, v: Value, into: number, at: number,
  lastRead: ReadonlyMap<number, number>, inputs: ReadonlyMap<number, Value>, inPlace: ReadonlyMap<string, Value>,
): boolean {
  const last = lastRead.get(into) ?? -1;
  if (last < at) return true;
  if (last > at || !group.flat) return false;
  const old = inputs.get(into)!;
  return sizeOf(typeOf(old)) === sizeOf(typeOf(v)) && ![...inPlace.values()].includes(old);
}

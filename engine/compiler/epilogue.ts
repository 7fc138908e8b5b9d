/**
 * Part of stage `fuse`: the first pointwise group that reads a product becomes the product's epilogue, so that bias, activation,
 * modulation, gate and residual cost no pass over memory. A product that others read too, as a gradient does, is written beside it.
 */
import type { Bindings, Group } from './fuse.ts';
import { keyOf, POINTWISE, sizeOf, typeOf, type OpAttrs, type Value } from '../frontend/graph.ts';
import { opOf } from '../frontend/ops/index.ts';
import { swapsPairs, vectorize } from './vectorize.ts';

/** Less than the step from one group to the next, however often it is added. */
const BEHIND = 1e-6;

export interface FusedEpilogue {
  /** The product that the epilogue takes from a register. */
  product: Value;
  root: Value;
  /** What else it reads. */
  leaves: Value[];
  /** Someone else reads the product, which is therefore written too: the host's second root. */
  kept: boolean;
}

/** `pinned`: keys of values that must be written because they are results. */
export function fuseEpilogues(
  groups: readonly Group[],
  pinned: ReadonlySet<string>,
  maxBuffers: number,
  bindings: Bindings,
): Group[] {
  const readers = new Map<string, Group[]>();
  const maker = new Map<string, Group>();
  /** Place in the schedule; a host that waits for its epilogue's operands stands right behind the last of them. */
  const order = new Map<Group, number>();
  groups.forEach((g, i) => {
    order.set(g, i);
    for (const v of g.leaves) (readers.get(keyOf(v)) ?? readers.set(keyOf(v), []).get(keyOf(v))!).push(g);
    for (const r of g.roots) maker.set(keyOf(r), g);
  });
  for (const g of groups) {
    if (g.kind !== 'pointwise') continue;
    const root = g.roots[0]!;
    for (const product of g.leaves) {
      const host = maker.get(keyOf(product));
      if (!host || host.epilogue) continue;
      const { epilogue } = opOf(host.node.op).traits;
      if (epilogue === 'none') continue;
      if (
        sizeOf(typeOf(product)) !== sizeOf(typeOf(root)) ||
        !elementwise(root, product, g.leaves, epilogue === 'rows')
      )
        continue;
      const leaves = g.leaves.filter((v) => v !== product);
      const last = Math.max(...leaves.map((v) => order.get(maker.get(keyOf(v))!) ?? -1));
      const others = readers.get(keyOf(product))!.filter((reader) => reader !== g);
      if (others.some((reader) => order.get(reader)! <= last)) continue;
      const operands = new Set(host.leaves.map(keyOf));
      const types = [root, ...g.leaves].map((v) => typeOf(v).dtype);
      if (leaves.some((v) => operands.has(keyOf(v))) || types.some((t) => t !== 'f32')) continue;
      if (bindings([...host.leaves, ...leaves, root, product]) + 1 > maxBuffers) continue; // operands, epilogue, outputs, and scratch of a split
      if (typeOf(product).shape.at(-1)! % 4 === 0 && !vectorize([root], new Set(g.leaves.map(keyOf)))) continue;
      const kept = others.length > 0 || pinned.has(keyOf(product));
      host.epilogue = { product, root, leaves, kept };
      host.roots = kept ? [root, product] : [root];
      host.leaves = [...host.leaves, ...leaves];
      for (const v of leaves) readers.set(keyOf(v), [...readers.get(keyOf(v))!.filter((reader) => reader !== g), host]);
      maker.set(keyOf(root), host);
      if (last > order.get(host)!) order.set(host, last + BEHIND);
      order.delete(g);
      break;
    }
  }
  return [...order.keys()].sort((a, b) => order.get(a)! - order.get(b)!);
}

/**
 * Element i of the root reads element i of the product and no other; with `fours` also its neighbour in a pair, as rotary embedding
 * does: families of rows whose length is a multiple of 4 always have four at hand.
 */
function elementwise(root: Value, product: Value, leaves: readonly Value[], fours: boolean): boolean {
  const pairs = fours && typeOf(product).shape.at(-1)! % 4 === 0;
  const stop = new Set(leaves.map(keyOf));
  const touches = new Map<string, boolean>();
  const reaches = (v: Value, top = false): boolean => {
    const key = keyOf(v);
    if (key === keyOf(product)) return true;
    if (!top && stop.has(key)) return false;
    const known = touches.get(key) ?? v.node.inputs.some((x) => reaches(x));
    touches.set(key, known);
    return known;
  };
  const seen = new Set<string>();
  const straight = (v: Value, top = false): boolean => {
    const key = keyOf(v);
    if (key === keyOf(product) || seen.has(key) || (!top && stop.has(key)) || !reaches(v, top)) return true;
    seen.add(key);
    const { op, attrs } = v.node;
    const swaps = pairs && op === 'flip' && swapsPairs((attrs as OpAttrs['flip']).axes, typeOf(v).shape);
    const moves = !POINTWISE.has(op) && op !== 'reshape' && op !== 'detach' && !swaps;
    return !moves && v.node.inputs.every((x) => straight(x));
  };
  return straight(root, true);
}

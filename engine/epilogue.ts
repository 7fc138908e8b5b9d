/**
 * Part of stage `fuse`: the first pointwise group that reads a product becomes the product's epilogue, so that bias, activation,
 * modulation, gate and residual cost no pass over memory. A product that others read too, as a gradient does, is written beside it.
 */
import { type Group } from './fuse.ts';
import { keyOf, sizeOf, typeOf, type OpName, type Value } from './graph.ts';
import { vectorize } from './vectorize.ts';

/** Families that call an epilogue before they store. */
const HOSTS = new Set<OpName>(['matmul', 'conv3d', 'conv3dInput', 'softmax', 'layerNorm', 'layerNormGrad', 'rmsNorm', 'rmsNormGrad']);

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
export function fuseEpilogues(groups: readonly Group[], pinned: ReadonlySet<string>, maxBuffers: number): Group[] {
  const readers = new Map<string, Group[]>();
  const maker = new Map<string, Group>();
  for (const g of groups) {
    for (const v of g.leaves) (readers.get(keyOf(v)) ?? readers.set(keyOf(v), []).get(keyOf(v))!).push(g);
    for (const r of g.roots) maker.set(keyOf(r), g);
  }
  const taken = new Set<Group>();
  const out = groups.map((g) => {
    if (g.kind !== 'pointwise') return g;
    const root = g.roots[0]!;
    for (const product of g.leaves) {
      const host = maker.get(keyOf(product));
      if (!host || taken.has(host) || !HOSTS.has(host.node.op) || readers.get(keyOf(product))![0] !== g) continue;
      if (sizeOf(typeOf(product)) !== sizeOf(typeOf(root)) || !elementwise(root, product, g.leaves)) continue;
      const leaves = g.leaves.filter((v) => v !== product);
      const operands = new Set(host.leaves.map(keyOf));
      const types = [root, ...g.leaves].map((v) => typeOf(v).dtype);
      if (leaves.some((v) => operands.has(keyOf(v))) || types.some((t) => t !== 'f32')) continue;
      if (host.leaves.length + leaves.length + 3 > maxBuffers) continue; // operands, epilogue, outputs, and scratch of a split
      if (typeOf(product).shape.at(-1)! % 4 === 0 && !vectorize([root], new Set(g.leaves.map(keyOf)))) continue;
      taken.add(host);
      const kept = pinned.has(keyOf(product)) || readers.get(keyOf(product))!.length > 1;
      return { ...host, roots: kept ? [root, product] : [root], leaves: [...host.leaves, ...leaves], epilogue: { product, root, leaves, kept } };
    }
    return g;
  });
  return out.filter((g) => !taken.has(g));
}

/** Element i of the root reads element i of the product and no other. */
function elementwise(root: Value, product: Value, leaves: readonly Value[]): boolean {
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
    const moves = ['permute', 'expand', 'slice', 'pad', 'flip', 'concat'].includes(v.node.op);
    return !moves && v.node.inputs.every((x) => straight(x));
  };
  return straight(root, true);
}

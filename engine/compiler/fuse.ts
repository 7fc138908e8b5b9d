/**
 * Stage `fuse`: graph → groups, each of which becomes one launch.
 *
 * Anchors (matmul, conv, attention, norms, …) always write their result. Pointwise and view nodes write only when someone
 * needs the bytes: an anchor's operand, an output, a value too expensive to compute twice. Every other one is inlined where it
 * is read, views as index arithmetic, so no copy is made for a permute, slice, pad or concat. Reductions inline their input.
 */
import { fuseEpilogues, type FusedEpilogue } from './epilogue.ts';
import {
  base,
  INLINE,
  inputOf,
  isJoin,
  keyOf,
  POINTWISE,
  REDUCTIONS,
  sizeOf,
  typeOf,
  VIEWS,
  type Graph,
  type Node,
  type Value,
} from '../frontend/graph.ts';
import { opOf } from '../frontend/ops/index.ts';

export interface Group {
  /** `join`: its leaves are made in their places in the root; see placement.ts. */
  kind: 'pointwise' | 'reduce' | 'anchor' | 'join';
  /** The anchor or reduction; the first root's node for a pointwise group. */
  node: Node;
  /** What the group writes. */
  roots: Value[];
  /** Materialised values it reads, without duplicates, in order of first use. */
  leaves: Value[];
  /** Every element i of every root depends on element i of same-sized leaves and on scalars only. */
  flat: boolean;
  /** Pointwise code that the anchor runs before it stores; `roots` is then the epilogue's. */
  epilogue?: FusedEpilogue;
}

/** Leaves and nodes at which an expression is cut (CPU drivers compile long shaders slowly), and the loads worth repeating. */
const MAX_LEAVES = 8;
const MAX_NODES = 48;
const REPEATABLE_LEAVES = 2;

interface Expr {
  leaves: Map<string, Value>;
  /** Ids of the nodes it computes. */
  nodes: Set<number>;
  /** It computes a transcendental function. */
  expensive: boolean;
  /** Views whose index arithmetic costs more than a load. */
  scattered: number;
}

/** How many bindings these values take together. */
export type Bindings = (values: Iterable<Value>) => number;

/** @param windows bindings that a value takes: more than one where it is over the binding limit */
export function fuse(
  graph: Graph,
  outputs: readonly Value[],
  maxBuffers: number,
  fusing = true,
  windows: (v: Value) => number = () => 1,
): Group[] {
  const bindings: Bindings = (values) => [...values].reduce((sum, v) => sum + windows(v), 0);
  const maxLeaves = Math.max(2, Math.min(MAX_LEAVES, maxBuffers - 2));
  const materialised = new Set<string>();
  const users = new Map<string, Set<Node>>(); // of a value under any of its names
  for (const n of graph.nodes) {
    if (n.op === 'reshape' || n.op === 'detach') continue;
    for (const v of n.inputs) {
      const k = keyOf(base(v));
      (users.get(k) ?? users.set(k, new Set()).get(k)!).add(n);
    }
  }
  const force = (v: Value): void => void materialised.add(keyOf(base(v)));
  for (const n of graph.nodes) {
    if (!INLINE.has(n.op) || isJoin(n) || inputOf({ node: n, out: 0 }))
      n.outs.forEach((_, out) => materialised.add(keyOf({ node: n, out })));
    if ((!INLINE.has(n.op) && !REDUCTIONS.has(n.op)) || isJoin(n)) n.inputs.forEach(force);
    if (!fusing && !VIEWS.has(n.op) && n.op !== 'const') force({ node: n, out: 0 });
  }
  outputs.forEach(force);
  const ends = endsOf(graph, users, materialised);

  const exprs = new Map<number, Expr>();
  const read = (v: Value): Expr => {
    const whole = base(v);
    return materialised.has(keyOf(whole))
      ? { leaves: new Map([[keyOf(whole), whole]]), nodes: new Set(), expensive: false, scattered: 0 }
      : exprs.get(v.node.id)!;
  };
  const own = (n: Node): Expr => {
    const { cost, scattered } = opOf(n.op).traits;
    const e: Expr = {
      leaves: new Map(),
      nodes: new Set(cost === 'free' ? [] : [n.id]),
      expensive: cost === 'expensive',
      scattered: scattered ? 1 : 0,
    };
    for (const v of n.inputs) {
      const r = read(v);
      for (const [k, leaf] of r.leaves) e.leaves.set(k, leaf);
      for (const id of r.nodes) e.nodes.add(id);
      e.expensive ||= r.expensive;
      e.scattered += r.scattered;
    }
    return e;
  };

  for (const n of graph.nodes) {
    if (!INLINE.has(n.op) && !REDUCTIONS.has(n.op)) continue;
    if (n.op === 'expand') {
      const source = base(n.inputs[0]!);
      const e = read(source);
      const factor = sizeOf(n.outs[0]!) / sizeOf(typeOf(source));
      const computed = !VIEWS.has(source.node.op) && (e.expensive || e.leaves.size > REPEATABLE_LEAVES);
      if ((factor >= 8 && computed) || (factor >= 2 && e.scattered > 1)) force(source);
    }
    let e = own(n);
    for (;;) {
      const crowded = bindings(e.leaves.values()) + windows({ node: n, out: 0 }) > maxLeaves + 1;
      if (!crowded && e.nodes.size <= MAX_NODES) break;
      const [widest] = n.inputs
        .map(base)
        .filter((v) => !materialised.has(keyOf(v)) && v.node.op !== 'const')
        .map((v) => ({ v, nodes: read(v).nodes.size, taken: bindings(read(v).leaves.values()), own: windows(v) }))
        .filter(({ taken, own, nodes }) => (crowded ? taken > own : nodes > 0)) // else it would be written for nothing
        .sort((a, b) => b.taken - b.own - (a.taken - a.own) || b.nodes - a.nodes);
      if (!widest) break;
      force(widest.v);
      e = own(n);
    }
    exprs.set(n.id, e);
    const value = { node: n, out: 0 };
    const many = (users.get(keyOf(value))?.size ?? 0) > 1 && ends.get(n.id)!.size > 1;
    const large = e.leaves.size > REPEATABLE_LEAVES || e.nodes.size > 16 || e.scattered > 1;
    if (opOf(n.op).traits.cost !== 'free' && !REDUCTIONS.has(n.op) && many && large) materialised.add(keyOf(value));
  }

  const groups: Group[] = [];
  const nodesOf = new Map<Group, Set<number>>();
  for (const n of graph.nodes) {
    if (inputOf({ node: n, out: 0 })) continue;
    if (REDUCTIONS.has(n.op)) {
      groups.push({
        kind: 'reduce',
        node: n,
        roots: [{ node: n, out: 0 }],
        leaves: [...read(n.inputs[0]!).leaves.values()],
        flat: false,
      });
    } else if (!INLINE.has(n.op) || isJoin(n)) {
      const leaves = new Map(n.inputs.map((v) => [keyOf(base(v)), base(v)]));
      groups.push({
        kind: isJoin(n) ? 'join' : 'anchor',
        node: n,
        roots: n.outs.map((_, out) => ({ node: n, out })),
        leaves: [...leaves.values()],
        flat: false,
      });
    } else if (materialised.has(`${n.id}.0`)) {
      const root = { node: n, out: 0 };
      const { leaves: read, nodes } = own(n);
      const leaves = [...read.values()];
      const flat = isFlat(root, new Set(read.keys()));
      const group: Group = { kind: 'pointwise', node: n, roots: [root], leaves, flat };
      nodesOf.set(group, nodes);
      groups.push(group);
    }
  }
  if (!fusing) return groups;
  const pinned = new Set(outputs.map((v) => keyOf(base(v))));
  return mergeFlat(fuseEpilogues(groups, pinned, maxBuffers, bindings), nodesOf, pinned, maxBuffers, bindings);
}

/**
 * Which nodes make something of a value, two of them at most: those that write what is computed from it element by element, and views,
 * which read other elements. What has one end is computed once, however many readers it has on the way.
 */
function endsOf(
  graph: Graph,
  users: ReadonlyMap<string, ReadonlySet<Node>>,
  materialised: ReadonlySet<string>,
): Map<number, Set<number>> {
  const ends = new Map<number, Set<number>>();
  for (const n of graph.nodes.toReversed()) {
    const own = new Set<number>();
    ends.set(n.id, own);
    if (!POINTWISE.has(n.op) || materialised.has(keyOf({ node: n, out: 0 }))) own.add(n.id);
    else
      for (const u of users.get(keyOf({ node: n, out: 0 })) ?? []) {
        for (const end of ends.get(u.id)!) own.add(end);
        if (own.size > 1) break;
      }
  }
  return ends;
}

function isFlat(root: Value, leaves: ReadonlySet<string>): boolean {
  const size = sizeOf(typeOf(root));
  const seen = new Set<string>();
  const visit = (v: Value, top: boolean): boolean => {
    const k = keyOf(v);
    if (seen.has(k)) return true;
    seen.add(k);
    const n = sizeOf(typeOf(v));
    if (!top && leaves.has(k)) return n === size || n === 1;
    if (n !== size && n !== 1) return false;
    const { op } = v.node;
    if (
      VIEWS.has(op) &&
      op !== 'reshape' &&
      op !== 'detach' &&
      !(op === 'expand' && sizeOf(typeOf(v.node.inputs[0]!)) === 1)
    )
      return false;
    if (op === 'iota') return false;
    return v.node.inputs.every((x) => visit(x, false));
  };
  return visit(root, true);
}

/**
 * Flat groups of one size that share an operand become one kernel with several outputs: an AdamW update with its EMA reads
 * each tensor once, as long as the cut holds. A group may move up to an earlier one if everything else it reads
 * is written before that. What only its own kernel reads then stays in a register.
 */
function mergeFlat(
  groups: readonly Group[],
  nodesOf: ReadonlyMap<Group, Set<number>>,
  pinned: ReadonlySet<string>,
  maxBuffers: number,
  bindings: Bindings,
): Group[] {
  const readers = new Map<string, Group[]>();
  for (const g of groups)
    for (const v of g.leaves) (readers.get(keyOf(v)) ?? readers.set(keyOf(v), []).get(keyOf(v))!).push(g);
  const out: Group[] = [];
  const members = new Map<Group, Set<Group>>();
  const writtenAt = new Map<string, number>();
  const latest = new Map<number, number[]>();
  /** Values that a kernel must write when it takes the place of these groups. */
  const seen = (roots: readonly Value[], inside: ReadonlySet<Group>) =>
    roots.filter((r) => pinned.has(keyOf(r)) || readers.get(keyOf(r))?.some((reader) => !inside.has(reader)));

  /** Its place in `out`. */
  const findHost = (g: Group, candidates: readonly number[]): number | undefined => {
    const size = sizeOf(typeOf(g.roots[0]!));
    const needed = Math.max(-1, ...g.leaves.map((v) => writtenAt.get(keyOf(v)) ?? -1));
    for (const at of candidates.toReversed()) {
      if (at < needed) return undefined;
      const h = out[at]!;
      const have = new Set([...h.leaves, ...h.roots].map(keyOf));
      if (!g.leaves.some((v) => have.has(keyOf(v)) && sizeOf(typeOf(v)) === size)) continue;
      if (new Set([...nodesOf.get(h)!, ...nodesOf.get(g)!]).size > MAX_NODES) continue;
      const roots = seen([...h.roots, ...g.roots], new Set([...members.get(h)!, g]));
      const leaves = new Map([...h.leaves, ...g.leaves].map((v) => [keyOf(v), v]));
      for (const r of h.roots) leaves.delete(keyOf(r));
      if (bindings(leaves.values()) + bindings(roots) <= maxBuffers - 1) return at;
    }
    return undefined;
  };

  for (const g of groups) {
    const size = sizeOf(typeOf(g.roots[0]!));
    const mergeable = g.flat && size > 1;
    const at = mergeable ? findHost(g, latest.get(size) ?? []) : undefined;
    if (at === undefined) {
      g.roots.forEach((r) => writtenAt.set(keyOf(r), out.length));
      if (mergeable) {
        const row = latest.get(size) ?? latest.set(size, []).get(size)!;
        row.push(out.length);
        if (row.length > 8) row.shift();
      }
      members.set(g, new Set([g]));
      out.push(g);
      continue;
    }
    const host = out[at]!;
    const known = new Set([...host.leaves, ...host.roots].map(keyOf));
    host.leaves.push(...g.leaves.filter((v) => !known.has(keyOf(v))));
    host.roots.push(...g.roots);
    members.get(host)!.add(g);
    for (const id of nodesOf.get(g)!) nodesOf.get(host)!.add(id);
    g.roots.forEach((r) => writtenAt.set(keyOf(r), at));
  }
  for (const g of out) {
    if (g.roots.length === 1 || g.kind !== 'pointwise') continue;
    g.roots = seen(g.roots, members.get(g)!);
    const needed = readBy(g);
    g.leaves = g.leaves.filter((v) => needed.has(keyOf(v)));
  }
  return out;
}

/** Keys of the leaves that the roots are computed from: what one group had inlined, another may have brought along as a leaf. */
function readBy({ roots, leaves }: Group): Set<string> {
  const ends = new Set(leaves.map(keyOf));
  const seen = new Set<string>();
  const visit = (v: Value): void => {
    const k = keyOf(v);
    if (seen.has(k)) return;
    seen.add(k);
    if (!ends.has(k)) v.node.inputs.forEach(visit);
  };
  for (const root of roots) root.node.inputs.forEach(visit);
  return seen;
}

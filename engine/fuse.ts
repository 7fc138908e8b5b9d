/**
 * Stage `fuse`: graph → groups, each of which becomes one launch.
 *
 * Anchors (matmul, conv, attention, norms, …) always write their result. Pointwise and view nodes write only when someone
 * needs the bytes: an anchor's operand, an output, a value too dear to compute twice. Every other one is inlined where it
 * is read, views as index arithmetic, so no copy is made for a permute, slice, pad or concat. Reductions inline their input.
 */
import { fuseEpilogues, type FusedEpilogue } from './epilogue.ts';
import { base, INLINE, keyOf, REDUCTIONS, sizeOf, typeOf, VIEWS, type Graph, type Node, type OpName, type Value } from './graph.ts';

export interface Group {
  kind: 'pointwise' | 'reduce' | 'anchor';
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

const TANGLED = new Set<OpName>(['permute', 'pad', 'flip', 'concat']);
const DEAR = new Set<OpName>(['exp', 'log', 'pow', 'sin', 'cos', 'tanh', 'sigmoid', 'erf']);

/** Leaves and nodes at which an expression is cut (CPU drivers compile long shaders slowly), and the loads worth repeating. */
const MAX_LEAVES = 8;
const MAX_NODES = 48;
const REPEATABLE_LEAVES = 2;

interface Expr {
  leaves: Map<string, Value>;
  nodes: number;
  /** It computes something dear. */
  dear: boolean;
  /** Views whose index arithmetic costs more than a load. */
  tangled: number;
}

export function fuse(graph: Graph, outputs: readonly Value[], maxBuffers: number, fusing = true): Group[] {
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
    if (n.op === 'input' || !INLINE.has(n.op)) n.outs.forEach((_, out) => materialised.add(keyOf({ node: n, out })));
    if (!INLINE.has(n.op) && n.op !== 'input' && !REDUCTIONS.has(n.op)) n.inputs.forEach(force);
    if (!fusing && !VIEWS.has(n.op) && n.op !== 'const') force({ node: n, out: 0 });
  }
  outputs.forEach(force);

  const exprs = new Map<number, Expr>();
  const read = (v: Value): Expr =>
    materialised.has(keyOf(v)) ? { leaves: new Map([[keyOf(v), v]]), nodes: 0, dear: false, tangled: 0 } : exprs.get(v.node.id)!;
  const own = (n: Node): Expr => {
    const e: Expr = { leaves: new Map(), nodes: 1, dear: DEAR.has(n.op), tangled: TANGLED.has(n.op) ? 1 : 0 };
    for (const v of n.inputs) {
      const r = read(v);
      for (const [k, leaf] of r.leaves) e.leaves.set(k, leaf);
      e.nodes += r.nodes;
      e.dear ||= r.dear;
      e.tangled += r.tangled;
    }
    return e;
  };

  for (const n of graph.nodes) {
    if (!INLINE.has(n.op) && !REDUCTIONS.has(n.op)) continue;
    if (n.op === 'expand') {
      const source = base(n.inputs[0]!);
      const e = read(source);
      const factor = sizeOf(n.outs[0]!) / sizeOf(typeOf(source));
      const computed = !VIEWS.has(source.node.op) && (e.dear || e.leaves.size > REPEATABLE_LEAVES);
      if ((factor >= 8 && computed) || (factor >= 2 && e.tangled > 1)) force(source);
    }
    let e = own(n);
    while (e.leaves.size > maxLeaves || e.nodes > MAX_NODES) {
      const widest = n.inputs
        .filter((v) => !materialised.has(keyOf(base(v))) && base(v).node.op !== 'const')
        .sort((a, b) => read(base(b)).leaves.size - read(base(a)).leaves.size || read(base(b)).nodes - read(base(a)).nodes)[0];
      if (!widest) break;
      force(widest);
      e = own(n);
    }
    exprs.set(n.id, e);
    const value = { node: n, out: 0 };
    const many = (users.get(keyOf(value))?.size ?? 0) > 1;
    const dear = e.leaves.size > REPEATABLE_LEAVES || e.nodes > 16 || e.tangled > 1;
    if (n.op !== 'reshape' && n.op !== 'detach' && !REDUCTIONS.has(n.op) && many && dear) materialised.add(keyOf(value));
  }

  const groups: Group[] = [];
  for (const n of graph.nodes) {
    if (n.op === 'input') continue;
    if (REDUCTIONS.has(n.op)) {
      groups.push({ kind: 'reduce', node: n, roots: [{ node: n, out: 0 }], leaves: [...read(n.inputs[0]!).leaves.values()], flat: false });
    } else if (!INLINE.has(n.op)) {
      const leaves = new Map(n.inputs.map((v) => [keyOf(base(v)), base(v)]));
      groups.push({ kind: 'anchor', node: n, roots: n.outs.map((_, out) => ({ node: n, out })), leaves: [...leaves.values()], flat: false });
    } else if (materialised.has(`${n.id}.0`)) {
      const root = { node: n, out: 0 };
      const leaves = [...own(n).leaves.values()];
      groups.push({ kind: 'pointwise', node: n, roots: [root], leaves, flat: isFlat(root, materialised) });
    }
  }
  if (!fusing) return groups;
  return mergeFlat(fuseEpilogues(groups, new Set(outputs.map((v) => keyOf(base(v)))), maxBuffers), maxBuffers);
}

function isFlat(root: Value, materialised: ReadonlySet<string>): boolean {
  const size = sizeOf(typeOf(root));
  const seen = new Set<string>();
  const visit = (v: Value, top: boolean): boolean => {
    const k = keyOf(v);
    if (seen.has(k)) return true;
    seen.add(k);
    const n = sizeOf(typeOf(v));
    if (!top && materialised.has(k)) return n === size || n === 1;
    if (n !== size && n !== 1) return false;
    const { op } = v.node;
    if (VIEWS.has(op) && op !== 'reshape' && op !== 'detach' && !(op === 'expand' && sizeOf(typeOf(v.node.inputs[0]!)) === 1)) return false;
    if (op === 'iota') return false;
    return v.node.inputs.every((x) => visit(x, false));
  };
  return visit(root, true);
}

/**
 * Flat groups of one size that share an operand become one kernel with several outputs: an AdamW update with its EMA reads
 * each tensor once. A group may move up to an earlier one if everything else it reads is written before that.
 */
function mergeFlat(groups: readonly Group[], maxBuffers: number): Group[] {
  const out: Group[] = [];
  const writtenAt = new Map<string, number>();
  const latest = new Map<number, number[]>();
  for (const g of groups) {
    const size = sizeOf(typeOf(g.roots[0]!));
    const host = g.flat && size > 1 ? findHost(g, latest.get(size) ?? [], out, writtenAt, maxBuffers) : undefined;
    if (host === undefined) {
      g.roots.forEach((r) => writtenAt.set(keyOf(r), out.length));
      if (g.flat && size > 1) {
        const row = latest.get(size) ?? latest.set(size, []).get(size)!;
        row.push(out.length);
        if (row.length > 8) row.shift();
      }
      out.push(g);
      continue;
    }
    const h = out[host]!;
    const written = new Set(h.roots.map(keyOf));
    const known = new Set(h.leaves.map(keyOf));
    h.leaves.push(...g.leaves.filter((v) => !written.has(keyOf(v)) && !known.has(keyOf(v))));
    h.roots.push(...g.roots);
    g.roots.forEach((r) => writtenAt.set(keyOf(r), host));
  }
  return out;
}

function findHost(g: Group, candidates: readonly number[], out: readonly Group[], writtenAt: ReadonlyMap<string, number>, maxBuffers: number): number | undefined {
  const needed = Math.max(-1, ...g.leaves.map((v) => writtenAt.get(keyOf(v)) ?? -1));
  for (let c = candidates.length - 1; c >= 0; c--) {
    const at = candidates[c]!;
    if (at < needed) return undefined;
    const h = out[at]!;
    const have = new Set([...h.leaves, ...h.roots].map(keyOf));
    const size = sizeOf(typeOf(g.roots[0]!));
    const shares = g.leaves.some((v) => have.has(keyOf(v)) && sizeOf(typeOf(v)) === size);
    const fresh = g.leaves.filter((v) => !have.has(keyOf(v))).length + g.roots.length;
    if (shares && have.size + fresh <= maxBuffers - 1) return at;
  }
  return undefined;
}

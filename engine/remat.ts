/**
 * Checkpoints: a segment of the forward pass whose inner values are not kept but made again in the backward sweep, right
 * where it first needs them. Kept are the inputs of the segment, what it returns and, unless told otherwise, dear attention.
 */
import { emit, inSegment, tracing } from './tracing.ts';
import { withSite } from './errors.ts';
import { typeOf, type Node, type OpName, type Value } from './graph.ts';
import { Tensor } from './tensor.ts';
import { flatten } from './tree.ts';

/** Sources, which take no memory. */
const SOURCES: ReadonlySet<OpName> = new Set<OpName>(['input', 'const']);

/**
 * Whether repeating it costs more arithmetic a byte than repeating the linear layer that made its queries: attention over L keys
 * takes 4 L operations for a number of its output, a layer twice its width.
 */
function dear({ op, inputs }: Node): boolean {
  if (op !== 'attention') return false;
  const [, , heads, size] = typeOf(inputs[0]!).shape as [number, number, number, number];
  return 4 * typeOf(inputs[1]!).shape[1]! > 2 * heads * size;
}

/**
 * Runs `fn` with its nodes marked as one segment. Inside another checkpoint it belongs to that one.
 * @param keep which inner values stay: `attention` its output and log-sum-exp where it is dear; `nothing` costs that once more
 */
export function checkpoint<A extends unknown[], R>(fn: (...args: A) => R, keep: 'attention' | 'nothing' = 'attention'): (...args: A) => R {
  return (...args) => {
    const trace = tracing('checkpoint');
    if (trace.segment !== 0) return fn(...args);
    const first = trace.graph.nodes.length;
    const result = inSegment(++trace.segments, () => fn(...args));
    for (const leaf of flatten(result).leaves) if (leaf instanceof Tensor) trace.kept.add(leaf.value.node.id);
    if (keep === 'attention') for (const node of trace.graph.nodes.slice(first)) if (dear(node)) trace.kept.add(node.id);
    return result;
  };
}

/** How one backward sweep sees forward values: for a node of a checkpoint, inner values of it are clones made on demand. */
export class Recompute {
  private readonly clones = new Map<Node, Node>();
  private readonly segments = new Map<number, number>();

  /** The segment of clones and gradients of `node`: negative in a checkpoint, else the current one. Sweeps do not share clones. */
  segmentFor(node: Node): number {
    const trace = tracing('checkpoint');
    if (node.segment <= 0) return trace.segment;
    let segment = this.segments.get(node.segment);
    if (segment === undefined) this.segments.set(node.segment, (segment = -++trace.sweeps));
    return segment;
  }

  /** `v` as the gradient of a node of `segment` may use it. Equal expressions are one node: it may stand in another checkpoint that met it first. */
  resolve(v: Value, segment: number): Value {
    const { node } = v;
    if (segment <= 0 || node.segment <= 0 || SOURCES.has(node.op) || tracing('checkpoint').kept.has(node.id)) return v;
    let clone = this.clones.get(node);
    if (!clone) {
      const inputs = node.inputs.map((input) => this.resolve(input, segment));
      clone = inSegment(this.segmentFor(node), () => withSite(node.site, () => emit(node.op, inputs, node.attrs)[0]!.node));
      this.clones.set(node, clone);
    }
    return { node: clone, out: v.out };
  }
}

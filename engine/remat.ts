/**
 * Checkpoints: a segment of the forward pass whose inner values are not kept but made again in the backward sweep, right
 * where it first needs them. Kept are the inputs of the segment, what it returns, and attention, the dearest to repeat.
 */
import { emit, inSegment, tracing } from './tracing.ts';
import { withSite } from './errors.ts';
import type { Node, OpName, Value } from './graph.ts';
import { Tensor } from './tensor.ts';
import { flatten } from './tree.ts';

/** Values that stay in memory (attention: output and log-sum-exp), and sources that take none. */
const KEPT: ReadonlySet<OpName> = new Set<OpName>(['attention', 'input', 'const']);

/** Runs `fn` with its nodes marked as one segment. Inside another checkpoint it belongs to that one. */
export function checkpoint<A extends unknown[], R>(fn: (...args: A) => R): (...args: A) => R {
  return (...args) => {
    const trace = tracing('checkpoint');
    if (trace.segment !== 0) return fn(...args);
    const result = inSegment(++trace.segments, () => fn(...args));
    for (const leaf of flatten(result).leaves) if (leaf instanceof Tensor) trace.returned.add(leaf.value.node.id);
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

  /** `v` as the gradient of a node of `segment` may use it. */
  resolve(v: Value, segment: number): Value {
    const { node } = v;
    if (segment <= 0 || node.segment !== segment || KEPT.has(node.op) || tracing('checkpoint').returned.has(node.id)) return v;
    let clone = this.clones.get(node);
    if (!clone) {
      const inputs = node.inputs.map((input) => this.resolve(input, segment));
      clone = inSegment(this.segmentFor(node), () => withSite(node.site, () => emit(node.op, inputs, node.attrs)[0]!.node));
      this.clones.set(node, clone);
    }
    return { node: clone, out: v.out };
  }
}

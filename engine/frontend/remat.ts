/**
 * Checkpoints: a segment of the forward pass whose inner values are not kept but made again in the backward sweep, right
 * where it first needs them. Kept are the inputs of the segment, what it returns and, unless told otherwise, expensive attention.
 * Segments nest (Chen et al., arXiv 1604.06174): the inner ones' inputs are made again by running the outer one, each one's inner
 * values by running it once more.
 */
import { emit, inSegment, tracing } from './tracing.ts';
import { withSite } from '../host/errors.ts';
import { typeOf, type Node, type Value } from './graph.ts';
import { opOf } from './ops/index.ts';
import { Tensor } from './tensor.ts';
import { flatten } from './tree.ts';

/**
 * Whether repeating it costs more arithmetic a byte than repeating the linear layer that made its queries: attention over L keys
 * takes 4 L operations for a number of its output, a layer twice its width.
 */
function expensive({ op, inputs }: Node): boolean {
  if (op !== 'attention') return false;
  const [, , heads, size] = typeOf(inputs[0]!).shape as [number, number, number, number];
  return 4 * typeOf(inputs[1]!).shape[1]! > 2 * heads * size;
}

/** The segment in which a node's value stays; 0 is for good. */
const homeOf = (node: Node): number => tracing('checkpoint').kept.get(node.id) ?? node.segment;

/** Whether `segment` is `outer` or lies in it. Everything lies in 0. */
function within(segment: number, outer: number): boolean {
  const { around } = tracing('checkpoint');
  for (let s = segment; ; s = around[s]!) {
    if (s === outer) return true;
    if (s <= 0) return false;
  }
}

/**
 * Runs `fn` with its nodes marked as one segment.
 * @param keep which inner values stay: `attention` its output and log-sum-exp where it is expensive; `nothing` costs that once more
 */
export function checkpoint<A extends unknown[], R>(
  fn: (...args: A) => R,
  keep: 'attention' | 'nothing' = 'attention',
): (...args: A) => R {
  return (...args) => {
    const trace = tracing('checkpoint');
    const { segment: outer } = trace;
    const first = trace.graph.nodes.length;
    const result = inSegment(trace.around.push(outer) - 1, () => fn(...args));
    const stays = (node: Node): void => {
      if (!within(outer, homeOf(node))) trace.kept.set(node.id, outer);
    };
    for (const leaf of flatten(result).leaves) if (leaf instanceof Tensor) stays(leaf.value.node);
    if (keep === 'attention') for (const node of trace.graph.nodes.slice(first)) if (expensive(node)) stays(node);
    return result;
  };
}

/** How one backward sweep sees forward values: for a node of a checkpoint, inner values of it are clones made on demand. */
export class Recompute {
  /** Of each segment, the nodes that running it once more has made. */
  private readonly clones = new Map<number, Map<Node, Node>>();
  private readonly segments = new Map<number, number>();

  /**
   * The segment of clones and gradients of nodes of `segment`: negative in a checkpoint, else the current one. Sweeps do not share clones.
   */
  backward(segment: number): number {
    const trace = tracing('checkpoint');
    if (segment <= 0) return trace.segment;
    let own = this.segments.get(segment);
    if (own === undefined) this.segments.set(segment, (own = -++trace.sweeps));
    return own;
  }

  /**
   * `v` as the gradient of a node of `segment` may use it. Equal expressions are one
   * node: it may stand in another checkpoint that met it first.
   */
  resolve(v: Value, segment: number): Value {
    const wanted = [{ node: v.node, segment }]; // a list, not a recursion: segments may be long
    for (let top = wanted.at(-1); top; top = wanted.at(-1)) {
      const { node } = top;
      const run = runOf(node, top.segment);
      const done = !run || this.clonesOf(run).has(node);
      const missing = done ? [] : node.inputs.filter((x) => !this.resolved(x, run));
      if (done) wanted.pop();
      else if (missing.length) wanted.push(...missing.map((x) => ({ node: x.node, segment: run })).reverse());
      else this.clone(node, run);
    }
    return this.resolved(v, segment)!;
  }

  private clone(node: Node, run: number): void {
    const inputs = node.inputs.map((x) => this.resolved(x, run)!);
    const [made] = inSegment(
      this.backward(run),
      () => withSite(node.site, () => emit(node.op, inputs, node.attrs)),
      node.gradient,
    );
    this.clonesOf(run).set(node, made!.node);
  }

  /** What stands for `v`, once it is there. */
  private resolved(v: Value, segment: number): Value | undefined {
    const run = runOf(v.node, segment);
    if (!run) return v;
    const node = this.clonesOf(run).get(v.node);
    return node && { node, out: v.out };
  }

  private clonesOf(run: number): Map<Node, Node> {
    let clones = this.clones.get(run);
    if (!clones) this.clones.set(run, (clones = new Map<Node, Node>()));
    return clones;
  }
}

/** The segment that is run again for a node's value, which the gradient of a node of `segment` uses; 0 where the value is kept. */
function runOf(node: Node, segment: number): number {
  const home = homeOf(node);
  if (segment <= 0 || home <= 0 || opOf(node.op).traits.source) return 0;
  return within(home, segment) ? segment : home;
}

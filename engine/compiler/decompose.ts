/**
 * Stage `decompose`: attention and its gradient as plain products, with scores in
 * memory, where the planner takes that for faster than fused.
 */
import { attentionPath } from '../../kernels/attention/plan.ts';
import type { Caps } from '../../kernels/kernel.ts';
import { withSite } from '../host/errors.ts';
import { replay, typeOf, valuesOf, type Graph, type Node, type Value } from '../frontend/graph.ts';
import { opOf } from '../frontend/ops/index.ts';
import { make, Tensor } from '../frontend/tensor.ts';
import { inSegment, withTrace } from '../frontend/tracing.ts';

const attends = (n: Node): n is Node<'attention' | 'attentionGrad'> => n.op === 'attention' || n.op === 'attentionGrad';

function composes(n: Node, caps: Caps): boolean {
  if (!attends(n)) return false;
  const [[B, N, H, D], [, L]] = n.inputs.map((v) => typeOf(v).shape) as unknown as [
    [number, number, number, number],
    [number, number],
  ];
  const inputs = n.op === 'attention' ? 3 : 6;
  return (
    attentionPath(caps, n.op, { B, N, L, H, D, ...n.attrs, lengths: n.inputs.length > inputs, access: [] }) ===
    'composed'
  );
}

/** The same function; undefined where nothing changes. */
export function composeAttention(
  graph: Graph,
  outputs: readonly Value[],
  caps: Caps,
): { graph: Graph; outputs: Value[] } | undefined {
  const chosen = new Set(graph.nodes.filter((n) => composes(n, caps)));
  if (!chosen.size) return undefined;
  return withTrace(({ graph: to }) => {
    const composed = (n: Node, inputs: readonly Value[]): Value[] =>
      opOf(n.op).composed!(
        inputs.map((v) => new Tensor(v)),
        n.attrs,
        make,
      ).map((t) => t.value);
    const values = replay(graph, outputs, (n, inputs) =>
      chosen.has(n)
        ? withSite(n.site, () => inSegment(n.segment, () => composed(n, inputs), n.gradient))
        : valuesOf(to.add(n.op, inputs, n.attrs, n.outs, n)),
    );
    return { graph: to, outputs: values };
  });
}

/**
 * Stage `precision`: operands of matrix products in half precision, where a function asks for it. Sums and all else stay f32.
 * Products read operands cast to f16; attention keeps its f32 operands and may round them itself, where matrix units serve it.
 */
import { Graph, typeOf, type Node, type Value } from './graph.ts';

export function halveOperands(graph: Graph, outputs: readonly Value[]): { graph: Graph; outputs: Value[] } {
  const to = new Graph();
  const moved = new Map<Node, Node>();
  const map = (v: Value): Value => ({ node: moved.get(v.node)!, out: v.out });
  for (const n of graph.nodes) {
    const halve = (v: Value): Value => {
      const { shape, dtype } = typeOf(v);
      if (dtype !== 'f32') return v;
      return { node: to.add('cast', [v], { dtype: 'f16' }, [{ shape, dtype: 'f16' }], n.site, n.segment) as unknown as Node, out: 0 };
    };
    const inputs = n.inputs.map(map);
    const attrs = n.op === 'attention' || n.op === 'attentionGrad' ? { ...(n as Node<'attention' | 'attentionGrad'>).attrs, half: true as const } : n.attrs;
    moved.set(n, to.add(n.op, n.op === 'matmul' ? inputs.map(halve) : inputs, attrs, n.outs, n.site, n.segment));
  }
  return { graph: to, outputs: outputs.map(map) };
}

/**
 * Stage `precision`: operands of matrix products in half precision, where a function asks for it. Sums and all else stay f32.
 * Products read operands cast to f16; attention and convolutions keep their f32 operands and may round them themselves, where
 * matrix units serve them.
 */
import {
  Graph,
  replay,
  typeOf,
  valuesOf,
  type Node,
  type OpAttrs,
  type OpName,
  type Value,
} from '../frontend/graph.ts';
import { opOf } from '../frontend/ops/index.ts';
import type { HalfOp } from '../frontend/ops/traits.ts';

const rounds = (n: Node): n is Node<HalfOp> => opOf(n.op).traits.half === 'kernel';

/** @param gradients their products too */
export function halveOperands(
  graph: Graph,
  outputs: readonly Value[],
  gradients: boolean,
): { graph: Graph; outputs: Value[] } {
  const to = new Graph();
  const values = replay(graph, outputs, (n, inputs) => {
    if (n.gradient && !gradients) return valuesOf(to.add(n.op, inputs, n.attrs, n.outs, n));
    const halve = (v: Value): Value => {
      const { shape, dtype } = typeOf(v);
      if (dtype !== 'f32') return v;
      return { node: to.add('cast', [v], { dtype: 'f16' }, [{ shape, dtype: 'f16' }], n), out: 0 };
    };
    const attrs: OpAttrs[OpName] = rounds(n) ? { ...n.attrs, half: true } : n.attrs;
    return valuesOf(to.add(n.op, opOf(n.op).traits.half === 'cast' ? inputs.map(halve) : inputs, attrs, n.outs, n));
  });
  return { graph: to, outputs: values };
}

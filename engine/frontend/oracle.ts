/** Evaluates a graph in float64 by each op's reference. Slow and plain: what kernels and gradients are checked against. */
import { sizeOf, typeOf } from './graph.ts';
import type { Graph, Node, OpAttrs, TensorType, Value } from './graph.ts';
import { EngineError } from '../host/errors.ts';
import { opOf } from './ops/index.ts';
import { sameShape } from './ops/op.ts';
import { toHalf } from './ops/rounding.ts';
import type { HostTensor } from './tree.ts';

/** What f32 would overflow at or flush is infinite or 0; nothing is rounded. */
function inRange(x: number): number {
  const held = Math.fround(x);
  return held === 0 || !Number.isFinite(held) ? held : x;
}

function typed({ shape, dtype }: TensorType, data: ArrayLike<number>): HostTensor {
  return {
    shape,
    dtype,
    data:
      dtype === 'i32'
        ? Int32Array.from(data)
        : dtype === 'u32'
          ? Uint32Array.from(data)
          : Float64Array.from(data, dtype === 'f16' ? toHalf : inRange),
  };
}

/** `inputs[i]` is the value of the input node with index i. Floats come back as Float64Array; of them
 * only f16 is rounded in between, and f32 has its range. */
export function evaluate(graph: Graph, outputs: readonly Value[], inputs: readonly HostTensor[]): HostTensor[] {
  const live = new Set<Node>();
  const stack = outputs.map((v) => v.node);
  while (stack.length) {
    const node = stack.pop()!;
    if (!live.has(node)) stack.push(...node.inputs.map((v) => v.node));
    live.add(node);
  }
  const values = new Map<Node, HostTensor[]>();
  for (const node of graph.nodes) {
    if (live.has(node))
      values.set(
        node,
        node.op === 'input'
          ? [bind(node.attrs as OpAttrs['input'], inputs)]
          : reference(
              node,
              node.inputs.map((v) => values.get(v.node)![v.out]!),
            ),
      );
  }
  return outputs.map((v) => values.get(v.node)![v.out]!);
}

function bind({ index, name, type }: OpAttrs['input'], inputs: readonly HostTensor[]): HostTensor {
  const given = inputs[index];
  if (!given) throw new EngineError('oracle', `input ${index} (${name}) is missing`);
  if (!sameShape(given.shape, type.shape) || given.dtype !== type.dtype) {
    throw new EngineError(
      'oracle',
      `input ${index} (${name}): expected ${type.dtype}[${type.shape.join()}], got ${given.dtype}[${given.shape.join()}]`,
    );
  }
  return typed(type, given.data);
}

/** One node's outputs for given inputs. */
export function reference(node: Node, x: readonly HostTensor[]): HostTensor[] {
  const results = opOf(node.op).oracle(x, node.attrs, node.outs);
  return results.map((data, out) => {
    const type = typeOf({ node, out });
    if (data.length !== sizeOf(type))
      throw new EngineError(node.op, `the oracle gave ${data.length} numbers for [${type.shape.join()}]`, node.site);
    return typed(type, data);
  });
}

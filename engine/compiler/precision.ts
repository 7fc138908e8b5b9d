/**
 * Stage `precision`: operands of matrix products in half precision, where a function asks for it. Sums and all else stay f32.
 * Products read operands cast to f16; attention and convolutions keep their f32 operands and round them themselves, where
 * matrix units serve them.
 *
 * f16 spans 2^-24 to 2^16, and cotangents lie anywhere: a mean over 10^6 numbers sends 10^-6 to each. So what only a gradient's products read
 * is brought to f16's middle by a power of two, of its own largest number, and their result is brought back: exactly, whatever the loss was
 * multiplied by. One scale for all (as of PyTorch's GradScaler) would have to be found by overflows, whose updates are lost; maxima of the
 * steps before (as in fp8 training) would be a state to keep. The maximum costs a pass over what products read hundreds of times.
 */
import type { Caps } from '../../kernels/kernel.ts';
import { unitFor } from '../../kernels/mma.ts';
import {
  Graph,
  keyOf,
  replay,
  sizeOf,
  typeOf,
  valuesOf,
  type Made,
  type MakeValue,
  type Node,
  type OpName,
  type Value,
} from '../frontend/graph.ts';
import { opOf } from '../frontend/ops/index.ts';
import type { HalfOp } from '../frontend/ops/traits.ts';

/**
 * The largest number of a scaled operand lies in [2^4, 2^5): what is 2^-19 of it still has all of f16's digits, and products that a kernel
 * rounds once more (attention's scores' gradients, of 128 numbers each) have room above.
 */
const LARGEST = 2 ** 4;
/** Other orders of the same numbers, or copies of them. */
const REORDERED = new Set<OpName>(['reshape', 'detach', 'permute', 'flip', 'expand']);

const halves = (n: Node): boolean => opOf(n.op).traits.half !== 'never';
const rounds = (n: Node): n is Node<HalfOp> => opOf(n.op).traits.half === 'kernel';

/** What a tensor's numbers are taken from, in whatever order. */
function sourceOf(v: Value): Value {
  while (REORDERED.has(v.node.op)) v = v.node.inputs[0]!;
  return v;
}

export function halveOperands(
  graph: Graph,
  outputs: readonly Value[],
  caps: Pick<Caps, 'tier' | 'units'>,
): { graph: Graph; outputs: Value[] } {
  const units = caps.tier === 'tiled' && unitFor(caps, 'f16')?.operands === 'f16';
  const to = new Graph();
  // Weights and activations: as the forward pass rounds them, or would.
  const forward = new Set(
    graph.nodes.filter((n) => halves(n) && !n.gradient).flatMap((n) => n.inputs.map((v) => keyOf(sourceOf(v)))),
  );
  const scaled = (v: Value): boolean => {
    const source = sourceOf(v);
    const again = source.node.segment < 0 && !source.node.gradient; // made once more for the gradient
    return typeOf(v).dtype === 'f32' && sizeOf(typeOf(v)) > 0 && !again && !forward.has(keyOf(source));
  };
  const values = replay(graph, outputs, (n, inputs) => {
    const { half, linear } = opOf(n.op).traits;
    if (half === 'never' || (half === 'kernel' && !units)) return valuesOf(to.add(n.op, inputs, n.attrs, n.outs, n));
    const make = maker(to, n);
    const operands = [...inputs];
    let back: Value | undefined;
    for (const i of n.gradient ? linear : []) {
      if (!scaled(n.inputs[i]!)) continue;
      const scale = scaleOf(inputs[i]!, make);
      operands[i] = make('mul', [inputs[i]!, filled(scale, inputs[i]!, make)], {});
      const inverse = make('unitScale', [scale], {});
      back = back ? make('mul', [back, inverse], {}) : inverse;
    }
    const read = half === 'cast' ? operands.map((v) => narrow(v, make)) : operands;
    const node = to.add(n.op, read, rounds(n) ? { ...n.attrs, half: true } : n.attrs, n.outs, n);
    return valuesOf(node).map((v) => (back ? make('mul', [v, filled(back, v, make)], {}) : v));
  });
  return { graph: to, outputs: values };
}

const maker =
  (to: Graph, made: Made): MakeValue =>
  (op, inputs, attrs) => ({ node: to.add(op, inputs, attrs, opOf(op).infer(inputs.map(typeOf), attrs), made), out: 0 });

const narrow = (v: Value, make: MakeValue): Value =>
  typeOf(v).dtype === 'f32' ? make('cast', [v], { dtype: 'f16' }) : v;

/** One number in the shape of another value. */
const filled = (number: Value, { node, out }: Value, make: MakeValue): Value => {
  const { shape } = node.outs[out]!;
  return make('expand', [make('reshape', [number], { shape: shape.map(() => 1) })], { shape });
};

/** The power of two, of shape [], that brings v's largest number to LARGEST. */
function scaleOf(v: Value, make: MakeValue): Value {
  const source = sourceOf(v);
  const axes = typeOf(source).shape.map((_, axis) => axis);
  const one = sizeOf(typeOf(source)) === 1;
  const largest = make('reshape', [one ? source : make('amax', [make('abs', [source], {})], { axes })], { shape: [] });
  const factor = make('const', [], { value: 1 / LARGEST, dtype: 'f32' });
  return make('unitScale', [make('mul', [largest, factor], {})], {});
}

/**
 * Stage `precision`: operands of matrix products in half precision, where a function asks for it. Sums and all else stay f32.
 * Products read operands cast to f16; attention and convolutions keep their f32 operands and round them themselves, where
 * matrix units serve them.
 *
 * f16 spans 2^-24 to 2^16, and cotangents lie anywhere: a mean over 10^6 numbers sends 10^-6 to each. So what only a gradient's products
 * read is brought to f16's middle by a power of two, of its own largest number, and their result is brought back: exactly, whatever the
 * loss was multiplied by. One scale for all (as of PyTorch's GradScaler) would have to be found by overflows, whose updates are lost;
 * maxima of the steps before (as in fp8 training) would be a state to keep. The maximum costs a pass over what products read hundreds of
 * times.
 *
 * Activations are rounded as they are: one above 65504 becomes infinite, and what comes after may hide it. So the largest number of every
 * operand but weights is found as well, and all of them are one more result of the program, which `ranges.ts` judges.
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
import type { Operand } from './ranges.ts';

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

export interface Halved {
  graph: Graph;
  outputs: Value[];
  operands: readonly Operand[];
  /** One number for each of them. */
  largest?: Value;
}

export function halveOperands(
  graph: Graph,
  outputs: readonly Value[],
  caps: Pick<Caps, 'tier' | 'units' | 'maxStorageBuffers'>,
): Halved {
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
  const operands: Operand[] = [];
  const found: Value[] = [];
  const seen = new Set<string>();
  const watch = (n: Node, i: number, largest: () => Value): void => {
    const key = keyOf(sourceOf(n.inputs[i]!));
    if (seen.has(key)) return;
    seen.add(key);
    operands.push(n);
    found.push(largest());
  };
  const values = replay(graph, outputs, (n, inputs) => {
    const { half, linear } = opOf(n.op).traits;
    if (half === 'never' || (half === 'kernel' && !units)) return valuesOf(to.add(n.op, inputs, n.attrs, n.outs, n));
    const make = maker(to, n);
    const scaledInputs = [...inputs];
    let back: Value | undefined;
    for (const i of n.gradient ? linear : []) {
      if (!scaled(n.inputs[i]!)) continue;
      const largest = largestOf(sourceOf(inputs[i]!), make);
      watch(n, i, () => largest);
      const scale = scaleOf(largest, make);
      scaledInputs[i] = make('mul', [inputs[i]!, filled(scale, inputs[i]!, make)], {});
      const inverse = make('unitScale', [scale], {});
      back = back ? make('mul', [back, inverse], {}) : inverse;
    }
    const read = half === 'cast' ? scaledInputs.map((v) => narrow(v, make)) : scaledInputs;
    if (!n.gradient && n.segment >= 0)
      n.inputs.forEach((v, i) => {
        if (isReal(v) && !(i > 0 && isGiven(v))) watch(n, i, () => largestOf(read[i]!, make));
      });
    const node = to.add(n.op, read, rounds(n) ? { ...n.attrs, half: true } : n.attrs, n.outs, n);
    return valuesOf(node).map((v) => (back ? make('mul', [v, filled(back, v, make)], {}) : v));
  });
  if (!found.length) return { graph: to, outputs: values, operands };
  return {
    graph: to,
    outputs: values,
    operands,
    largest: inOne(found, caps.maxStorageBuffers - 1, maker(to, found.at(-1)!.node)),
  };
}

/** Numbers of shape [1] in one tensor, by as many at a time as a kernel binds. */
function inOne(parts: readonly Value[], most: number, make: MakeValue): Value {
  if (parts.length === 1) return parts[0]!;
  const joined = Array.from({ length: Math.ceil(parts.length / most) }, (_, i) => {
    const some = parts.slice(i * most, (i + 1) * most);
    return some.length === 1 ? some[0]! : make('concat', some, { axis: 0 });
  });
  return inOne(joined, most, make);
}

/** Whether a value is given to the program, or cut out of one that is: as a second operand, weights. */
function isGiven(v: Value): boolean {
  const { node } = sourceOf(v);
  return node.op === 'input' || ((node.op === 'slice' || node.op === 'cast') && isGiven(node.inputs[0]!));
}

const isReal = (v: Value): boolean => /^(f32|f16)$/.test(typeOf(v).dtype) && sizeOf(typeOf(v)) > 0;

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

/** The largest magnitude in v, of shape [1]. */
function largestOf(v: Value, make: MakeValue): Value {
  const axes = typeOf(v).shape.map((_, axis) => axis);
  const wide = typeOf(v).dtype === 'f32' ? v : make('cast', [v], { dtype: 'f32' });
  const size = make('abs', [wide], {});
  return make('reshape', [sizeOf(typeOf(v)) === 1 ? size : make('amax', [size], { axes })], { shape: [1] });
}

/** The power of two, of shape [], that brings a tensor's largest number to LARGEST. */
function scaleOf(largest: Value, make: MakeValue): Value {
  const factor = make('const', [], { value: 1 / LARGEST, dtype: 'f32' });
  return make('unitScale', [make('mul', [make('reshape', [largest], { shape: [] }), factor], {})], {});
}

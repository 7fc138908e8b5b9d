/**
 * Part of stage `simplify`: a low-rank addition becomes part of the product it is added to, x Wᵀ + s (x Aᵀ) Bᵀ = x (W + s B A)ᵀ,
 * so that an adapter that is only applied costs one small kernel for its weights and nothing for its tokens.
 */
import { keyOf, typeOf, type MakeValue, type Node, type OpAttrs, type Value } from '../frontend/graph.ts';

/** Terms of a sum that are looked through for the product: a bias, other adapters. */
const MAX_TERMS = 64;

function unshaped(v: Value): Value {
  while (v.node.op === 'reshape') v = v.node.inputs[0]!;
  return v;
}
const productOf = (v: Value): Node<'matmul'> | null => {
  const { node } = unshaped(v);
  return node.op === 'matmul' && typeOf(node.inputs[1]!).shape.length === 2 ? (node as Node<'matmul'>) : null;
};

interface LowRank {
  x: Value;
  down: Node<'matmul'>;
  up: Node<'matmul'>;
  scale: Value | null;
}

/** (s · x Aᵀ) Bᵀ, whatever reshapes stand between. `isUniform` tells a constant that was expanded. */
function lowRankOf(v: Value, isUniform: (v: Value) => boolean): LowRank | null {
  const up = productOf(v);
  if (!up || up.attrs.transA) return null;
  let inner = unshaped(up.inputs[0]!);
  let scale: Value | null = null;
  if (inner.node.op === 'mul' && isUniform(inner.node.inputs[1]!))
    [inner, scale] = [unshaped(inner.node.inputs[0]!), unexpanded(inner.node.inputs[1]!)];
  const down = productOf(inner);
  return down && !down.attrs.transA ? { x: unshaped(down.inputs[0]!), down, up, scale } : null;
}

/** The scalar behind an expanded constant. */
function unexpanded(v: Value): Value {
  while (v.node.op === 'reshape' || v.node.op === 'expand') v = v.node.inputs[0]!;
  return v;
}

/**
 * a + b with b (or a) a low-rank product of what the other multiplies by a weight stored [out, in]; null where there is none, or so few
 * rows that W + s B A would cost more than it saves. Gradients multiply by W itself: kept apart, the sum lives only during a product.
 */
export function mergeLowRank(
  [a, b]: readonly [Value, Value],
  make: MakeValue,
  isUniform: (v: Value) => boolean,
): Value | null {
  for (const [sum, added] of [
    [a, b],
    [b, a],
  ] as const) {
    const low = lowRankOf(added, isUniform);
    const merged = low && replace(sum, low, make);
    if (merged) return merged;
  }
  return null;
}

function replace(v: Value, low: LowRank, make: MakeValue, tried = new Set<Node>()): Value | null {
  const { op, inputs } = v.node;
  if (tried.has(v.node) || tried.size >= MAX_TERMS) return null;
  tried.add(v.node);
  if (op === 'reshape') {
    const inner = replace(inputs[0]!, low, make, tried);
    return inner && make('reshape', [inner], { shape: typeOf(v).shape });
  }
  if (op === 'add') {
    const [left, right] = inputs as [Value, Value];
    const first = replace(left, low, make, tried);
    if (first) return make('add', [first, right], {});
    const second = replace(right, low, make, tried);
    return second && make('add', [left, second], {});
  }
  if (op !== 'matmul') return null;
  const { transA, transB } = v.node.attrs as OpAttrs['matmul'];
  const [x, w] = inputs as [Value, Value];
  const [A, B] = [low.down, low.up];
  if (transA || !transB || keyOf(unshaped(x)) !== keyOf(low.x)) return null;
  const [out, size] = typeOf(w).shape as [number, number];
  const rows = typeOf(v).shape[0]!;
  if ([w, A.inputs[1]!, B.inputs[1]!].some((t) => typeOf(t).dtype !== 'f32' || typeOf(t).shape.length !== 2))
    return null;
  if (B.outs[0]!.shape[1] !== out || rows * (out + size) < out * size) return null;
  const delta = make('matmul', [B.inputs[1]!, A.inputs[1]!], { transA: !B.attrs.transB, transB: !A.attrs.transB });
  const shape = [out, size];
  const scaled = low.scale
    ? make('mul', [delta, make('expand', [make('reshape', [low.scale], { shape: [1, 1] })], { shape })], {})
    : delta;
  return make('matmul', [x, make('add', [w, scaled], {})], { transA: false, transB: true });
}

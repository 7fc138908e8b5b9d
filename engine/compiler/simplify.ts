/** Stage `simplify`: rebuilds the graph by a table of rewrites, without what no output needs. */
import type { DType } from '../../kernels/kernel.ts';
import { numel } from '../../kernels/kernel.ts';
import { withSite } from '../host/errors.ts';
import { constantOf, Graph, POINTWISE, replay, typeOf, valuesOf } from '../frontend/graph.ts';
import type { Made, MakeValue, Node, OpAttrs, OpName, Reduction, TensorType, Value } from '../frontend/graph.ts';
import { mergeLowRank } from './lowrank.ts';
import { opOf } from '../frontend/ops/index.ts';
import { isFloat, sameShape } from '../frontend/ops/op.ts';
import { rounded } from '../frontend/ops/rounding.ts';
import { tiledConv, tiledConvInput, tiledConvWeight } from './conv-as-matmul.ts';

/** `inputs` are simplified already; null leaves the node as it is. */
type Rule<K extends OpName> = (
  inputs: readonly Value[],
  attrs: OpAttrs[K],
  to: Rewriter,
  out: TensorType,
) => Value | null;

const shapeOf = (v: Value): readonly number[] => typeOf(v).shape;
const same = (a: Value, b: Value): boolean => a.node === b.node && a.out === b.out;
/** The node behind a value when it is of this op. */
const as = <K extends OpName>(v: Value, op: K): Node<K> | null => (v.node.op === op ? (v.node as Node<K>) : null);

/** Ops over operands of one number whose result is one number too: computed here, as they would be on the device. */
function foldConstant(
  op: OpName,
  inputs: readonly Value[],
  attrs: OpAttrs[OpName],
  to: Rewriter,
  out: TensorType,
): Value | null {
  const values = inputs.map(constantOf);
  if (!inputs.length || values.some((n) => n === null)) return null;
  const numbers = values.map((n, i) => rounded(n!, typeOf(inputs[i]!).dtype));
  const operands = numbers.map((n, i) => ({ shape: [], dtype: typeOf(inputs[i]!).dtype, data: Float64Array.of(n) }));
  if (POINTWISE.has(op)) {
    const [y] = opOf(op).oracle(operands, attrs, [{ shape: [], dtype: out.dtype }]);
    return to.fill(rounded(y![0]!, out.dtype), out);
  }
  const [first] = values as [number];
  if (['reshape', 'permute', 'expand', 'slice', 'flip', 'amax', 'amin'].includes(op)) return to.fill(first, out);
  if (op === 'concat' && values.every((n) => Object.is(n, first))) return to.fill(first, out);
  if (op === 'pad' && Object.is(first, 0)) return to.fill(0, out);
  if (op === 'sum' && isFloat(out.dtype)) return to.fill(rounded(total(numbers[0]!, inputs[0]!, out), out.dtype), out);
  return null;
}

/** The sum of a number over the axes that `out` lacks: that of nothing is 0, of infinities too. */
const total = (number: number, { node, out: at }: Value, out: TensorType): number =>
  numel(node.outs[at]!.shape) ? (number * numel(node.outs[at]!.shape)) / numel(out.shape) : 0;

/** The tensor whose consecutive pieces along `axis` these are. */
function piecedTogether(parts: readonly Value[], axis: number): Value | null {
  const source = as(parts[0]!, 'slice')?.inputs[0];
  if (!source) return null;
  const shape = shapeOf(source);
  let at = 0;
  for (const part of parts) {
    const piece = as(part, 'slice');
    if (!piece || !same(piece.inputs[0]!, source) || piece.attrs.start[axis] !== at || piece.attrs.step[axis] !== 1)
      return null;
    if (!sameShape(shapeOf(part).with(axis, shape[axis]!), shape)) return null;
    at += shapeOf(part)[axis]!;
  }
  return at === shape[axis] ? source : null;
}

/** The flag of a matmul operand that is a transpose: the transpose goes away and the flag flips. */
function untranspose(v: Value): { v: Value; flipped: boolean } {
  const node = as(v, 'permute');
  const rank = shapeOf(v).length;
  const swaps = node?.attrs.order.every((axis, i) => axis === (i < rank - 2 ? i : 2 * rank - 3 - i));
  return node && swaps ? { v: node.inputs[0]!, flipped: true } : { v, flipped: false };
}

const reduces =
  (op: Reduction): Rule<Reduction> =>
  ([x], { axes }, to, out) => {
    if (sameShape(shapeOf(x!), out.shape)) return x!;
    if (!numel(shapeOf(x!))) return op === 'sum' ? to.fill(0, out) : null;
    const inner = as(x!, op);
    if (inner)
      return to.make(op, inner.inputs, { axes: [...new Set([...inner.attrs.axes, ...axes])].sort((a, b) => a - b) });
    const source = as(x!, 'expand')?.inputs[0];
    if (!source || axes.some((axis) => shapeOf(source)[axis] !== 1)) return null;
    const y = to.make('expand', [source], { shape: out.shape });
    if (op === 'prod') return null;
    return op === 'sum' ? to.make('mul', [y, to.fill(numel(shapeOf(x!)) / numel(out.shape), out)], {}) : y;
  };

/** Two factors in a row that can be one: what overflows or vanishes by the first does so by their product too. */
const mergeable = (a: number, b: number): boolean => {
  const [small, large] = [Math.abs(a), Math.abs(b)].sort((x, y) => x - y) as [number, number];
  return (small >= 1 || large <= 1) && small * large >= 2 ** -126 && small * large <= 2 ** 127;
};

const RULES: { [K in OpName]?: Rule<K> } = {
  detach: ([x]) => x!,
  neg: ([x]) => as(x!, 'neg')?.inputs[0] ?? null,
  add([a, b], _, to) {
    if (constantOf(b!) === 0) return a!;
    if (constantOf(a!) !== null) return to.make('add', [b!, a!], {});
    const [na, nb] = [as(a!, 'neg'), as(b!, 'neg')];
    if (nb) return to.make('sub', [a!, nb.inputs[0]!], {});
    const merged = mergeLowRank([a!, b!], to.make, (v) => constantOf(v) !== null);
    if (merged) return merged;
    return na ? to.make('sub', [b!, na.inputs[0]!], {}) : null;
  },
  sub([a, b], _, to) {
    if (constantOf(b!) === 0) return a!;
    if (constantOf(a!) === 0) return to.make('neg', [b!], {});
    const nb = as(b!, 'neg');
    return nb ? to.make('add', [a!, nb.inputs[0]!], {}) : null;
  },
  mul([a, b], _, to, out) {
    const c = constantOf(b!);
    if (c === null) return constantOf(a!) === null ? null : to.make('mul', [b!, a!], {});
    if (c === 1) return a!;
    if (c === 0 && !isFloat(out.dtype)) return to.fill(0, out); // of floats it is NaN at infinities
    if (c === -1) return to.make('neg', [a!], {});
    const negated = as(a!, 'neg');
    if (negated) return to.make('mul', [negated.inputs[0]!, to.fill(-c, out)], {});
    const scaled = as(a!, 'mul');
    const inner = scaled && out.dtype === 'f32' ? constantOf(scaled.inputs[1]!) : null;
    return inner === null || !mergeable(inner, c)
      ? null
      : to.make('mul', [scaled!.inputs[0]!, to.fill(inner * c, out)], {});
  },
  div: ([a, b]) => (constantOf(b!) === 1 ? a! : null),
  pow([a, b], _, to, out) {
    const c = constantOf(b!);
    if (c === 0) return to.fill(1, out);
    if (c === 1) return a!;
    if (c === 2) return to.make('mul', [a!, a!], {});
    if (c === 0.5) return to.make('sqrt', [a!], {});
    return c === -1 ? to.make('div', [to.fill(1, out), a!], {}) : null;
  },
  where([mask, a, b]) {
    if (same(a!, b!)) return a!;
    const c = constantOf(mask!);
    return c === null ? null : c !== 0 ? a! : b!;
  },
  cast([x], { dtype }) {
    if (typeOf(x!).dtype === dtype) return x!;
    const source = as(x!, 'cast')?.inputs[0];
    return source && dtype === 'f16' && typeOf(x!).dtype === 'f32' && typeOf(source).dtype === 'f16' ? source : null;
  },
  reshape([x], { shape }, to) {
    if (sameShape(shapeOf(x!), shape)) return x!;
    const inner = as(x!, 'reshape');
    return inner ? to.make('reshape', inner.inputs, { shape }) : null;
  },
  permute([x], { order }, to, out) {
    const moved = order.filter((axis) => shapeOf(x!)[axis] !== 1);
    if (order.every((axis, i) => axis === i)) return x!;
    if (moved.every((axis, i) => i === 0 || moved[i - 1]! < axis))
      return to.make('reshape', [x!], { shape: out.shape });
    const inner = as(x!, 'permute');
    return inner ? to.make('permute', inner.inputs, { order: order.map((axis) => inner.attrs.order[axis]!) }) : null;
  },
  expand([x], { shape }, to) {
    if (sameShape(shapeOf(x!), shape)) return x!;
    const inner = as(x!, 'expand');
    return inner ? to.make('expand', inner.inputs, { shape }) : null;
  },
  slice([x], { start, step }, to, out) {
    if (sameShape(shapeOf(x!), out.shape)) return x!;
    const inner = as(x!, 'slice');
    if (!inner) return null;
    const from = start.map((s, i) => inner.attrs.start[i]! + s * inner.attrs.step[i]!);
    const by = step.map((s, i) => s * inner.attrs.step[i]!);
    return to.make('slice', inner.inputs, {
      start: from,
      end: from.map((s, i) => s + (out.shape[i]! - 1) * by[i]! + 1),
      step: by,
    });
  },
  pad: ([x], _, _to, out) => (sameShape(shapeOf(x!), out.shape) ? x! : null),
  flip([x], { axes }) {
    if (axes.every((axis) => shapeOf(x!)[axis] === 1)) return x!;
    const inner = as(x!, 'flip');
    return inner && sameShape(inner.attrs.axes, axes) ? inner.inputs[0]! : null;
  },
  concat: (inputs, { axis }) => (inputs.length === 1 ? inputs[0]! : piecedTogether(inputs, axis)),
  sum: reduces('sum'),
  prod: reduces('prod'),
  amax: reduces('amax'),
  amin: reduces('amin'),
  matmul([a, b], { transA, transB }, to, out) {
    if (!numel(shapeOf(a!))) return to.fill(0, out); // sums of no products
    const [left, right] = [untranspose(a!), untranspose(b!)];
    if (!left.flipped && !right.flipped) return null;
    return to.make('matmul', [left.v, right.v], { transA: transA !== left.flipped, transB: transB !== right.flipped });
  },
  conv3d: (inputs, attrs, to, { shape }) => tiledConv(inputs, attrs, to.make, shape),
  conv3dInput: (inputs, attrs, to) => tiledConvInput(inputs, attrs, to.make),
  conv3dWeight: (inputs, attrs, to) => tiledConvWeight(inputs, attrs, to.make),
};

class Rewriter {
  readonly graph = new Graph();
  /** Of the node that is rewritten now. */
  made: Made = { site: '', segment: 0, gradient: false };

  readonly make: MakeValue = (op, inputs, attrs) => this.outputs(op, inputs, attrs)[0]!;

  /** The node's outputs after rewriting. Rules exist for ops of one output. */
  outputs<K extends OpName>(op: K, inputs: readonly Value[], attrs: OpAttrs[K]): Value[] {
    const outs = opOf(op).infer(inputs.map(typeOf), attrs);
    const rule = RULES[op] as Rule<K> | undefined;
    const found = foldConstant(op, inputs, attrs, this, outs[0]!) ?? rule?.(inputs, attrs, this, outs[0]!);
    return found ? [found] : this.raw(op, inputs, attrs, outs);
  }

  /** A constant in the one form that `uniform` sees: const, reshape to ones, expand. */
  fill(value: number, { shape, dtype }: { shape: readonly number[]; dtype: DType }): Value {
    const ones = shape.map(() => 1);
    let v = this.raw('const', [], { value, dtype }, [{ shape: [], dtype }])[0]!;
    if (shape.length) v = this.raw('reshape', [v], { shape: ones }, [{ shape: ones, dtype }])[0]!;
    return sameShape(shape, ones) ? v : this.raw('expand', [v], { shape }, [{ shape, dtype }])[0]!;
  }

  raw<K extends OpName>(op: K, inputs: readonly Value[], attrs: OpAttrs[K], outs: readonly TensorType[]): Value[] {
    return valuesOf(this.graph.add(op, inputs, attrs, outs, this.made));
  }
}

/** `replay` into `to`, whose nodes are made as those they come from. */
const rebuild = (
  graph: Graph,
  outputs: readonly Value[],
  to: Rewriter,
  copy: (node: Node, inputs: Value[]) => Value[],
): { graph: Graph; outputs: Value[] } => ({
  graph: to.graph,
  outputs: replay(graph, outputs, (node, inputs) => {
    to.made = node;
    return withSite(node.site, () => copy(node, inputs));
  }),
});

/** The same function as a smaller graph. Input nodes keep their index, order and segments stay. */
export function simplify(graph: Graph, outputs: readonly Value[]): { graph: Graph; outputs: Value[] } {
  const to = new Rewriter();
  const rewritten = rebuild(graph, outputs, to, (node, inputs) => to.outputs(node.op, inputs, node.attrs));
  // Rewrites leave nodes behind that nothing reads.
  const lean = new Rewriter();
  return rebuild(rewritten.graph, rewritten.outputs, lean, (node, inputs) =>
    lean.raw(node.op, inputs, node.attrs, node.outs),
  );
}

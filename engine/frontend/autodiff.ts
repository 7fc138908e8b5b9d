/** Reverse-mode gradients: a sweep over the traced graph that adds gradient nodes, only on paths that reach what is asked. */
import { inSegment } from './tracing.ts';
import { fail, printShapes, withSite } from '../host/errors.ts';
import type { Node, Value } from './graph.ts';
import { keyOf, typeOf } from './graph.ts';
import { opOf } from './ops/index.ts';
import { isFloat, sameShape } from './ops/op.ts';
import { Recompute } from './remat.ts';
import { Tensor, make } from './tensor.ts';
import { flatten } from './tree.ts';

/**
 * Cotangents of `wrt`, a tree of tensors, from cotangents of the outputs. Leaves that no output depends on get zeros.
 * Frozen tensors cost nothing: what is not in `wrt` gets no gradient node.
 */
export function vjp<T>(outputs: Tensor | readonly Tensor[], cotangents: Tensor | readonly Tensor[], wrt: T): T {
  const ys = [outputs].flat() as Tensor[];
  const gs = [cotangents].flat() as Tensor[];
  if (ys.length !== gs.length) fail('vjp', `${ys.length} outputs but ${gs.length} cotangents`);
  ys.forEach((y, i) => {
    if (!sameShape(y.shape, gs[i]!.shape))
      fail('vjp', `cotangent ${i} has another shape than its output: ${printShapes(gs[i]!.shape, y.shape)}`);
  });
  const tree = flatten<Tensor>(wrt);
  const grads = sweep(ys, gs, tree.leaves, new Recompute());
  return tree.rebuild(tree.leaves.map((x, i) => grads[i] ?? x.like(0))) as T;
}

/** With a `boundary`, the function ends at these values: nothing behind them is visited. */
function sweep(
  ys: readonly Tensor[],
  gs: readonly (Tensor | null)[],
  xs: readonly Tensor[],
  recompute: Recompute,
  boundary: ReadonlySet<string> = new Set(),
): (Tensor | null)[] {
  const wanted = new Set(xs.map((x) => keyOf(x.value)));
  const nodes = activeNodes(ys, wanted, boundary);
  const active = new Set(nodes);
  const cotangents = new Map<string, Tensor>();
  const pull = (node: Node, dy: (Tensor | null)[], needs: boolean[]): (Tensor | null)[] =>
    inSegment(
      recompute.backward(node.segment),
      () => withSite(node.site, () => localVjp(node, dy, needs, recompute)),
      true,
    );
  const accumulate = (of: Value, cotangent: Tensor): void => {
    let [v, g] = [of, cotangent];
    // A broadcast value may have many users: each one's cotangent is summed down at once, or all would wait for the last at full size.
    while (v.node.op === 'expand' && active.has(v.node) && !wanted.has(keyOf(v)))
      [v, g] = [v.node.inputs[0]!, pull(v.node, [g], [true])[0]!];
    const key = keyOf(v);
    const known = cotangents.get(key);
    const cast = g.cast(typeOf(v).dtype);
    cotangents.set(key, known ? known.add(cast) : cast);
  };
  ys.forEach((y, i) => gs[i] && accumulate(y.value, gs[i]));

  for (const node of nodes.toReversed()) {
    const dy = node.outs.map((_, out) => cotangents.get(keyOf({ node, out })) ?? null);
    if (dy.every((g) => g === null)) continue;
    const needs = node.inputs.map((v) => isFloat(typeOf(v).dtype) && (wanted.has(keyOf(v)) || active.has(v.node)));
    const dx = pull(node, dy, needs);
    node.inputs.forEach((v, i) => {
      const g = dx[i];
      if (!needs[i] || !g) return;
      if (!sameShape(g.shape, typeOf(v).shape))
        fail('vjp', `${node.op} gave a cotangent ${printShapes(g.shape)} to ${printShapes(typeOf(v).shape)}`);
      withSite(node.site, () => accumulate(v, g));
    });
  }
  return xs.map((x) => cotangents.get(keyOf(x.value)) ?? null);
}

/** Nodes on a differentiable path from a wanted value to an output, in schedule order. */
function activeNodes(ys: readonly Tensor[], wanted: ReadonlySet<string>, boundary: ReadonlySet<string>): Node[] {
  const reached = new Set<Node>();
  const stack = ys.map((y) => y.value.node);
  while (stack.length) {
    const node = stack.pop()!;
    if (reached.has(node)) continue;
    reached.add(node);
    for (const v of node.inputs) if (!boundary.has(keyOf(v))) stack.push(v.node);
  }
  const active = new Set<Node>();
  for (const node of [...reached].sort((a, b) => a.id - b.id)) {
    if (
      opOf(node.op).vjp &&
      node.inputs.some((v) => isFloat(typeOf(v).dtype) && (wanted.has(keyOf(v)) || active.has(v.node)))
    )
      active.add(node);
  }
  return [...active];
}

function localVjp(node: Node, dy: (Tensor | null)[], needs: boolean[], recompute: Recompute): (Tensor | null)[] {
  const op = opOf(node.op);
  const x = node.inputs.map((v) => deferred(v, () => recompute.resolve(v, node.segment)));
  const y = node.outs.map((_, out) => deferred({ node, out }, () => recompute.resolve({ node, out }, node.segment)));
  const throughComposed = (): (Tensor | null)[] => {
    if (!op.composed) return fail(node.op, 'has no composed form to differentiate through');
    const keys = x.map((t) => keyOf(t.value));
    // Operands that are the same value share one cotangent, which must be counted once.
    const wanted = x.map((_, i) => needs[i]! && keys.indexOf(keys[i]!) === i);
    const grads = sweep(
      op.composed(x, node.attrs, make),
      dy,
      x.filter((_, i) => wanted[i]),
      new Recompute(),
      new Set(keys),
    );
    return wanted.map((want) => (want ? grads.shift()! : null));
  };
  return op.vjp!({ x, y, dy, attrs: node.attrs, needs, make, throughComposed });
}

/** A tensor of known type whose value is made when first read: shapes cost no recomputation. */
function deferred(v: Value, resolve: () => Value): Tensor {
  let value: Value | undefined;
  return Object.create(Tensor.prototype, {
    type: { value: typeOf(v) },
    value: { get: () => (value ??= resolve()) },
  }) as Tensor;
}

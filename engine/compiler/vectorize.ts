/**
 * Can a pointwise kernel handle four neighbours at once? It can if every leaf is read either at four consecutive elements
 * (one vec4 load) or at the same element (a splat), whatever views lie between.
 */
import { keyOf, sizeOf, typeOf, type OpAttrs, type Value } from '../frontend/graph.ts';

export type Lanes = 'consecutive' | 'same';

/** How each leaf is read, by key; undefined if the kernel must go element by element. */
export function vectorize(roots: readonly Value[], leaves: ReadonlySet<string>): Map<string, Lanes> | undefined {
  const reads = new Map<string, Lanes>();
  const seen = new Set<string>();

  const visit = (v: Value, lanes: Lanes, top: boolean): boolean => {
    const key = keyOf(v);
    const { shape, dtype } = typeOf(v);
    if (dtype !== 'f32') return false;
    if (seen.has(`${key} ${lanes}`) && !top) return true;
    seen.add(`${key} ${lanes}`);
    if (!top && leaves.has(key)) {
      const how = sizeOf(typeOf(v)) === 1 ? 'same' : lanes;
      const before = reads.get(key) ?? how;
      reads.set(key, how);
      return before === how && (how === 'same' || sizeOf(typeOf(v)) % 4 === 0);
    }
    const { op, attrs, inputs } = v.node;
    if (lanes === 'same') return op !== 'cast' && inputs.every((x) => visit(x, 'same', false));
    if (op === 'const') return true;
    if (op === 'iota' || op === 'cast') return false;
    const source = inputs[0] && typeOf(inputs[0]).shape;
    const inside = source && through(op, attrs, source, shape);
    if (inside === null) return false;
    return inputs.every((x) => visit(x, inside ?? 'consecutive', false));
  };

  for (const root of roots) {
    if (sizeOf(typeOf(root)) % 4 !== 0 || !visit(root, 'consecutive', true)) return undefined;
  }
  return reads;
}

const lastReal = (shape: readonly number[]): number => {
  for (let k = shape.length - 1; k >= 0; k--) if (shape[k] !== 1) return k;
  return -1;
};

/** A flip that exchanges neighbours, as rotary embedding does: still one vec4 load, its lanes swizzled. */
export const swapsPairs = (axes: readonly number[], shape: readonly number[]): boolean =>
  axes.length === 1 && axes[0] === lastReal(shape) && shape[axes[0]!] === 2;

/** How a view's operand is read when the view is read at four consecutive elements; null for neither way, undefined for no view. */
function through(
  op: string,
  attrs: unknown,
  source: readonly number[],
  shape: readonly number[],
): Lanes | null | undefined {
  const last = lastReal(shape);
  const whole = last >= 0 && shape[last]! % 4 === 0; // the four then share every other coordinate
  switch (op) {
    case 'reshape':
    case 'detach':
      return 'consecutive';
    case 'expand': {
      if (sizeOf({ shape: source, dtype: 'f32' }) === 1) return 'same';
      if (!whole) return null;
      return source[last] === shape[last] ? 'consecutive' : 'same';
    }
    case 'permute':
      return whole && (attrs as OpAttrs['permute']).order[last] === lastReal(source) ? 'consecutive' : null;
    case 'slice': {
      const { start, step } = attrs as OpAttrs['slice'];
      const aligned = start[last]! % 4 === 0 && source[last]! % 4 === 0 && lastReal(source) === last;
      return whole && step[last] === 1 && aligned ? 'consecutive' : null;
    }
    case 'flip': {
      const { axes } = attrs as OpAttrs['flip'];
      return swapsPairs(axes, shape) || (whole && !axes.includes(last)) ? 'consecutive' : null;
    }
    case 'pad':
      return whole && source[last] === shape[last] ? 'consecutive' : null;
    case 'concat':
      return whole && (attrs as OpAttrs['concat']).axis !== last ? 'consecutive' : null;
    default:
      return undefined;
  }
}

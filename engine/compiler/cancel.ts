/**
 * Which ops a shader's compiler could cancel against what made their operands. One that takes floats for reals makes y of x + y - x,
 * x of log(exp(x)) and 0 of x - x, whatever was rounded, infinite or NaN; the emitter hides
 * the last operand of such an op from it.
 */
import { base, constantOf, keyOf, type Node, type OpName, type Value } from '../frontend/graph.ts';

/** How a value enters a sum or a product: 1 as it is, 2 negated or inverted, 3 both. */
type Parts = Map<string, number>;

const SUMS = { join: 'add', part: 'sub' } as const;
const PRODUCTS = { join: 'mul', part: 'div' } as const;
/** Of negative numbers they are NaN, which their product's root is not. */
const ROOTS = new Set<OpName>(['sqrt', 'rsqrt']);
const INVERSE: { [K in OpName]?: readonly OpName[] } = { exp: ['log', 'log1p'], log: ['exp'], log1p: ['exp'] };

/** @param known values that the kernel reads, and does not compute where it needs them */
export function cancels({ op, inputs }: Node, known: (v: Value) => boolean): boolean {
  const parts = (
    v: Value,
    { join, part }: typeof SUMS | typeof PRODUCTS,
    how: 1 | 2,
    into: Parts = new Map(),
    seen = new Set<string>(),
  ): Parts => {
    const { node } = base(v);
    const visit = `${keyOf(base(v))} ${how}`;
    if (seen.has(visit)) return into; // a sum doubled again and again has few terms, and very many ways to them
    seen.add(visit);
    const key = constantOf(v) === null ? keyOf(base(v)) : 'constant';
    const other = how === 1 ? 2 : 1;
    if (key === 'constant') into.set(key, 3);
    else if (known(base(v)) || ![join, part, 'neg'].includes(node.op)) into.set(key, (into.get(key) ?? 0) | how);
    else
      node.inputs.forEach((x, i) => {
        const turned = node.op === 'neg' ? join === 'add' : node.op === part && i === 1;
        parts(x, { join, part } as typeof SUMS, turned ? other : how, into, seen);
      });
    return into;
  };
  const chain = op === 'add' || op === 'sub' ? SUMS : op === 'mul' || op === 'div' ? PRODUCTS : undefined;
  if (!chain) return !known(base(inputs[0]!)) && !!INVERSE[op]?.includes(base(inputs[0]!).node.op);
  const roots = inputs.every((v) => !known(base(v)) && ROOTS.has(base(v).node.op));
  if (roots && chain === PRODUCTS) return true;
  const [left, right] = [parts(inputs[0]!, chain, 1), parts(inputs[1]!, chain, op === chain.part ? 2 : 1)];
  return [...left].some(([key, how]) => (how | (right.get(key) ?? 0)) === 3 && right.has(key));
}

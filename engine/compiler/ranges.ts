/** Whether the operands of a run lay in f16's range, from the largest number of each: how many did not, and which was the first. */
import type { Node } from '../frontend/graph.ts';

/** An operand whose largest number each run finds, by the op that reads it first. */
export type Operand = Pick<Node, 'op' | 'site' | 'gradient'>;

export interface Ranges {
  /** Operands with a number that is infinite in f16, or none at all. */
  overflowed: number;
  /** Cotangents so small that no power of two brings them to f16's middle. */
  vanished: number;
  /** The first of them, of those that overflowed if there are any: op, largest number and line. */
  first?: string;
}

const LARGEST_HALF = 65504;
/** Cotangents are scaled by 2^-110 to 2^110 (`unitScale` of a 16th). */
const LARGEST_SCALED = 2 ** 126;
const SMALLEST_SCALED = 2 ** -106;

/** @param largest magnitudes, in the operands' order, which is that of their work */
export function rangesOf(program: string, operands: readonly Operand[], largest: ArrayLike<number>): Ranges {
  const over = operands.map(({ gradient }, i) => !(largest[i]! <= (gradient ? LARGEST_SCALED : LARGEST_HALF)));
  const under = operands.map(({ gradient }, i) => gradient && largest[i]! > 0 && largest[i]! < SMALLEST_SCALED);
  const at = over.includes(true) ? over.indexOf(true) : under.indexOf(true);
  const count = (of: readonly boolean[]): number => of.filter(Boolean).length;
  const found = { overflowed: count(over), vanished: count(under) };
  if (at < 0) return found;
  const { op, site, gradient } = operands[at]!;
  const what = gradient ? `the gradient of ${op} is given a cotangent` : `${op} reads an operand`;
  const size = Number(largest[at]!.toPrecision(3));
  return { ...found, first: `${program}: ${what} whose largest number is ${size}${site && ` (${site})`}` };
}

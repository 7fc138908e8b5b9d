/**
 * Part of stage `lower`: groups that do the same to tensors of the same types have one launch, written once. A network repeats its
 * blocks, and a step repeats its networks: of a hundred groups two or three are new.
 */
import type { Caps, Launch } from '../../kernels/kernel.ts';
import type { Group } from './fuse.ts';
import { attrsText, base, keyOf, printType, typeOf, type Node, type Value } from '../frontend/graph.ts';
import { lower, type LowerContext, type Lowered } from './lowering.ts';

/** A launch, and for each of its slots the number of the group's value that lies there. */
interface Known {
  launch: Launch;
  slots: number[];
}

/** Launches that are remembered; beyond them the oldest go. */
const MAX_LAUNCHES = 4096;

/** What was lowered so far for a device of these capabilities. */
const known = new WeakMap<Caps, Map<string, Known>>();

/** As `lower`; what is alike shares one launch. */
export function lowerOnce(group: Group, context: LowerContext): Lowered {
  const values = [
    ...group.node.inputs.map(base),
    ...group.leaves,
    ...group.roots,
    ...(group.epilogue ? [group.epilogue.product] : []),
  ];
  const numbers = new Map<string, number>();
  for (const v of values) if (!numbers.has(keyOf(v))) numbers.set(keyOf(v), numbers.size);
  const distinct = new Map(values.map((v) => [numbers.get(keyOf(v))!, v]));
  const key = describe(group, numbers, distinct, context);
  const launches = known.get(context.caps) ?? known.set(context.caps, new Map()).get(context.caps)!;
  const found = launches.get(key);
  if (found) return { launch: found.launch, slots: found.slots.map((at) => distinct.get(at)!) };
  const lowered = lower(group, context);
  if (launches.size >= MAX_LAUNCHES) launches.delete(launches.keys().next().value!);
  launches.set(key, { launch: lowered.launch, slots: lowered.slots.map((v) => numbers.get(keyOf(v))!) });
  return lowered;
}

/** All that `lower` reads of a group, with its values as numbers. */
function describe(
  { kind, node, roots, leaves, epilogue }: Group,
  numbers: ReadonlyMap<string, number>,
  distinct: ReadonlyMap<number, Value>,
  context: LowerContext,
): string {
  const number = (v: Value): number => numbers.get(keyOf(v))!;
  const text = [`${kind} ${leaves.map(number).join()} > ${roots.map(number).join()}`];
  for (const v of distinct.values()) {
    const over = context.inPlace.get(keyOf(v));
    text.push(
      `${printType(typeOf(v))} ${context.access(v)}${over ? ` over ${number(over)}` : ''}${context.inWhole(v) ? ' in whole' : ''}`,
    );
  }
  if (kind === 'anchor' || kind === 'join')
    text.push(
      `${node.op} ${attrsText(node.op, node.attrs)} ${node.inputs.map((v) => `${number(base(v))} ${printType(typeOf(v))}`).join()}`,
    );
  else text.push(expression(roots, leaves, number));
  if (epilogue)
    text.push(
      epilogue.leaves.map(number).join(),
      expression([epilogue.root], [epilogue.product, ...epilogue.leaves], number),
    );
  return text.join('\n');
}

/** What is computed from the leaves up to the roots, a line a node. */
function expression(roots: readonly Value[], leaves: readonly Value[], number: (v: Value) => number): string {
  const ends = new Map(leaves.map((v) => [keyOf(v), v]));
  const nodes = new Set<Node>();
  const visit = (node: Node): void => {
    if (nodes.has(node)) return;
    nodes.add(node);
    for (const v of node.inputs) if (!ends.has(keyOf(v))) visit(v.node);
  };
  for (const root of roots) visit(root.node);
  const sorted = [...nodes].sort((a, b) => a.id - b.id);
  const line = new Map(sorted.map((n, i) => [n, i]));
  const operand = (v: Value): string => {
    const end = ends.get(keyOf(v));
    return end ? `#${number(end)}` : `%${line.get(v.node)}`;
  };
  const lines = sorted.map(
    (n) => `${n.op} ${attrsText(n.op, n.attrs)} ${n.outs.map(printType).join(' ')} ${n.inputs.map(operand).join()}`,
  );
  return `${lines.join('\n')}\n${roots.map((r) => line.get(r.node)).join()}`;
}

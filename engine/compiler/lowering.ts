/**
 * Stage `lower`: group → launch, by a kernel family (anchors.ts says which) and the emitter's code for what is fused in front and behind.
 *
 * This comes before `memory`, because a family's plan decides how much scratch it wants; buffers are still slots here.
 */
import {
  BYTES,
  type Access,
  type Binding,
  type Caps,
  type Dispatch,
  type Epilogue,
  type Launch,
} from '../../kernels/kernel.ts';
import { pointwise } from '../../kernels/pointwise/index.ts';
import { reduce, type Source } from '../../kernels/reduce/index.ts';
import { atSize } from '../../kernels/subgroups.ts';
import { inWindows } from '../../kernels/windows.ts';
import { ANCHORS, element, type Anchor } from './anchors.ts';
import type { FusedEpilogue } from './epilogue.ts';
import { bindingOf, Emitter, stored } from './emitter.ts';
import { library } from './formulas.ts';
import { vectorize, type Lanes } from './vectorize.ts';
import { type Group } from './fuse.ts';
import {
  base,
  keyOf,
  bytesOf,
  sizeOf,
  typeOf,
  type Node,
  type OpName,
  type Reduction,
  type Value,
} from '../frontend/graph.ts';
import { opOf } from '../frontend/ops/index.ts';

export interface Lowered {
  launch: Launch;
  /** The value in each slot: inputs, then outputs. Scratch slots follow. */
  slots: Value[];
}

export interface LowerContext {
  caps: Caps;
  access(v: Value): Access;
  /** Key of a written value → the leaf whose bytes it takes over. */
  inPlace: ReadonlyMap<string, Value>;
  /** It is made in its place in what it is joined to. */
  inWhole(v: Value): boolean;
}

/** What is over the binding limit is bound in windows; a device of several subgroup sizes is told which. */
export function lower(group: Group, context: LowerContext): Lowered {
  const { launch, slots } = lowerWhole(group, context);
  const bytes = [...slots.map((v) => bytesOf(typeOf(v))), ...launch.scratch];
  const fit = (d: Dispatch): Dispatch => atSize(inWindows(d, bytes, context.caps), context.caps);
  return { slots, launch: { ...launch, dispatches: launch.dispatches.map(fit) } };
}

function lowerWhole(group: Group, context: LowerContext): Lowered {
  if (group.kind === 'pointwise') return lowerPointwise(group, context);
  if (group.kind === 'reduce') return lowerReduce(group, context);
  if (group.kind === 'join') return lowerJoin(group, context);
  const { node } = group;
  const inputs = node.inputs.map(base);
  const rule = ANCHORS[node.op as keyof typeof ANCHORS] as Anchor<OpName>;
  // A family binds each operand by itself: the second mention of a tensor is a copy in scratch.
  const first = inputs.map((v) => inputs.findIndex((w) => keyOf(w) === keyOf(v)));
  const access = inputs.map((v, i) => (first[i] === i ? context.access(v) : 'read_write'));
  const { epilogue } = group;
  const launch = rule(
    context.caps,
    node,
    access,
    epilogue && lowerEpilogue(epilogue, opOf(node.op).traits.epilogue !== 'flat', context),
  );
  const slots = [...inputs, ...group.roots, ...(epilogue?.leaves ?? [])];
  return first.every((f, i) => f === i) ? { launch, slots } : withCopies(launch, slots, first, context);
}

function lowerEpilogue(
  { product, root, leaves, kept }: FusedEpilogue,
  placed: boolean,
  context: LowerContext,
): Epilogue {
  const names = new Map(leaves.map((v, i) => [keyOf(v), `e${i}`]));
  const lanes = vectorize([root], new Set([...names.keys(), keyOf(product)]));
  const place = placed ? { row: 'row', col: 'col', cols: typeOf(product).shape.at(-1)! } : undefined;
  const emit = (width: 1 | 4): { emitter: Emitter; body: string } => {
    const emitter = new Emitter(context.caps, names, 'x', width === 4 ? lanes : undefined);
    emitter.know(product, 'v');
    const value = emitter.value(root, emitter.index(typeOf(root).shape, 'i', place), true);
    return { emitter, body: `${kept ? `kept[i / ${width}u] = v;\n` : ''}${emitter.take()}\nreturn ${value};` };
  };
  const { emitter, body } = emit(1); // sizes and constants are asked for in the same order at both widths
  const calls = lanes ? `${body}\n${emit(4).body}` : body;
  return {
    buffers: [
      ...(kept ? [{ ...bindingOf(context.caps, 'kept', 'f32', 'read_write'), wide: true }] : []),
      ...leaves.map((v, i) => ({
        ...bindingOf(context.caps, `e${i}`, 'f32', context.access(v)),
        wide: lanes?.get(keyOf(v)) === 'consecutive',
      })),
    ],
    params: emitter.params,
    functions: library(calls),
    body: (width) => emit(width).body,
  };
}

/** Copies of the parts that could not be made in their places. */
function lowerJoin({ node, roots, leaves }: Group, context: LowerContext): Lowered {
  const slots = [...leaves, ...roots];
  const dispatches: Launch['dispatches'] = [];
  let at = 0;
  for (const part of node.inputs.map(base)) {
    const type = typeOf(part);
    if (!context.inWhole(part)) {
      const {
        dispatches: [copy],
      } = pointwise(context.caps, {
        n: sizeOf(type),
        width: 4,
        name: 'join',
        params: [['at', at]],
        functions: '',
        body: 'b1[(i + p.at) / 4u] = b0[i / 4u];',
        flops: 0,
        bytes: 2 * bytesOf(type),
        buffers: [
          { name: 'b0', type: 'vec4f', access: context.access(part) },
          { name: 'b1', type: 'vec4f', access: 'read_write' },
        ],
      });
      dispatches.push({ ...copy!, bind: [leaves.findIndex((v) => keyOf(v) === keyOf(part)), leaves.length] });
    }
    at += sizeOf(type);
  }
  return { launch: { dispatches, scratch: [] }, slots };
}

function withCopies(launch: Launch, slots: Value[], first: readonly number[], context: LowerContext): Lowered {
  const kept = slots.filter((_, i) => i >= first.length || first[i] === i);
  const scratch = [...launch.scratch];
  const copies: Launch['dispatches'] = [];
  const place = slots.map((v, i) => {
    if (i >= first.length || first[i] === i) return kept.indexOf(v);
    const source = slots[i]!;
    const slot = kept.length + scratch.length;
    scratch.push(bytesOf(typeOf(source)));
    const { dtype } = typeOf(source);
    const copy = pointwise(context.caps, {
      n: sizeOf(typeOf(source)),
      width: 1,
      name: 'copy',
      params: [],
      functions: '',
      body: 'b1[i] = b0[i];',
      flops: 0,
      bytes: 2 * bytesOf(typeOf(source)),
      buffers: [
        bindingOf(context.caps, 'b0', dtype, context.access(source)),
        bindingOf(context.caps, 'b1', dtype, 'read_write'),
      ],
    });
    copies.push({ ...copy.dispatches[0]!, bind: [kept.indexOf(slots[first[i]!]!), slot] });
    return slot;
  });
  const moved = launch.dispatches.map((d) => ({
    ...d,
    bind: d.bind.map((s) => (s < slots.length ? place[s]! : kept.length + (s - slots.length))),
  }));
  return { launch: { dispatches: [...copies, ...moved], scratch }, slots: kept };
}

function lowerPointwise(group: Group, context: LowerContext): Lowered {
  const names = new Map<string, string>();
  const written = new Map(
    group.roots.map((r) => [context.inPlace.get(keyOf(r)) ? keyOf(context.inPlace.get(keyOf(r))!) : '', r]),
  );
  const slots: Value[] = [];
  const buffers: Binding[] = [];
  for (const v of group.leaves) {
    const name: string = `b${buffers.length}`;
    names.set(keyOf(v), name);
    const taker = written.get(keyOf(v));
    buffers.push(bindingOf(context.caps, name, typeOf(v).dtype, taker ? 'read_write' : context.access(v)));
    slots.push(v);
  }
  const n = sizeOf(typeOf(group.roots[0]!));
  const lanes = vectorize(group.roots, new Set(names.keys()));
  const emitter = new Emitter(context.caps, names, '', lanes);
  if (lanes)
    for (const b of buffers) if (lanes.get(keyOf(slots[buffers.indexOf(b)]!)) === 'consecutive') b.type = 'vec4f';
  // Roots of one size may differ in shape: a flat kernel has only the flat index.
  const stores: string[] = [];
  const indices = new Map<string, ReturnType<Emitter['index']>>();
  const flops = new Set<Node>();
  for (const root of group.roots) {
    const { shape, dtype } = typeOf(root);
    const index = indices.get(shape.join()) ?? indices.set(shape.join(), emitter.index(shape, 'i')).get(shape.join())!;
    const value = emitter.value(root, index, true);
    countNodes(root, names, flops);
    emitter.know(root, value);
    const over = context.inPlace.get(keyOf(root));
    let target = over && names.get(keyOf(over));
    if (!target) {
      target = `b${buffers.length}`;
      buffers.push({ ...bindingOf(context.caps, target, dtype, 'read_write'), ...(lanes && { type: 'vec4f' }) });
      slots.push(root);
    }
    stores.push(`${target}[${lanes ? 'i / 4u' : 'i'}] = ${stored(context.caps, root, value)};`);
  }
  const code = emitter.take();
  const bytes =
    group.leaves.reduce((s, v) => s + bytesOf(typeOf(v)), 0) + group.roots.reduce((s, v) => s + bytesOf(typeOf(v)), 0);
  const launch = pointwise(context.caps, {
    n,
    width: lanes ? 4 : 1,
    buffers,
    params: emitter.params,
    functions: library(code),
    body: `${code}\n${stores.join('\n')}`,
    name: label(flops),
    flops: flops.size * n,
    bytes,
  });
  return { launch, slots };
}

function countNodes(v: Value, leaves: ReadonlyMap<string, string>, into: Set<Node>): void {
  if (into.has(v.node)) return;
  into.add(v.node);
  for (const x of v.node.inputs) if (!leaves.has(keyOf(x)) && x.node.op !== 'const') countNodes(x, leaves, into);
}

/** The last few ops of the expression, in order: enough to recognise it in a profile. */
const label = (nodes: ReadonlySet<Node>): string =>
  [...nodes]
    .sort((a, b) => a.id - b.id)
    .map((n) => n.op)
    .slice(-6)
    .join('.');

/** How a tensor is read that is itself what a kernel reads. */
const readInFours = (v: Value): Map<string, Lanes> | undefined =>
  typeOf(v).dtype === 'f32' && sizeOf(typeOf(v)) % 4 === 0 ? new Map([[keyOf(v), 'consecutive']]) : undefined;

function lowerReduce(group: Group, context: LowerContext): Lowered {
  const node = group.node as Node<'sum'>;
  const input = node.inputs[0]!;
  const names = new Map(group.leaves.map((v, i) => [keyOf(v), `b${i}`]));
  const { shape } = typeOf(input);
  const dtype = element(typeOf(node.inputs[0]!).dtype);
  const source = (lanes?: ReadonlyMap<string, Lanes>): Source => {
    const emitter = new Emitter(context.caps, names, 'x', lanes);
    const value = emitter.value(input, emitter.index(shape, 'i'));
    const code = emitter.take();
    return {
      buffers: group.leaves.map((v, i): Binding => {
        const binding = bindingOf(context.caps, `b${i}`, typeOf(v).dtype, context.access(v));
        return lanes?.get(keyOf(v)) === 'consecutive' ? { ...binding, type: 'vec4f' } : binding;
      }),
      params: emitter.params,
      functions: `${library(code)}\nfn load(i: u32) -> ${lanes ? 'vec4f' : dtype} {\n${code}\nreturn ${value};\n}`,
    };
  };
  const lanes = names.has(keyOf(input)) ? readInFours(input) : vectorize([input], new Set(names.keys()));
  const dims: { size: number; reduce: boolean }[] = [];
  shape.forEach((size, k) => {
    if (size === 1) return;
    const reduced = node.attrs.axes.includes(k);
    const last = dims.at(-1);
    if (last?.reduce === reduced) last.size *= size;
    else dims.push({ size, reduce: reduced });
  });
  const launch = reduce(context.caps, {
    op: group.node.op as Reduction,
    dtype,
    dims,
    prologue: { ...source(), fours: lanes && source(lanes) },
  });
  const bytes = group.leaves.reduce((s, v) => s + bytesOf(typeOf(v)), 0) + sizeOf(node.outs[0]!) * BYTES.f32;
  if (launch.dispatches[0]) launch.dispatches[0].bytes = bytes;
  return { launch, slots: [...group.leaves, ...group.roots] };
}

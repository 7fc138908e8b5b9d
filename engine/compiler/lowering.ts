/**
 * Stage `lower`: group → launch. One exhaustively typed table says which kernel family an op goes to.
 *
 * This comes before `memory`, because a family's plan decides how much scratch it wants; buffers are still slots here.
 */
import {
  BYTES,
  numel,
  type Access,
  type Binding,
  type Caps,
  type DType,
  type Epilogue,
  type Launch,
} from '../../kernels/kernel.ts';
import { attention, attentionGrad } from '../../kernels/attention/index.ts';
import { conv3d, conv3dInput, conv3dWeight } from '../../kernels/conv3d/index.ts';
import { gather, scatterAdd } from '../../kernels/gather/index.ts';
import type { FloatType } from '../../kernels/halves.ts';
import { matmul } from '../../kernels/matmul/index.ts';
import { order } from '../../kernels/order/index.ts';
import { pointwise } from '../../kernels/pointwise/index.ts';
import { pool } from '../../kernels/pool/index.ts';
import { random } from '../../kernels/random/index.ts';
import { reduce, type Source } from '../../kernels/reduce/index.ts';
import { layerNorm, layerNormGrad, rmsNorm, rmsNormGrad, softmax, type RowsProblem } from '../../kernels/rows/index.ts';
import { scan } from '../../kernels/scan/index.ts';
import { inWindows } from '../../kernels/windows.ts';
import { linesOf } from '../frontend/ops/order.ts';
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
  type Inline,
  type Node,
  type OpName,
  type Reduction,
  type Triple,
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

type Anchor<K extends OpName> = (caps: Caps, node: Node<K>, access: Access[], epilogue?: Epilogue) => Launch;

const widest = (access: readonly Access[]): Access => (access.includes('read_write') ? 'read_write' : 'read');
const shapeOf = (n: Node, i: number) => typeOf(n.inputs[i]!).shape;
const dtypeOf = (n: Node, i: number) => typeOf(n.inputs[i]!).dtype;

function rows<K extends OpName>(family: (caps: Caps, p: RowsProblem) => Launch): Anchor<K> {
  return (caps, n, access, epilogue) => {
    const shape = shapeOf(n, 0);
    const cols = shape.at(-1) ?? 1;
    const { eps = 0 } = n.attrs as { eps?: number };
    return family(caps, { rows: numel(shape.slice(0, -1)), cols, eps, access, epilogue });
  };
}

function convolution<K extends 'conv3d' | 'conv3dInput' | 'conv3dWeight'>(
  family: typeof conv3d,
  shapes: (n: Node<K>) => { x: readonly number[]; w: readonly number[]; y: readonly number[] },
): Anchor<K> {
  return (caps, n, access, epilogue) => {
    const { x, w, y } = shapes(n);
    const { stride, padLo, half = false } = n.attrs;
    return family(caps, {
      N: x[0]!,
      C: x[1]!,
      O: w[0]!,
      in: x.slice(2) as unknown as Triple,
      out: y.slice(2) as unknown as Triple,
      kernel: w.slice(2) as unknown as Triple,
      stride,
      padLo,
      half,
      access: widest(access),
      epilogue,
    });
  };
}

/** argmax and argmin are the first of one; NaN is before it either way. */
function ordered<K extends 'argmax' | 'argmin' | 'topK'>(largest: (n: Node<K>) => boolean): Anchor<K> {
  return (caps, n, [access]) => {
    const { axis, k = 1 } = n.attrs as { axis: number; k?: number };
    return order(caps, {
      ...linesOf(shapeOf(n as unknown as Node, 0), axis),
      dtype: element(dtypeOf(n as unknown as Node, 0)),
      k,
      largest: largest(n),
      nanFirst: n.op !== 'topK',
      values: n.op === 'topK',
      access: access!,
    });
  };
}

function pooling<K extends 'sumPool' | 'maxPool'>(op: 'sum' | 'max'): Anchor<K> {
  return (caps, n, [access]) => {
    const x = shapeOf(n as unknown as Node, 0);
    const { kernel, stride, dilation, padLo } = n.attrs;
    const [from, to] = [x, n.outs[0]!.shape].map((s) => s.slice(-3) as unknown as Triple) as [Triple, Triple];
    const lines = numel(x.slice(0, -3));
    return pool(caps, { op, lines, in: from, out: to, kernel, stride, dilation, padLo, access: access! });
  };
}

function attentionOf<K extends 'attention' | 'attentionGrad'>(family: typeof attention, lengthsAt: number): Anchor<K> {
  return (caps, n, access) => {
    const [B, N, H, D] = shapeOf(n, 0) as [number, number, number, number];
    const L = shapeOf(n, 1)[1]!;
    const { scale, half = false } = n.attrs;
    return family(caps, { B, N, L, H, D, scale, half, lengths: n.inputs.length > lengthsAt, access });
  };
}

/** Every op that is neither an input nor inlined nor a reduction. */
const LOWER: { [K in Exclude<OpName, Inline | Reduction | 'input'>]: Anchor<K> } = {
  random: (caps, n, [access]) =>
    random(caps, { n: sizeOf(n.outs[0]!), dist: n.attrs.dist, stream: n.attrs.stream, access: access! }),
  matmul: (caps, n, access, epilogue) => {
    const { transA, transB } = n.attrs;
    const a = shapeOf(n, 0);
    const [M, N] = n.outs[0]!.shape.slice(-2) as [number, number];
    return matmul(caps, {
      batch: a.length === 3 ? a[0]! : 1,
      M,
      N,
      K: a.at(transA ? -2 : -1)!,
      transA,
      transB,
      dtypeA: float(dtypeOf(n, 0)),
      dtypeB: float(dtypeOf(n, 1)),
      access: [access[0]!, access[1]!],
      epilogue,
    });
  },
  conv3d: convolution(conv3d, (n) => ({ x: shapeOf(n, 0), w: shapeOf(n, 1), y: n.outs[0]!.shape })),
  conv3dInput: convolution(conv3dInput, (n) => ({ x: n.outs[0]!.shape, w: shapeOf(n, 1), y: shapeOf(n, 0) })),
  conv3dWeight: convolution(conv3dWeight, (n) => ({ x: shapeOf(n, 0), w: n.outs[0]!.shape, y: shapeOf(n, 1) })),
  attention: attentionOf(attention, 3),
  attentionGrad: attentionOf(attentionGrad, 6),
  softmax: rows(softmax),
  layerNorm: rows(layerNorm),
  layerNormGrad: rows(layerNormGrad),
  rmsNorm: rows(rmsNorm),
  rmsNormGrad: rows(rmsNormGrad),
  argmax: ordered(() => true),
  argmin: ordered(() => false),
  topK: ordered((n) => n.attrs.largest),
  cumSum: (caps, n, [access]) => {
    const { axis, exclusive, reverse } = n.attrs;
    const { shape, dtype } = n.outs[0]!;
    return scan(caps, { ...linesOf(shape, axis), dtype: element(dtype), exclusive, reverse, access: access! });
  },
  sumPool: pooling('sum'),
  maxPool: pooling('max'),
  gather: (caps, n, access) => {
    const table = shapeOf(n, 0);
    return gather(caps, {
      ids: sizeOf(typeOf(n.inputs[1]!)),
      rows: table[0]!,
      width: numel(table.slice(1)),
      idsDtype: integer(dtypeOf(n, 1)),
      access: widest(access),
    });
  },
  scatterAdd: (caps, n, access) =>
    scatterAdd(caps, {
      ids: sizeOf(typeOf(n.inputs[0]!)),
      rows: n.attrs.rows,
      width: sizeOf(n.outs[0]!) / n.attrs.rows,
      idsDtype: integer(dtypeOf(n, 0)),
      access: widest(access),
    }),
};

/** What a kernel computes in: floats as f32. */
const element = (d: DType): 'f32' | 'i32' | 'u32' => (d === 'i32' || d === 'u32' ? d : 'f32');

function float(d: DType): FloatType {
  if (d === 'f32' || d === 'f16' || d === 'bf16') return d;
  throw new Error(`[matmul] expected floats, got ${d}`);
}

function integer(d: DType): 'i32' | 'u32' {
  if (d === 'i32' || d === 'u32') return d;
  throw new Error(`[gather] expected i32 or u32 ids, got ${d}`);
}

/** What is over the binding limit is bound in windows. */
export function lower(group: Group, context: LowerContext): Lowered {
  const { launch, slots } = lowerWhole(group, context);
  const bytes = [...slots.map((v) => bytesOf(typeOf(v))), ...launch.scratch];
  return { slots, launch: { ...launch, dispatches: launch.dispatches.map((d) => inWindows(d, bytes, context.caps)) } };
}

function lowerWhole(group: Group, context: LowerContext): Lowered {
  if (group.kind === 'pointwise') return lowerPointwise(group, context);
  if (group.kind === 'reduce') return lowerReduce(group, context);
  if (group.kind === 'join') return lowerJoin(group, context);
  const { node } = group;
  const inputs = node.inputs.map(base);
  const rule = LOWER[node.op as keyof typeof LOWER] as Anchor<OpName>;
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

/**
 * The typed graph: what a traced function becomes, and what every stage of the compiler reads and writes.
 *
 * Nodes are made once (hash-consed: the same op on the same values is the same node), are never changed, and stand in
 * creation order, which is a valid schedule. A Value is one output of a node.
 */
import type { DType } from '../../kernels/kernel.ts';
import { ALIGN, numel, storageBytes } from '../../kernels/kernel.ts';

export interface TensorType {
  readonly shape: readonly number[];
  readonly dtype: DType;
}

type None = Record<string, never>;
const UNARY = [
  'neg',
  'exp',
  'log',
  'log1p',
  'sqrt',
  'rsqrt',
  'sin',
  'cos',
  'tanh',
  'sigmoid',
  'erf',
  'abs',
  'sign',
  'floor',
  'round',
  'isFinite',
  'unitScale',
] as const;
/** Comparisons give 1 or 0 in f32. */
const BINARY = ['add', 'sub', 'mul', 'div', 'max', 'min', 'pow', 'lt', 'le', 'eq'] as const;
const VIEW = ['detach', 'reshape', 'permute', 'expand', 'slice', 'pad', 'flip', 'concat'] as const;
const REDUCTION = ['sum', 'prod', 'amax', 'amin'] as const;
export type Unary = (typeof UNARY)[number];
export type Binary = (typeof BINARY)[number];
export type Triple = readonly [number, number, number];

/** Convolution geometry, (time, height, width). Layouts: x [N,C,T,H,W], w [O,C,kt,kh,kw]. `half`: operands may be rounded to f16. */
export interface ConvAttrs {
  stride: Triple;
  padLo: Triple;
  padHi: Triple;
  half?: true;
}

/** Windows over the last three axes; `dilation` stands between the elements of one. */
export interface PoolAttrs {
  kernel: Triple;
  stride: Triple;
  dilation: Triple;
  padLo: Triple;
  padHi: Triple;
}

/** Every op and its attributes. Pointwise ops take operands of one shape: broadcasting is an explicit `expand`. */
export type OpAttrs = { [K in Unary | Binary]: None } & {
  /** External tensor number `index` of the compiled function. */
  input: { index: number; name: string; type: TensorType };
  /** A scalar of shape []. */
  const: { value: number; dtype: DType };
  /** Index along `axis`, as f32. */
  iota: { shape: readonly number[]; axis: number };
  /** (key u32[2]) → f32. Counter-based: element i depends on (key, stream, i) only. */
  random: { shape: readonly number[]; dist: 'normal' | 'uniform'; stream: number };
  cast: { dtype: DType };
  /** (mask, a, b): a where mask is not 0. The branch not chosen never leaks. */
  where: None;
  /** Identity in value, zero in gradient. */
  detach: None;
  reshape: { shape: readonly number[] };
  permute: { order: readonly number[] };
  /** Sizes of 1 become any size; rank stays. */
  expand: { shape: readonly number[] };
  /** start ≤ i < end by step (≥ 1), one entry an axis. */
  slice: { start: readonly number[]; end: readonly number[]; step: readonly number[] };
  /** Zeros: lo in front, hi behind, `inner` between neighbours; all ≥ 0. */
  pad: { lo: readonly number[]; hi: readonly number[]; inner: readonly number[] };
  flip: { axes: readonly number[] };
  /** `join`: the whole is a tensor of its own, and each part is written where it lies in it (see `join` in functional.ts). */
  concat: { axis: number; join?: true };
  /** Reductions keep the reduced axes with size 1. */
  sum: { axes: readonly number[] };
  prod: { axes: readonly number[] };
  amax: { axes: readonly number[] };
  amin: { axes: readonly number[] };
  /** [M,K]·[K,N] or [B,M,K]·[B,K,N]; the flags say that the stored operand is [K,M] / [N,K]. */
  matmul: { transA: boolean; transB: boolean };
  conv3d: ConvAttrs;
  /** (dy, w) → dx of shape `shape`. */
  conv3dInput: ConvAttrs & { shape: readonly number[] };
  /** (x, dy) → dw of shape `shape`. */
  conv3dWeight: ConvAttrs & { shape: readonly number[] };
  /**
   * (q [B,N,H,D], k [B,L,H,D], v [B,L,H,D], lengths u32[B]?) → (o [B,N,H,D], lse [B,H,N]); keys at
   * or past lengths[b] are masked. `half`: operands may be rounded to f16.
   */
  attention: { scale: number; half?: true };
  /** (q, k, v, o, lse, do, lengths?) → (dq, dk, dv). */
  attentionGrad: { scale: number; half?: true };
  /** Over the last axis. */
  softmax: None;
  /** (x - mean) rsqrt(var + eps) over the last axis, no affine. */
  layerNorm: { eps: number };
  /** (x, dy) → dx. */
  layerNormGrad: { eps: number };
  /** x rsqrt(mean x² + eps) over the last axis, no affine. */
  rmsNorm: { eps: number };
  rmsNormGrad: { eps: number };
  sumPool: PoolAttrs;
  /** → (the largest of each window, which of its elements it is, i32): the first of equal ones, and NaN before all. Pads never win. */
  maxPool: PoolAttrs;
  /** i32, the axis kept with size 1; of equal elements the first, and NaN before all. */
  argmax: { axis: number };
  argmin: { axis: number };
  /** → (values, indices i32), k along the axis, in order; of equal elements the first comes first. NaN is above everything. */
  topK: { axis: number; k: number; largest: boolean };
  /** Running sums along the axis. `exclusive`: without the element itself. `reverse`: from its end. */
  cumSum: { axis: number; exclusive: boolean; reverse: boolean };
  /** (table [V,...D], ids u32/i32 [...]) → [...ids, ...D]. */
  gather: None;
  /** (ids [...], rows [...ids, ...D]) → [V, ...D], summed in index order. */
  scatterAdd: { rows: number };
};
export type OpName = keyof OpAttrs;

/** Ops that need no kernel of their own: code that is inlined where their value is read. */
export type Inline = Unary | Binary | 'cast' | 'where' | (typeof VIEW)[number] | 'const' | 'iota';
export type Reduction = (typeof REDUCTION)[number];
/** Element i of the result is computed from element i of each operand. */
export const POINTWISE: ReadonlySet<OpName> = new Set<OpName>([...UNARY, ...BINARY, 'cast', 'where']);
/** Index arithmetic, no computing. */
export const VIEWS: ReadonlySet<OpName> = new Set<OpName>(VIEW);
export const REDUCTIONS: ReadonlySet<OpName> = new Set<OpName>(REDUCTION);
export const INLINE: ReadonlySet<OpName> = new Set<OpName>([
  ...POINTWISE,
  ...VIEWS,
  'const',
  'iota',
] satisfies OpName[]);

/** How a node came about. */
export interface Made {
  /** The user's line, `model/wan/dit.ts:88`. */
  readonly site: string;
  /** Checkpoint segment the node was traced in; 0 is none. Clones made for recomputation carry a negative one. */
  readonly segment: number;
  /** Made by a sweep backwards; clones that repeat the forward pass are not. */
  readonly gradient: boolean;
}

export interface Node<out K extends OpName = OpName> extends Made {
  readonly id: number;
  readonly op: K;
  readonly attrs: OpAttrs[K];
  readonly inputs: readonly Value[];
  readonly outs: readonly TensorType[];
}

export interface Value {
  readonly node: Node;
  readonly out: number;
}

/** A name for a value, unique in its graph. */
export const keyOf = (v: Value): string => `${v.node.id}.${v.out}`;

/** The value whose bytes v shares: reshapes and detaches are names, not copies. */
export function base(v: Value): Value {
  while (v.node.op === 'reshape' || v.node.op === 'detach') v = v.node.inputs[0]!;
  return v;
}

/**
 * The external tensor that v's bytes are part of, and the byte they begin at: an input, or an aligned piece of one of rank 1, which a
 * kernel reads where it lies.
 */
export function inputOf(v: Value): { index: number; offset: number } | undefined {
  const { node } = v;
  if (node.op === 'input') return { index: (node as Node<'input'>).attrs.index, offset: 0 };
  if (node.op !== 'slice') return undefined;
  const source = node.inputs[0]!;
  const { start, step } = (node as Node<'slice'>).attrs;
  const offset = storageBytes(typeOf(source).dtype, start[0]!);
  if (source.node.op !== 'input' || start.length !== 1 || step[0] !== 1 || offset % ALIGN) return undefined;
  return { index: (source.node as Node<'input'>).attrs.index, offset };
}

/** A concatenation that its parts' makers write. */
export const isJoin = (n: Node): boolean => n.op === 'concat' && !!(n as Node<'concat'>).attrs.join;

export const typeOf = (v: Value): TensorType => v.node.outs[v.out]!;
export const sizeOf = (t: TensorType): number => numel(t.shape);
export const bytesOf = (t: TensorType): number => storageBytes(t.dtype, sizeOf(t));

/** The number that fills a tensor of one number: a constant, reshaped and expanded. */
export function constantOf({ node }: Value): number | null {
  while (node.op === 'reshape' || node.op === 'expand') ({ node } = node.inputs[0]!);
  return node.op === 'const' ? (node as Node<'const'>).attrs.value : null;
}

/** Attributes as text that tells apart whatever differs: JSON knows no infinities, and text no -0. */
export function attrsText<K extends OpName>(op: K, attrs: OpAttrs[K]): string {
  if (op !== 'const') return JSON.stringify(attrs);
  const { value, dtype } = attrs as OpAttrs['const'];
  return `${Object.is(value, -0) ? '-0' : value},${dtype}`;
}

export class Graph {
  readonly nodes: Node[] = [];
  private readonly known = new Map<string, Node>();

  /** Adds a node, or finds the one that is already there: only a new one takes its site. */
  add<K extends OpName>(
    op: K,
    inputs: readonly Value[],
    attrs: OpAttrs[K],
    outs: readonly TensorType[],
    made: Made,
  ): Node<K> {
    const { segment, gradient } = made;
    const key = `${op}|${inputs.map((v) => `${v.node.id}.${v.out}`).join()}|${attrsText(op, attrs)}|${segment < 0 ? segment : ''}`;
    const found = this.known.get(key);
    if (found) return found as Node<K>;
    const node: Node<K> = { id: this.nodes.length, op, attrs, inputs, outs, site: made.site, segment, gradient };
    this.nodes.push(node);
    this.known.set(key, node);
    return node;
  }

  /** One line a node: `%7 f32[2,80,128] = matmul(%3, %5) {transB} dit.ts:88`. */
  toString(): string {
    return this.nodes.map(printNode).join('\n');
  }
}

/** Makes a node of one output. */
export type MakeValue = <K extends OpName>(op: K, inputs: readonly Value[], attrs: OpAttrs[K]) => Value;

/** The outputs of a node. */
export const valuesOf = (node: Node): Value[] => node.outs.map((_, out) => ({ node, out }));

/** Makes what the outputs need again, node by node in order, through `copy`, which is given the new inputs. @returns the new outputs */
export function replay(
  graph: Graph,
  outputs: readonly Value[],
  copy: (node: Node, inputs: Value[]) => readonly Value[],
): Value[] {
  const live = new Set(outputs.map((v) => v.node));
  for (const node of graph.nodes.toReversed()) if (live.has(node)) for (const v of node.inputs) live.add(v.node);
  const made = new Map<Node, readonly Value[]>();
  const map = (v: Value): Value => made.get(v.node)![v.out]!;
  for (const node of graph.nodes) if (live.has(node)) made.set(node, copy(node, node.inputs.map(map)));
  return outputs.map(map);
}

export const printType = (t: TensorType): string => `${t.dtype}[${t.shape.join()}]`;

function printNode(n: Node): string {
  const args = n.inputs.map((v) => `%${v.node.id}${v.node.outs.length > 1 ? `.${v.out}` : ''}`).join(', ');
  const attrs = Object.keys(n.attrs).length ? ` ${JSON.stringify(n.attrs)}` : '';
  return `%${n.id} ${n.outs.map(printType).join(' ')} = ${n.op}(${args})${attrs}${n.segment ? ` seg ${n.segment}` : ''}${n.site ? `  ${n.site}` : ''}`;
}

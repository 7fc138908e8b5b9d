/** One node of a model as an op of the table sees it. */
import { evaluate } from '../../engine/frontend/oracle.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { tracing } from '../../engine/frontend/tracing.ts';
import type { HostTensor } from '../../engine/frontend/tree.ts';
import type { DType } from '../../kernels/kernel.ts';
import type { Attribute, ElementType, NodeProto } from './proto.ts';

/** What the engine cannot say, in a few words. */
export class Unsupported extends Error {}

/** What ONNX's element types are in the engine: narrow whole numbers in 32 bits, doubles in f32, bools as 1 and 0. */
const DTYPES: Partial<Record<ElementType, DType>> = {
  float: 'f32',
  double: 'f32',
  float16: 'f16',
  bool: 'f32',
  int8: 'i32',
  int16: 'i32',
  int32: 'i32',
  int64: 'i32',
  uint8: 'u32',
  uint16: 'u32',
  uint32: 'u32',
  uint64: 'u32',
};

export function dtypeFor(type: ElementType): DType {
  const dtype = DTYPES[type];
  if (!dtype) throw new Unsupported(`${type} is no type of the engine`);
  return dtype;
}

export class Call {
  readonly op: string;
  readonly opset: number;
  /** How many outputs are asked for. */
  readonly wanted: number;
  private readonly operands: readonly (Tensor | undefined)[];
  private readonly attributes: ReadonlyMap<string, Attribute>;
  private readonly inputs: readonly HostTensor[];

  /** `inputs`: the values of the trace's inputs, of which what the graph needs to know, as shapes and axes, is computed. */
  constructor(
    node: NodeProto,
    opset: number,
    operands: readonly (Tensor | undefined)[],
    inputs: readonly HostTensor[],
  ) {
    this.op = node.op;
    this.opset = opset;
    this.wanted = node.outputs.length;
    this.operands = operands;
    this.attributes = node.attributes;
    this.inputs = inputs;
  }

  has(i: number): boolean {
    return this.operands[i] !== undefined;
  }
  maybe(i: number): Tensor | undefined {
    return this.operands[i];
  }
  x(i: number): Tensor {
    const t = this.operands[i];
    if (!t) throw new Unsupported(`operand ${i} is left out`);
    return t;
  }
  all(): Tensor[] {
    return this.operands.map((_, i) => this.x(i));
  }

  number(name: string, otherwise: number): number {
    const a = this.attributes.get(name);
    return a?.f ?? a?.i ?? otherwise;
  }
  text(name: string, otherwise: string): string {
    return this.attributes.get(name)?.s ?? otherwise;
  }
  attribute(name: string): Attribute | undefined {
    return this.attributes.get(name);
  }
  list(name: string): number[] | undefined {
    const a = this.attributes.get(name);
    return a && (a.ints.length ? a.ints : a.floats);
  }

  /** The values of a tensor, by the oracle. */
  known(t: Tensor): number[] {
    return [...evaluate(tracing('onnx').graph, [t.value], this.inputs)[0]!.data];
  }
  /** Numbers that older operator sets have as an attribute and newer ones as an operand. */
  given(name: string, operand: number): number[] | undefined {
    const t = this.operands[operand];
    return this.list(name) ?? (t && this.known(t));
  }

  /** An axis of the first operand, or of `rank`, from the front. */
  axis(a: number, rank = this.x(0).shape.length): number {
    return a < 0 ? a + rank : a;
  }
}

export type OnnxOp = (c: Call) => Tensor | readonly (Tensor | undefined)[];
export type OnnxOps = Record<string, OnnxOp>;

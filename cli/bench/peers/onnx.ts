/** Writes small ONNX models: the few fields of the protobuf (onnx.proto3) that a graph of f32 operators needs. */
import { ATTENTION, CONV, type Work } from '../works.ts';

type Field = Uint8Array;
const text = (s: string): Uint8Array => new TextEncoder().encode(s);

function varint(n: number): number[] {
  const out: number[] = [];
  for (; n > 127; n = Math.floor(n / 128)) out.push((n % 128) | 128);
  return [...out, n];
}

const join = (parts: readonly Uint8Array[]): Uint8Array => Uint8Array.from(parts.flatMap((p) => [...p]));
/** Field of a number, a text or bytes, or a message. */
const int = (id: number, n: number): Field => Uint8Array.from([...varint(id * 8), ...varint(n)]);
const bytes = (id: number, data: Uint8Array | string): Field => {
  const raw = typeof data === 'string' ? text(data) : data;
  return join([Uint8Array.from([...varint(id * 8 + 2), ...varint(raw.length)]), raw]);
};
const message = (id: number, ...fields: readonly Field[]): Field => bytes(id, join(fields));
const float = (id: number, x: number): Field =>
  Uint8Array.from([...varint(id * 8 + 5), ...new Uint8Array(Float32Array.of(x).buffer)]);

type Attribute = number | string | readonly number[];
/** AttributeProto: name 1, f 2, i 3, s 4, ints 8, type 20 (1 float, 2 int, 3 string, 7 ints). Whole numbers are ints. */
const attribute = ([name, value]: [string, Attribute]): Field =>
  message(
    5,
    bytes(1, name),
    ...(typeof value === 'string'
      ? [bytes(4, value), int(20, 3)]
      : typeof value !== 'number'
        ? [...value.map((n) => int(8, n)), int(20, 7)]
        : Number.isInteger(value)
          ? [int(3, value), int(20, 2)]
          : [float(2, value), int(20, 1)]),
  );

interface Node {
  op: string;
  inputs: readonly string[];
  output: string;
  domain?: string;
  attributes?: Record<string, Attribute>;
}

/** NodeProto: input 1, output 2, op_type 4, attribute 5, domain 7. */
const node = ({ op, inputs, output, domain = '', attributes = {} }: Node): Field =>
  message(
    1,
    ...inputs.map((i) => bytes(1, i)),
    bytes(2, output),
    bytes(4, op),
    ...Object.entries(attributes).map(attribute),
    bytes(7, domain),
  );

/** ValueInfoProto with a tensor type of f32. */
const value = (id: number, name: string, shape: readonly number[]): Field =>
  message(
    id,
    bytes(1, name),
    message(2, message(1, int(1, 1), message(2, ...shape.map((n) => message(1, int(1, n)))))),
  );

const scalar = (name: string, x: number): Field =>
  message(5, int(2, 1), bytes(8, name), bytes(9, new Uint8Array(Float32Array.of(x).buffer)));

export interface Model {
  bytes: Uint8Array;
  inputs: readonly (readonly number[])[];
  output: readonly number[];
}

interface Graph {
  nodes: readonly Node[];
  constants?: Record<string, number>;
  inputs?: readonly (readonly number[])[];
  output: readonly number[];
}

/** Inputs are named x0, x1, …, the output y. */
function model(work: Work, { nodes, constants = {}, inputs = work.inputs, output }: Graph): Model {
  const opset = (domain: string, version: number): Field => message(8, bytes(1, domain), int(2, version));
  const graph = message(
    7,
    ...nodes.map(node),
    bytes(2, 'g'),
    ...Object.entries(constants).map(([n, x]) => scalar(n, x)),
    ...inputs.map((s, i) => value(11, `x${i}`, s)),
    value(12, 'y', output),
  );
  return { bytes: join([int(1, 9), graph, opset('', 20), opset('com.microsoft', 1)]), inputs, output };
}

function composedAttention(work: Work): Model {
  const turn = (input: string, output: string, perm: readonly number[]): Node => ({
    op: 'Transpose',
    inputs: [input],
    output,
    attributes: { perm },
  });
  return model(work, {
    output: work.inputs[0]!,
    constants: { scale: ATTENTION.size ** -0.5 },
    nodes: [
      turn('x0', 'q', [0, 2, 1, 3]),
      turn('x1', 'k', [0, 2, 3, 1]),
      turn('x2', 'v', [0, 2, 1, 3]),
      { op: 'MatMul', inputs: ['q', 'k'], output: 'scores' },
      { op: 'Mul', inputs: ['scores', 'scale'], output: 'scaled' },
      { op: 'Softmax', inputs: ['scaled'], output: 'p', attributes: { axis: 3 } },
      { op: 'MatMul', inputs: ['p', 'v'], output: 'o' },
      turn('o', 'y', [0, 2, 1, 3]),
    ],
  });
}

function fusedAttention(work: Work): Model {
  const { tokens, heads, size } = ATTENTION;
  const rows = [1, tokens, heads * size];
  return model(work, {
    inputs: [rows, rows, rows],
    output: rows,
    nodes: [
      {
        op: 'MultiHeadAttention',
        domain: 'com.microsoft',
        inputs: ['x0', 'x1', 'x2'],
        output: 'y',
        attributes: { num_heads: heads },
      },
    ],
  });
}

/** The work as a model; undefined where ONNX has no such operator, which it has for no gradient. */
export function modelOf(work: Work, fused: boolean): Model | undefined {
  const one = (op: string, output: readonly number[], attributes: Record<string, Attribute> = {}): Model =>
    model(work, { output, nodes: [{ op, inputs: work.inputs.map((_, i) => `x${i}`), output: 'y', attributes }] });
  switch (work.name) {
    case 'matmul 512':
    case 'matmul 1024':
      return one('MatMul', work.inputs[0]!);
    case 'attention':
      return fused ? fusedAttention(work) : composedAttention(work);
    case 'conv3d':
      return one('Conv', [1, CONV.co, ...CONV.size], {
        kernel_shape: [3, 3, 3],
        pads: [1, 1, 1, 1, 1, 1],
        strides: [1, 1, 1],
      });
    case 'layer norm':
      return one('LayerNormalization', work.inputs[0]!, { axis: 1, epsilon: 1e-5 });
    case 'GELU':
      return one('Gelu', work.inputs[0]!, { approximate: 'tanh' });
    default:
      return undefined;
  }
}

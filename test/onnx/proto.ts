/** ONNX files as far as the operator cases need them: protobuf's wire format and the few messages of onnx.proto. */

interface Field {
  number: number;
  /** Whole numbers: one, or many where they are packed. */
  ints: () => number[];
  floats: () => number[];
  doubles: () => number[];
  bytes: Uint8Array;
}

/** What is of no fixed width, as a number: ids and sizes, all below 2⁵³. */
function varint(bytes: Uint8Array, at: number): { value: number; next: number } {
  let value = 0n;
  for (let shift = 0n; ; shift += 7n) {
    const byte = bytes[at++];
    if (byte === undefined) throw new Error('the file ends in the middle of a number');
    value |= BigInt(byte & 0x7f) << shift;
    if (byte < 0x80) return { value: Number(BigInt.asIntN(64, value)), next: at };
  }
}

const view = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
const many = (bytes: Uint8Array, width: number, read: (v: DataView, at: number) => number): number[] =>
  Array.from({ length: bytes.length / width }, (_, i) => read(view(bytes), i * width));

/** The fields of a message, in order. */
function* fields(bytes: Uint8Array): Generator<Field> {
  for (let at = 0; at < bytes.length;) {
    const head = varint(bytes, at);
    const [number, wire] = [head.value >>> 3, head.value & 7];
    let start = head.next;
    let end: number;
    if (wire === 0) end = varint(bytes, start).next;
    else if (wire === 1) end = start + 8;
    else if (wire === 5) end = start + 4;
    else if (wire === 2) {
      const length = varint(bytes, start);
      start = length.next;
      end = start + length.value;
    } else throw new Error(`wire type ${wire} at byte ${at} is none of protobuf's`);
    if (end > bytes.length) throw new Error(`field ${number} at byte ${at} is longer than its message`);
    const body = bytes.subarray(start, end);
    at = end;
    yield {
      number,
      bytes: body,
      ints: () => {
        const list: number[] = [];
        for (let i = 0; i < body.length;) {
          const { value, next } = varint(body, i);
          list.push(value);
          i = next;
        }
        return list;
      },
      floats: () => many(body, 4, (v, i) => v.getFloat32(i, true)),
      doubles: () => many(body, 8, (v, i) => v.getFloat64(i, true)),
    };
  }
}

const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

/** ONNX's numbers for element types. */
export const TYPES = {
  1: 'float',
  2: 'uint8',
  3: 'int8',
  4: 'uint16',
  5: 'int16',
  6: 'int32',
  7: 'int64',
  8: 'string',
  9: 'bool',
  10: 'float16',
  11: 'double',
  12: 'uint32',
  13: 'uint64',
  14: 'complex64',
  15: 'complex128',
  16: 'bfloat16',
} as const;
export type ElementType = (typeof TYPES)[keyof typeof TYPES];
export const typeNamed = (n: number): ElementType => {
  const found = (TYPES as Record<number, ElementType | undefined>)[n];
  if (!found) throw new Error(`element type ${n} is unknown`);
  return found;
};

export interface TensorProto {
  name: string;
  shape: number[];
  type: ElementType;
  /** Empty for strings. */
  data: number[];
}

/** A half-precision number from its bits. */
function half(bits: number): number {
  const [sign, exponent, fraction] = [bits & 0x8000 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024));
}

type Raw = [width: number, read: (v: DataView, at: number) => number];
const RAW: Partial<Record<ElementType, Raw>> = {
  float: [4, (v, i) => v.getFloat32(i, true)],
  uint8: [1, (v, i) => v.getUint8(i)],
  int8: [1, (v, i) => v.getInt8(i)],
  uint16: [2, (v, i) => v.getUint16(i, true)],
  int16: [2, (v, i) => v.getInt16(i, true)],
  int32: [4, (v, i) => v.getInt32(i, true)],
  int64: [8, (v, i) => Number(v.getBigInt64(i, true))],
  bool: [1, (v, i) => v.getUint8(i)],
  float16: [2, (v, i) => half(v.getUint16(i, true))],
  double: [8, (v, i) => v.getFloat64(i, true)],
  uint32: [4, (v, i) => v.getUint32(i, true)],
  uint64: [8, (v, i) => Number(v.getBigUint64(i, true))],
};

export function readTensor(bytes: Uint8Array): TensorProto {
  const t: TensorProto = { name: '', shape: [], type: 'float', data: [] };
  let raw: Uint8Array | undefined;
  for (const f of fields(bytes)) {
    if (f.number === 1) t.shape.push(...f.ints());
    else if (f.number === 2) t.type = typeNamed(f.ints()[0]!);
    else if (f.number === 4) t.data.push(...f.floats());
    else if (f.number === 5 || f.number === 7 || f.number === 11) t.data.push(...f.ints());
    else if (f.number === 8) t.name = text(f.bytes);
    else if (f.number === 9) raw = f.bytes;
    else if (f.number === 10) t.data.push(...f.doubles());
  }
  const how = RAW[t.type];
  if (raw && how) t.data = many(raw, ...how);
  else if (t.type === 'float16') t.data = t.data.map(half);
  return t;
}

export interface Attribute {
  f?: number;
  i?: number;
  s?: string;
  t?: TensorProto;
  floats: number[];
  ints: number[];
  /** It holds a graph: the op is control flow. */
  graph?: true;
}

export interface NodeProto {
  op: string;
  domain: string;
  inputs: string[];
  outputs: string[];
  attributes: Map<string, Attribute>;
}

function readAttribute(bytes: Uint8Array): [string, Attribute] {
  let name = '';
  const a: Attribute = { floats: [], ints: [] };
  for (const f of fields(bytes)) {
    if (f.number === 1) name = text(f.bytes);
    else if (f.number === 2) a.f = f.floats()[0]!;
    else if (f.number === 3) a.i = f.ints()[0]!;
    else if (f.number === 4) a.s = text(f.bytes);
    else if (f.number === 5) a.t = readTensor(f.bytes);
    else if (f.number === 6) a.graph = true;
    else if (f.number === 7) a.floats.push(...f.floats());
    else if (f.number === 8) a.ints.push(...f.ints());
  }
  return [name, a];
}

function readNode(bytes: Uint8Array): NodeProto {
  const n: NodeProto = { op: '', domain: '', inputs: [], outputs: [], attributes: new Map() };
  for (const f of fields(bytes)) {
    if (f.number === 1) n.inputs.push(text(f.bytes));
    else if (f.number === 2) n.outputs.push(text(f.bytes));
    else if (f.number === 4) n.op = text(f.bytes);
    else if (f.number === 5) n.attributes.set(...readAttribute(f.bytes));
    else if (f.number === 7) n.domain = text(f.bytes);
  }
  return n;
}

export interface ValueInfo {
  name: string;
  /** None for sequences, maps and optional values. */
  type?: ElementType;
}

export interface Model {
  nodes: NodeProto[];
  initializers: TensorProto[];
  inputs: ValueInfo[];
  outputs: ValueInfo[];
  /** Version of the default operator set. */
  opset: number;
}

function readInfo(bytes: Uint8Array): ValueInfo {
  const info: ValueInfo = { name: '' };
  for (const f of fields(bytes)) {
    if (f.number === 1) info.name = text(f.bytes);
    if (f.number !== 2) continue;
    for (const kind of fields(f.bytes))
      if (kind.number === 1)
        for (const t of fields(kind.bytes)) if (t.number === 1) info.type = typeNamed(t.ints()[0]!);
  }
  return info;
}

export function readModel(bytes: Uint8Array): Model {
  const m: Model = { nodes: [], initializers: [], inputs: [], outputs: [], opset: 1 };
  for (const f of fields(bytes)) {
    if (f.number === 8) {
      const set = [...fields(f.bytes)];
      const domain = set.find((e) => e.number === 1);
      if (!domain || text(domain.bytes) === '') m.opset = set.find((e) => e.number === 2)?.ints()[0] ?? 1;
    }
    if (f.number !== 7) continue;
    for (const g of fields(f.bytes)) {
      if (g.number === 1) m.nodes.push(readNode(g.bytes));
      else if (g.number === 5) m.initializers.push(readTensor(g.bytes));
      else if (g.number === 11) m.inputs.push(readInfo(g.bytes));
      else if (g.number === 12) m.outputs.push(readInfo(g.bytes));
    }
  }
  return m;
}

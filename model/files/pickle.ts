/**
 * Pickles that hold tensors and plain data, read without running anything: a stack machine with the opcodes below and the
 * functions its caller names. Any other opcode or name is refused.
 *
 * Opcodes: Lib/pickletools.py of Python; `torch.save` writes protocol 2.
 */
import { decodeUtf8 } from './stored.ts';
import { quoted } from './json.ts';

/** Lists and tuples are arrays; what the caller's functions make is opaque. */
export type Value = null | boolean | number | string | readonly Value[] | Dict | object;
export class Dict extends Map<string | number, Value> {}

/** What a name of Python's stands for: a function, which a pickle may call, or something it may only mention. */
export type Global = ((args: readonly Value[]) => Value) | object;

export interface Rules {
  /** `module.name` → what it stands for. */
  readonly globals: ReadonlyMap<string, Global>;
  /** Stands for an object outside of the pickle. */
  readonly persistent: (id: Value) => Value;
}

/** Beyond what a state dict of 50,000 tensors takes; a bomb is stopped after a second. */
const [MAX_OPS, MAX_MADE] = [2e6, 4e5];

/** Names of the opcodes that are not in `OPS`, for the error. */
const REFUSED: Record<string, string> = {
  0: 'POP',
  1: 'POP_MARK',
  2: 'DUP',
  F: 'FLOAT',
  I: 'INT',
  L: 'LONG',
  P: 'PERSID',
  S: 'STRING',
  T: 'BINSTRING',
  U: 'SHORT_BINSTRING',
  V: 'UNICODE',
  d: 'DICT',
  g: 'GET',
  i: 'INST',
  l: 'LIST',
  o: 'OBJ',
  p: 'PUT',
  B: 'BINBYTES',
  C: 'SHORT_BINBYTES',
  '\x81': 'NEWOBJ',
  '\x82': 'EXT1',
  '\x83': 'EXT2',
  '\x84': 'EXT4',
  '\x8b': 'LONG4',
  '\x8c': 'SHORT_BINUNICODE',
  '\x8d': 'BINUNICODE8',
  '\x8e': 'BINBYTES8',
  '\x8f': 'EMPTY_SET',
  '\x90': 'ADDITEMS',
  '\x91': 'FROZENSET',
  '\x92': 'NEWOBJ_EX',
  '\x93': 'STACK_GLOBAL',
  '\x94': 'MEMOIZE',
  '\x95': 'FRAME',
  '\x96': 'BYTEARRAY8',
  '\x97': 'NEXT_BUFFER',
  '\x98': 'READONLY_BUFFER',
};

class Machine {
  private readonly bytes: Uint8Array;
  private readonly data: DataView;
  private readonly rules: Rules;
  private at = 0;
  private made = 0;
  private stack: Value[] = [];
  private readonly marks: Value[][] = [];
  private readonly memo = new Map<number, Value>();
  private readonly names = new Map<object, string>();

  constructor(bytes: Uint8Array, rules: Rules) {
    this.bytes = bytes;
    this.data = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.rules = rules;
  }

  run(): Value {
    for (let ops = 0; ; ops++) {
      if (ops >= MAX_OPS) throw new Error(`has more than ${MAX_OPS} opcodes, more than any model's tensors need`);
      const byte = this.unsigned(1);
      const work = WORK[byte];
      if (byte === STOP) break;
      if (!work)
        throw new Error(
          `opcode ${REFUSED[String.fromCharCode(byte)] ?? `0x${byte.toString(16).padStart(2, '0')}`} at byte ${this.at - 1} is not allowed`,
        );
      work(this);
    }
    if (this.at !== this.bytes.length) throw new Error(`${this.bytes.length - this.at} bytes stand behind its end`);
    return this.pop();
  }

  take(n: number): Uint8Array {
    if (this.at + n > this.bytes.length)
      throw new Error(`ends in the middle of an opcode, at byte ${this.bytes.length}`);
    this.at += n;
    return this.bytes.subarray(this.at - n, this.at);
  }

  /** An argument of 1, 2 or 4 bytes, little-endian. */
  unsigned(n: 1 | 2 | 4): number {
    if (n === 1 && this.at < this.bytes.length) return this.bytes[this.at++]!;
    return this.take(n).reduceRight((sum, byte) => sum * 256 + byte, 0);
  }

  double(): number {
    this.take(8);
    return this.data.getFloat64(this.at - 8);
  }

  line(): string {
    const end = this.bytes.indexOf(10, this.at);
    if (end < 0) throw new Error('a name has no end');
    const text = decodeUtf8(this.bytes.subarray(this.at, end));
    this.at = end + 1;
    return text;
  }

  push(value: Value): void {
    this.stack.push(value);
  }

  /** A list, a dict, a tuple or what a function makes: each takes far more memory than its opcode. */
  make(value: Value): void {
    this.count();
    this.push(value);
  }

  private count(): void {
    if (++this.made > MAX_MADE)
      throw new Error(`makes more than ${MAX_MADE} lists, dicts and tuples, more than any model's tensors need`);
  }

  pop(): Value {
    const value = this.stack.pop();
    if (value === undefined) throw new Error(`takes more values than there are, at byte ${this.at - 1}`);
    return value;
  }

  top(): Value {
    const value = this.pop();
    this.stack.push(value);
    return value;
  }

  mark(): void {
    this.count();
    this.marks.push(this.stack);
    this.stack = [];
  }

  sinceMark(): Value[] {
    const below = this.marks.pop();
    if (!below) throw new Error(`takes a mark where there is none, at byte ${this.at - 1}`);
    const values = this.stack;
    this.stack = below;
    return values;
  }

  put(index: number): void {
    this.memo.set(index, this.top());
  }

  get(index: number): void {
    const value = this.memo.get(index);
    if (value === undefined) throw new Error(`reads place ${index} of its memory, which is empty`);
    this.push(value);
  }

  global(): void {
    const name = `${this.line()}.${this.line()}`;
    const known = this.rules.globals.get(name);
    if (!known) throw new Error(`the name ${quoted(name)} is not allowed: only tensors are read`);
    this.names.set(known, name);
    this.push(known);
  }

  reduce(): void {
    const [args, callee] = [this.pop(), this.pop()];
    if (typeof callee !== 'function' || !Array.isArray(args))
      throw new Error(
        `calls ${quoted(this.names.get(callee as object) ?? 'what is no function')}, which is not allowed`,
      );
    this.make((callee as (args: readonly Value[]) => Value)(args as Value[]));
  }

  persistent(): void {
    this.push(this.rules.persistent(this.pop()));
  }

  setItems(items: readonly Value[]): void {
    const dict = this.top();
    if (!(dict instanceof Dict) || items.length % 2) throw new Error(`fills what is no dict, at byte ${this.at - 1}`);
    for (let i = 0; i < items.length; i += 2) {
      const key = items[i]!;
      if (typeof key !== 'string' && typeof key !== 'number')
        throw new Error('a dict has a key that is neither text nor a number');
      if (dict.has(key)) throw new Error(`the name ${quoted(key)} stands twice`);
      dict.set(key, items[i + 1]!);
    }
  }

  appendItems(items: readonly Value[]): void {
    const list = this.top();
    if (!Array.isArray(list)) throw new Error(`appends to what is no list, at byte ${this.at - 1}`);
    for (const item of items) list.push(item);
  }

  /** Attributes of a dict (PyTorch keeps versions there) mean nothing here. */
  build(): void {
    this.pop();
    if (!(this.top() instanceof Dict)) throw new Error(`sets attributes of what is no dict, at byte ${this.at - 1}`);
  }

  /** Two's complement, little-endian. */
  long(): number {
    const bytes = this.take(this.unsigned(1));
    const value = bytes.reduceRight((sum, byte) => sum * 256n + BigInt(byte), 0n);
    return Number(BigInt.asIntN(8 * bytes.length, value));
  }
}

const tuple =
  (n: number) =>
  (m: Machine): void =>
    m.make(Array.from({ length: n }, () => m.pop()).reverse());

const OPS: ReadonlyMap<string, (m: Machine) => void> = new Map(
  Object.entries({
    '\x80': (m: Machine) => void m.unsigned(1), // PROTO
    c: (m: Machine) => m.global(), // GLOBAL
    R: (m: Machine) => m.reduce(), // REDUCE
    b: (m: Machine) => m.build(), // BUILD
    Q: (m: Machine) => m.persistent(), // BINPERSID
    '(': (m: Machine) => m.mark(), // MARK
    q: (m: Machine) => m.put(m.unsigned(1)), // BINPUT
    r: (m: Machine) => m.put(m.unsigned(4)), // LONG_BINPUT
    h: (m: Machine) => m.get(m.unsigned(1)), // BINGET
    j: (m: Machine) => m.get(m.unsigned(4)), // LONG_BINGET
    N: (m: Machine) => m.push(null), // NONE
    '\x88': (m: Machine) => m.push(true), // NEWTRUE
    '\x89': (m: Machine) => m.push(false), // NEWFALSE
    K: (m: Machine) => m.push(m.unsigned(1)), // BININT1
    M: (m: Machine) => m.push(m.unsigned(2)), // BININT2
    J: (m: Machine) => m.push(m.unsigned(4) | 0), // BININT
    '\x8a': (m: Machine) => m.push(m.long()), // LONG1
    G: (m: Machine) => m.push(m.double()), // BINFLOAT
    X: (m: Machine) => m.push(decodeUtf8(m.take(m.unsigned(4)))), // BINUNICODE
    ')': tuple(0),
    '\x85': tuple(1),
    '\x86': tuple(2),
    '\x87': tuple(3), // EMPTY_TUPLE, TUPLE1, TUPLE2, TUPLE3
    t: (m: Machine) => m.make(m.sinceMark()), // TUPLE
    ']': (m: Machine) => m.make([]), // EMPTY_LIST
    a: (m: Machine) => m.appendItems([m.pop()]), // APPEND
    e: (m: Machine) => m.appendItems(m.sinceMark()), // APPENDS
    '}': (m: Machine) => m.make(new Dict()), // EMPTY_DICT
    s: (m: Machine) => m.setItems([m.pop(), m.pop()].reverse()), // SETITEM
    u: (m: Machine) => m.setItems(m.sinceMark()), // SETITEMS
  }),
);

/** By the opcode's byte. */
const WORK = Array.from({ length: 256 }, (_, byte) => OPS.get(String.fromCharCode(byte)));
const STOP = 0x2e;

/** The value a pickle stands for. @throws what is not allowed or damaged, and where */
export const unpickle = (bytes: Uint8Array, rules: Rules): Value => new Machine(bytes, rules).run();

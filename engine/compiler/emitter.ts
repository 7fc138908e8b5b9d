/**
 * Expressions to WGSL: a value at an index becomes straight-line scalar code. Views are index arithmetic on the way down to
 * the leaves; sizes and constants go through the uniform so that equal structures share one shader.
 */
import { BF16, floatReader, nativeHalf, type FloatType } from '../../kernels/halves.ts';
import { f32bits, type Access, type Binding, type Caps, type DType } from '../../kernels/kernel.ts';
import { EngineError } from '../host/errors.ts';
import { quotientFunction } from '../../kernels/quotient.ts';
import { TRIG } from '../../kernels/trig.ts';
import {
  keyOf,
  typeOf,
  sizeOf,
  type Binary,
  type Node,
  type OpAttrs,
  type OpName,
  type Unary,
  type Value,
} from '../frontend/graph.ts';
import { opOf } from '../frontend/ops/index.ts';
import { Index, type Place } from './index-space.ts';
import { swapsPairs, type Lanes } from './vectorize.ts';

/** `t` is the type, f32 or vec4f. */
const UNARY: { [K in Unary]: (a: string, t: string) => string } = {
  neg: (a) => `-${a}`,
  exp: (a) => `exp(${a})`,
  log: (a) => `log(${a})`,
  sqrt: (a) => `sqrt(${a})`,
  rsqrt: (a) => `inverseSqrt(${a})`,
  sin: (a) => `sine(${a})`,
  cos: (a) => `cosine(${a})`,
  tanh: (a, t) => `tanh(clamp(${a}, ${t}(-15.0), ${t}(15.0)))`, // tanh(100) is NaN on one driver
  sigmoid: (a) => `(1.0 / (1.0 + exp(-${a})))`,
  erf: (a) => `erf(${a})`,
  abs: (a) => `abs(${a})`,
  sign: (a) => `sign(${a})`,
  floor: (a) => `floor(${a})`,
  round: (a) => `round(${a})`, // ties to even
  isFinite: (a) => `finite(${a})`,
};
const BINARY: { [K in Binary]: (a: string, b: string, t: string) => string } = {
  add: (a, b) => `${a} + ${b}`,
  sub: (a, b) => `${a} - ${b}`,
  mul: (a, b) => `${a} * ${b}`,
  div: (a, b) => `${a} / ${b}`,
  max: (a, b) => `max(${a}, ${b})`,
  min: (a, b) => `min(${a}, ${b})`,
  pow: (a, b) => `power(${a}, ${b})`,
  lt: (a, b, t) => `select(${t}(0.0), ${t}(1.0), ${a} < ${b})`,
  le: (a, b, t) => `select(${t}(0.0), ${t}(1.0), ${a} <= ${b})`,
  eq: (a, b, t) => `select(${t}(0.0), ${t}(1.0), ${a} == ${b})`,
};

/** Functions that generated code may call; only those named in it are put into the module. */
const LIBRARY: Record<string, string> = {
  divide: quotientFunction('divide'),
  // pow of a negative base with an integer exponent is undefined in WGSL; 0^0 is 1.
  power: `fn power(a: f32, b: f32) -> f32 {
  if (b == 0.0) { return 1.0; }
  let m = pow(abs(a), b);
  return select(m, -m, a < 0.0 && floor(b * 0.5) * 2.0 != b);
}`,
  finite: `fn finite(x: f32) -> f32 { return select(0.0, 1.0, (bitcast<u32>(x) & 0x7f800000u) != 0x7f800000u); }`, // WGSL may assume NaN away: test bits
  // Maclaurin series below 0.9, Chebyshev fit of erfc (Numerical Recipes, erfcc) above: 1e-7 relative on both sides.
  erf: `fn erf(x: f32) -> f32 {
  let a = abs(x);
  if (a < 0.9) {
    let s = x * x;
    return x * (1.1283791671 + s * (-0.3761263890 + s * (0.1128379167 + s * (-0.0268661706 + s * (0.0052239776 + s * (-0.0008548327 + s * (0.0001205533 + s * (-0.0000149256 + s * 0.0000016462))))))));
  }
  let t = 1.0 / (1.0 + 0.5 * a);
  let y = t * exp(-a * a - 1.26551223 + t * (1.00002368 + t * (0.37409196 + t * (0.09678418 + t * (-0.18628806 + t * (0.27886807 + t * (-1.13520398 + t * (1.48851587 + t * (-0.82215223 + t * 0.17087277)))))))));
  return select(y - 1.0, 1.0 - y, x >= 0.0);
}`,
};

export class Emitter {
  /** Uniform words, in the order of the struct. */
  readonly params: [string, number][] = [];
  private lines: string[] = [];
  private count = 0;
  private readonly prefix: string;
  private readonly leaves: ReadonlyMap<string, string>;
  private readonly seen = new Map<string, string>();
  private readonly known = new Map<string, string>();
  private readonly ids = new Map<Index, number>();
  private readonly derived = new Map<string, Index>();

  private readonly caps: Caps;
  private readonly lanes: ReadonlyMap<string, Lanes> | undefined;

  /**
   * `leaves`: value key → name of its storage binding. `prefix` keeps names apart when two pieces of code meet in a module.
   * With `lanes` (see vectorize) code is for four consecutive elements and f32 values are vec4f; leaves read so are bound as
   * vec4f.
   */
  constructor(caps: Caps, leaves: ReadonlyMap<string, string>, prefix = '', lanes?: ReadonlyMap<string, Lanes>) {
    this.caps = caps;
    this.leaves = leaves;
    this.prefix = prefix;
    this.lanes = lanes;
  }

  /** WGSL type a value is computed in: halves are widened on load and rounded on store. */
  private type(d: DType): string {
    if (d === 'i32' || d === 'u32') return d;
    return this.lanes ? 'vec4f' : 'f32';
  }

  let(type: string, text: string): string {
    const name = `${this.prefix}v${this.count++}`;
    this.lines.push(`let ${name}: ${type} = ${text};`);
    return name;
  }

  /** A size as a uniform word. */
  size(value: number): string {
    const name = `${this.prefix}s${this.params.length}`;
    this.params.push([name, value]);
    return `p.${name}`;
  }

  /** The statements so far. */
  take(): string {
    const text = this.lines.join('\n');
    this.lines = [];
    return text;
  }

  index(shape: readonly number[], flat: string, place?: Place): Index {
    return new Index(this, shape, () => flat, undefined, place);
  }

  /** Names a root that this kernel has computed for its element: later roots read the register, not the buffer. */
  know(v: Value, name: string): void {
    this.known.set(keyOf(v), name);
  }

  private idOf(index: Index): number {
    let id = this.ids.get(index);
    if (id === undefined) this.ids.set(index, (id = this.ids.size));
    return id;
  }

  /** Code for v at index; its name. `top` computes v even where it is a leaf. */
  value(v: Value, index: Index, top = false): string {
    const key = `${keyOf(v)}@${this.idOf(index)}`;
    const known = this.known.get(keyOf(v));
    if (known !== undefined) return index.swapped ? `${known}.yxwz` : known;
    const found = this.seen.get(key);
    if (found !== undefined) return found;
    const name = !top && this.leaves.has(keyOf(v)) ? this.load(v, index) : this.compute(v.node, index);
    this.seen.set(key, name);
    return name;
  }

  private load(v: Value, index: Index): string {
    const { dtype } = typeOf(v);
    const at = sizeOf(typeOf(v)) === 1 ? '0u' : index.linear();
    const buffer = this.leaves.get(keyOf(v))!;
    const text = `${buffer}[${at}]`;
    const vector =
      this.lanes?.get(keyOf(v)) !== 'consecutive'
        ? `vec4f(${text})`
        : `${buffer}[${at} / 4u]${index.swapped ? '.yxwz' : ''}`;
    const found = this.seen.get(text);
    if (found !== undefined) return found;
    const scalar = isHalf(dtype) ? floatReader(this.caps, dtype, false).read(buffer, at) : text;
    const name = this.let(this.type(dtype), this.lanes ? vector : scalar);
    this.seen.set(text, name);
    return name;
  }

  /** The index that operand `which` of n is read at: one object per place, so that equal reads are found equal. */
  private through(n: Node, index: Index, which: number, make: () => Index): Index {
    const key = `${n.id}:${which}@${this.idOf(index)}`;
    return this.derived.get(key) ?? this.derived.set(key, make()).get(key)!;
  }

  private compute(n: Node, index: Index): string {
    const type = this.type(n.outs[0]!.dtype);
    const arg = (i: number, at = index) => this.value(n.inputs[i]!, at);
    const shape = n.inputs[0] ? typeOf(n.inputs[0]).shape : [];
    const read = (make: () => Index) => arg(0, this.through(n, index, 0, make));
    if (n.op in UNARY || n.op in BINARY)
      return this.let(
        type,
        this.apply(
          n.op,
          n.inputs.map((_, i) => arg(i)),
        ),
      );
    switch (n.op) {
      case 'const':
        return this.constant(n as Node<'const'>);
      case 'iota':
        return this.let('f32', `f32(${index.at((n.attrs as OpAttrs['iota']).axis)})`);
      case 'where':
        return this.let(type, `select(${arg(2)}, ${arg(1)}, ${arg(0)} != ${this.lanes ? 'vec4f()' : '0.0'})`);
      case 'cast': {
        const to = n.outs[0]!.dtype;
        return this.let(type, to === 'f16' ? `f32(f16(${arg(0)}))` : `${to}(${arg(0)})`);
      }
      case 'detach':
        return arg(0);
      case 'reshape':
        return read(() => index.reshaped(shape));
      case 'permute':
        return read(() => index.permuted((n.attrs as OpAttrs['permute']).order, shape));
      case 'expand':
        return read(() =>
          index.along(
            shape,
            () => false,
            (_, c) => c,
          ),
        );
      case 'slice': {
        const { start, step } = n.attrs as OpAttrs['slice'];
        return read(() =>
          index.along(
            shape,
            (k) => shape[k] !== n.outs[0]!.shape[k],
            (k, c) => {
              const scaled = step[k] === 1 ? c : `${c} * ${this.size(step[k]!)}`;
              return start[k] === 0 && step[k] === 1
                ? c
                : this.let('u32', start[k] === 0 ? scaled : `${scaled} + ${this.size(start[k]!)}`);
            },
          ),
        );
      }
      case 'flip': {
        const { axes } = n.attrs as OpAttrs['flip'];
        return read(() => {
          const there = index.along(
            shape,
            (k) => axes.includes(k),
            (k, c) => this.let('u32', `${this.size(shape[k]! - 1)} - ${c}`),
          );
          if (this.lanes && swapsPairs(axes, shape)) there.swapped = !index.swapped;
          return there;
        });
      }
      case 'pad':
        return this.pad(n as Node<'pad'>, index);
      case 'concat':
        return this.concat(n as Node<'concat'>, index);
      default:
        throw new Error(`${n.op} cannot be inlined`);
    }
  }

  private apply(op: OpName, args: string[]): string {
    const one = (a: string[], t: string) =>
      op in UNARY ? UNARY[op as Unary](a[0]!, t) : BINARY[op as Binary](a[0]!, a[1]!, t);
    if (!this.lanes) return one(args, 'f32');
    if (opOf(op).traits.lanes === 'vector') return one(args, 'vec4f');
    return `vec4f(${['x', 'y', 'z', 'w']
      .map((c) =>
        one(
          args.map((a) => `${a}.${c}`),
          'f32',
        ),
      )
      .join(', ')})`;
  }

  private constant(n: Node<'const'>): string {
    const text = this.literal(n);
    return this.lanes ? this.let('vec4f', `vec4f(${text})`) : text;
  }

  private literal(n: Node<'const'>): string {
    const { value, dtype } = n.attrs;
    if (dtype === 'i32') return `${value}i`;
    if (dtype === 'u32') return `${value}u`;
    if (Number.isInteger(value) && Math.abs(value) <= 2) return value < 0 ? `(${value}.0)` : `${value}.0`;
    const limit = 3.4028234663852886e38; // no infinities in WGSL
    const name = `${this.prefix}s${this.params.length}`;
    this.params.push([name, f32bits(Math.min(limit, Math.max(-limit, value)))]);
    return `bitcast<f32>(p.${name})`;
  }

  private pad(n: Node<'pad'>, index: Index): string {
    const { lo, inner } = n.attrs;
    const { shape } = typeOf(n.inputs[0]!);
    const tests: string[] = [];
    const at = this.through(n, index, 0, () =>
      index.along(
        shape,
        (k) => shape[k] !== n.outs[0]!.shape[k],
        (k, c) => {
          const local = lo[k] === 0 ? c : this.let('u32', `${c} - ${this.size(lo[k]!)}`); // below lo it wraps to a large number
          const q =
            inner[k] === 0 ? local : this.let('u32', `divide(${local} & 0x7fffffffu, ${this.size(inner[k]! + 1)})`);
          tests.push(`${q} < ${this.size(shape[k]!)}`);
          if (inner[k] !== 0) tests.push(`${q} * ${this.size(inner[k]! + 1)} == ${local}`);
          return this.let('u32', `min(${q}, ${this.size(shape[k]! - 1)})`);
        },
      ),
    );
    const value = this.value(n.inputs[0]!, at);
    if (!tests.length) return value;
    const { dtype } = n.outs[0]!;
    return this.let(
      this.type(dtype),
      `select(${this.lanes ? 'vec4f()' : zero(dtype)}, ${value}, ${tests.join(' && ')})`,
    );
  }

  private concat(n: Node<'concat'>, index: Index): string {
    const { axis } = n.attrs;
    let start = 0;
    let result = '';
    n.inputs.forEach((v, i) => {
      const { shape } = typeOf(v);
      const from = start;
      let inside = '';
      const at = this.through(n, index, i, () =>
        index.along(
          shape,
          (k) => k === axis,
          (_, c) => {
            const local = from === 0 ? c : this.let('u32', `${c} - ${this.size(from)}`);
            inside = this.let('bool', `${local} < ${this.size(shape[axis]!)}`);
            return this.let('u32', `select(0u, ${local}, ${inside})`);
          },
        ),
      );
      const value = this.value(v, at);
      result = result ? this.let(this.type(typeOf(v).dtype), `select(${result}, ${value}, ${inside})`) : value;
      start += shape[axis]!;
    });
    return result;
  }
}

const zero = (d: DType): string => (d === 'i32' ? '0i' : d === 'u32' ? '0u' : '0.0');

/** Library functions the code calls, in a fixed order. */
export const library = (code: string): string =>
  [
    ...Object.entries(LIBRARY)
      .filter(([name]) => code.includes(`${name}(`))
      .map(([, text]) => text),
    ...(/\b(sine|cosine)\(/.test(code) ? [TRIG] : []),
    ...(code.includes('bf16x1(') ? [BF16] : []),
  ].join('\n');

const isHalf = (d: DType): d is FloatType => d === 'f16' || d === 'bf16';

export const bindingOf = (caps: Caps, name: string, dtype: DType, access: Access): Binding => ({
  name,
  type: isHalf(dtype) ? floatReader(caps, dtype, false).type : dtype,
  access,
});

/** What to write for a value of this dtype: halves are rounded on store. */
export function stored(caps: Caps, dtype: DType, name: string): string {
  if (!isHalf(dtype)) return name;
  if (!nativeHalf(caps, dtype))
    throw new EngineError(
      'cast',
      `this adapter can store ${dtype} weights but no kernel of it writes ${dtype}: cast to f32`,
    );
  return `f16(${name})`;
}

/**
 * Expressions to WGSL: a value at an index becomes straight-line scalar code. Views are index arithmetic on the way down to
 * the leaves; sizes and constants go through the uniform so that equal structures share one shader.
 */
import { floatReader, nativeHalf, type FloatType } from '../../kernels/halves.ts';
import { f32bits, type Access, type Binding, type Caps, type DType } from '../../kernels/kernel.ts';
import { isSet, type Real } from '../../kernels/special.ts';
import { EngineError } from '../host/errors.ts';
import { keyOf, POINTWISE, typeOf, sizeOf, type Node, type OpAttrs, type Value } from '../frontend/graph.ts';
import { rounded } from '../frontend/ops/rounding.ts';
import { cancels } from './cancel.ts';
import { comparison, conversion, formula, isComparison, isReal } from './formulas.ts';
import { Index, type RowColumn } from './index-space.ts';
import { swapsPairs, type Lanes } from './vectorize.ts';

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

  /** Bools behind the 1 and 0 of comparisons. */
  private readonly truths = new Map<string, string>();
  /** A word that is 0. */
  private nothing: string | undefined;

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

  private get real(): Real {
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

  index(shape: readonly number[], flat: string, entry?: RowColumn): Index {
    return new Index(this, shape, () => flat, undefined, entry);
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
    if (POINTWISE.has(n.op) && n.op !== 'cast' && n.op !== 'where') {
      const args = n.inputs.map((_, i) => arg(i));
      // Whole numbers lose nothing.
      const near = (v: Value): boolean => this.leaves.has(keyOf(v)) || this.known.has(keyOf(v));
      if (isReal(typeOf(n.inputs[0]!).dtype) && cancels(n, near)) args.push(this.hidden(args.pop()!));
      return isComparison(n.op) ? this.compare(n, args) : this.let(type, formula(n, args, !!this.lanes));
    }
    switch (n.op) {
      case 'const':
        return this.constant(n as Node<'const'>);
      case 'iota':
        return this.splat(`f32(${index.at((n.attrs as OpAttrs['iota']).axis)})`);
      case 'where':
        return this.let(type, `select(${arg(2)}, ${arg(1)}, ${this.truths.get(arg(0)) ?? isSet(arg(0), this.real)})`);
      case 'cast':
        return this.let(type, conversion(typeOf(n.inputs[0]!).dtype, n.outs[0]!.dtype, arg(0)));
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

  /** 1 or 0. Its bool stays at hand for a `where`. */
  private compare(n: Node, args: string[]): string {
    const truth = this.let(this.lanes ? 'vec4<bool>' : 'bool', comparison(n, args, this.real));
    const name = this.let(this.real, `select(${this.real}(0.0), ${this.real}(1.0), ${truth})`);
    this.truths.set(name, truth);
    return name;
  }

  /** The same bits, of which a compiler knows nothing: see `cancels`. */
  private hidden(x: string): string {
    const t = this.lanes ? 'vec4u' : 'u32';
    this.nothing ??= this.size(0);
    return this.let(this.real, `bitcast<${this.real}>(bitcast<${t}>(${x}) ^ ${t}(${this.nothing}))`);
  }

  private constant(n: Node<'const'>): string {
    const text = this.literal(n);
    return this.lanes ? this.splat(text) : text;
  }

  /** One f32 for all lanes. */
  private splat(text: string): string {
    return this.lanes ? this.let('vec4f', `vec4f(${text})`) : this.let('f32', text);
  }

  /** Through the uniform, where a compiler does not see what could be left out; it also takes what WGSL has no literal for. */
  private literal(n: Node<'const'>): string {
    const { dtype } = n.attrs;
    const value = rounded(n.attrs.value, dtype);
    if (isReal(dtype) && [1, 2].includes(Math.abs(value))) return value < 0 ? `(${value}.0)` : `${value}.0`;
    const name = `${this.prefix}s${this.params.length}`;
    this.params.push([name, isReal(dtype) ? f32bits(value) : value >>> 0]);
    return dtype === 'u32' ? `p.${name}` : `bitcast<${dtype === 'i32' ? 'i32' : 'f32'}>(p.${name})`;
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

const isHalf = (d: DType): d is FloatType => d === 'f16' || d === 'bf16';

export const bindingOf = (caps: Caps, name: string, dtype: DType, access: Access): Binding => ({
  name,
  type: isHalf(dtype) ? floatReader(caps, dtype, false).type : dtype,
  access,
});

/** What to write for a value, computed as `name`: halves are rounded on store. */
export function stored(caps: Caps, v: Value, name: string): string {
  const { dtype } = typeOf(v);
  if (!isHalf(dtype)) return name;
  if (!nativeHalf(caps, dtype))
    throw new EngineError(
      v.node.op,
      `this adapter can store ${dtype} weights but no kernel of it writes ${dtype}: cast to f32`,
      v.node.site,
    );
  return `f16(${name})`;
}

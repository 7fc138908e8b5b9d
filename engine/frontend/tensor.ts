/** Tensor: a symbolic value while a function is traced. Its methods add nodes to the graph and never compute. */
import type { DType } from '../../kernels/kernel.ts';
import { numel } from '../../kernels/kernel.ts';
import { emit } from './tracing.ts';
import { callSite, fail, printShapes, withSite } from '../host/errors.ts';
import type { Binary, OpAttrs, OpName, Reduction, TensorType, Unary, Value } from './graph.ts';
import { typeOf } from './graph.ts';
import { opOf } from './ops/index.ts';
import { isFloat, isNarrow, isStorage, sameShape } from './ops/op.ts';

/** What pointwise methods take. Numbers become constants of the tensor's dtype. */
export type Like = Tensor | number;

export function make<K extends OpName>(op: K, inputs: readonly Tensor[], attrs: OpAttrs[K]): Tensor[] {
  const { reads } = opOf(op).traits;
  const values = inputs.map((t) => {
    if (!(t instanceof Tensor)) return noTensor(op, t);
    return reads === 'f32' && isNarrow(t.dtype) ? t.cast('f32').value : t.value;
  });
  return emit(op, values, attrs).map((v) => new Tensor(v));
}

function noTensor(op: string, x: unknown): never {
  const what = typeof x === 'object' && x ? x.constructor.name : typeof x;
  return fail(
    op,
    `expected a traced tensor or a number, got ${what}: arrays come in as arguments of the compiled function`,
  );
}

const make1 = <K extends OpName>(op: K, inputs: readonly Tensor[], attrs: OpAttrs[K]): Tensor =>
  make(op, inputs, attrs)[0]!;

/** A number as a scalar tensor. */
export const scalar = (value: number, dtype: DType = 'f32'): Tensor => make1('const', [], { value, dtype });

/** The shape that all shapes broadcast to, right-aligned: sizes agree or are 1. */
function broadcastShape(op: string, shapes: readonly (readonly number[])[]): number[] {
  const rank = Math.max(...shapes.map((s) => s.length));
  return Array.from({ length: rank }, (_, i) => {
    const sizes = shapes.map((s) => s[s.length - rank + i] ?? 1);
    const size = sizes.find((n) => n !== 1) ?? 1;
    if (sizes.some((n) => n !== 1 && n !== size)) fail(op, `shapes do not broadcast: ${printShapes(...shapes)}`);
    return size;
  });
}

/** Brings operands to one shape and, of f16 and f32, to f32. bf16 is read as f32. */
export function broadcast(op: string, operands: readonly Like[]): Tensor[] {
  for (const t of operands) if (typeof t !== 'number' && !(t instanceof Tensor)) noTensor(op, t);
  const first = operands.find((t): t is Tensor => typeof t !== 'number');
  const dtype = operands.some((t) => typeof t !== 'number' && (t.dtype === 'f32' || isStorage(t.dtype)))
    ? 'f32'
    : (first?.dtype ?? 'f32');
  const tensors = operands.map((t) => {
    if (typeof t === 'number') return scalar(t, dtype);
    return isStorage(t.dtype) || (t.dtype !== dtype && isFloat(t.dtype) && isFloat(dtype)) ? t.cast(dtype) : t;
  });
  const shape = broadcastShape(
    op,
    tensors.map((t) => t.shape),
  );
  return tensors.map((t) => t.expand(shape));
}

export class Tensor {
  readonly value: Value;
  readonly type: TensorType;

  constructor(value: Value) {
    this.value = value;
    this.type = typeOf(value);
  }

  get shape(): readonly number[] {
    return this.type.shape;
  }
  get dtype(): DType {
    return this.type.dtype;
  }

  private unary(op: Unary): Tensor {
    return make1(op, [this], {});
  }
  /** Its line is found once for all the nodes it takes. */
  private binary(op: Binary, b: Like): Tensor {
    return withSite(callSite(), () => make1(op, broadcast(op, [this, b]), {}));
  }

  // Pointwise. A second operand broadcasts, right-aligned.
  add(b: Like): Tensor {
    return this.binary('add', b);
  }
  sub(b: Like): Tensor {
    return this.binary('sub', b);
  }
  mul(b: Like): Tensor {
    return this.binary('mul', b);
  }
  div(b: Like): Tensor {
    return this.binary('div', b);
  }
  max(b: Like): Tensor {
    return this.binary('max', b);
  }
  min(b: Like): Tensor {
    return this.binary('min', b);
  }
  pow(b: Like): Tensor {
    return b === 2 ? this.square() : this.binary('pow', b);
  }
  /** 1 where this < b, else 0, in f32. */
  lt(b: Like): Tensor {
    return this.binary('lt', b);
  }
  le(b: Like): Tensor {
    return this.binary('le', b);
  }
  eq(b: Like): Tensor {
    return this.binary('eq', b);
  }
  neg(): Tensor {
    return this.unary('neg');
  }
  exp(): Tensor {
    return this.unary('exp');
  }
  log(): Tensor {
    return this.unary('log');
  }
  /** log(1 + x), exact for small x too. */
  log1p(): Tensor {
    return this.unary('log1p');
  }
  sqrt(): Tensor {
    return this.unary('sqrt');
  }
  rsqrt(): Tensor {
    return this.unary('rsqrt');
  }
  sin(): Tensor {
    return this.unary('sin');
  }
  cos(): Tensor {
    return this.unary('cos');
  }
  tanh(): Tensor {
    return this.unary('tanh');
  }
  sigmoid(): Tensor {
    return this.unary('sigmoid');
  }
  erf(): Tensor {
    return this.unary('erf');
  }
  abs(): Tensor {
    return this.unary('abs');
  }
  sign(): Tensor {
    return this.unary('sign');
  }
  floor(): Tensor {
    return this.unary('floor');
  }
  /** To the nearest whole number, ties to the even one. No gradient. */
  round(): Tensor {
    return this.unary('round');
  }
  /** 1 where finite, 0 at infinities and NaN. No gradient. */
  isFinite(): Tensor {
    return this.unary('isFinite');
  }
  /** The power of two that brings |x| to [1, 2); exponents stay within ±110, so that its own is exactly its inverse. No gradient. */
  unitScale(): Tensor {
    return this.unary('unitScale');
  }
  square(): Tensor {
    return this.mul(this);
  }
  cast(dtype: DType): Tensor {
    return dtype === this.dtype ? this : make1('cast', [this], { dtype });
  }
  /** This where `mask` is not 0, else `other`. */
  select(mask: Tensor, other: Like): Tensor {
    const shape = broadcastShape('where', [mask.shape, this.shape, typeof other === 'number' ? [] : other.shape]);
    return make1(
      'where',
      [
        (isFloat(mask.dtype) ? mask : mask.cast('f32')).expand(shape),
        ...broadcast('where', [this.expand(shape), other]),
      ],
      {},
    );
  }
  /** `value` in this tensor's shape and dtype. */
  like(value: number): Tensor {
    return scalar(value, this.dtype).expand(this.shape);
  }

  // Movement. Axes may be negative.
  private axis(op: string, axis: number): number {
    const rank = this.shape.length;
    if (!Number.isInteger(axis) || axis < -rank || axis >= rank)
      fail(op, `no axis ${axis} in ${printShapes(this.shape)}`);
    return axis < 0 ? axis + rank : axis;
  }

  /** One size may be -1: what is left. */
  reshape(shape: readonly number[]): Tensor {
    const hole = shape.indexOf(-1);
    const rest = numel(this.shape) / -numel(shape);
    if (hole >= 0 && !(rest >= 0 && Number.isInteger(rest)))
      fail('reshape', `sizes do not divide: ${printShapes(this.shape)} to ${printShapes(shape)}`);
    const full = hole < 0 ? [...shape] : shape.with(hole, rest);
    return sameShape(full, this.shape) ? this : make1('reshape', [this], { shape: full });
  }
  permute(order: readonly number[]): Tensor {
    return make1('permute', [this], { order: order.map((a) => this.axis('permute', a)) });
  }
  transpose(a = -2, b = -1): Tensor {
    const [i, j] = [this.axis('transpose', a), this.axis('transpose', b)];
    return this.permute(this.shape.map((_, k) => (k === i ? j : k === j ? i : k)));
  }
  /** Broadcasts to `shape`: axes are added in front, sizes of 1 grow. */
  expand(shape: readonly number[]): Tensor {
    if (sameShape(shape, this.shape)) return this;
    if (shape.length < this.shape.length)
      fail('expand', `fewer axes than before: ${printShapes(this.shape)} to ${printShapes(shape)}`);
    const lifted = this.reshape([...Array<number>(shape.length - this.shape.length).fill(1), ...this.shape]);
    return sameShape(shape, lifted.shape) ? lifted : make1('expand', [lifted], { shape: [...shape] });
  }
  /** start ≤ i < end along `axis` by `step`; negative positions count from the end. */
  slice(axis: number, start: number, end?: number, step = 1): Tensor {
    const a = this.axis('slice', axis);
    const size = this.shape[a]!;
    const at = (i: number): number => (i < 0 ? i + size : i);
    const whole = this.shape.map(() => 0);
    return make1('slice', [this], {
      start: whole.with(a, at(start)),
      end: this.shape.with(a, at(end ?? size)),
      step: whole.map(() => 1).with(a, step),
    });
  }
  /** Equal parts along an axis. */
  split(axis: number, parts: number): Tensor[] {
    const size = this.shape[this.axis('split', axis)]!;
    if (!(Number.isInteger(parts) && parts >= 1 && size % parts === 0))
      fail('split', `axis ${axis} of ${printShapes(this.shape)} does not split into ${parts}`);
    return Array.from({ length: parts }, (_, i) => this.slice(axis, (i * size) / parts, ((i + 1) * size) / parts));
  }
  /** Zeros in front, behind, and between neighbours; one entry an axis. */
  pad(lo: readonly number[], hi: readonly number[], inner: readonly number[] = this.shape.map(() => 0)): Tensor {
    return make1('pad', [this], { lo: [...lo], hi: [...hi], inner: [...inner] });
  }
  flip(...axes: number[]): Tensor {
    return make1('flip', [this], { axes: axes.map((a) => this.axis('flip', a)) });
  }
  squeeze(axis: number): Tensor {
    const a = this.axis('squeeze', axis);
    if (this.shape[a] !== 1) fail('squeeze', `axis ${axis} of ${printShapes(this.shape)} is not 1`);
    return this.reshape(this.shape.toSpliced(a, 1));
  }
  /** A new axis of size 1 that stands at `axis` of the result. */
  unsqueeze(axis: number): Tensor {
    const places = this.shape.length + 1;
    if (!Number.isInteger(axis) || axis < -places || axis >= places)
      fail('unsqueeze', `no place ${axis} for an axis in ${printShapes(this.shape)}`);
    return this.reshape(this.shape.toSpliced(axis < 0 ? axis + places : axis, 0, 1));
  }

  // Reductions, over all axes unless named; of floats in f32, of i32 and u32 in their own arithmetic, which wraps.
  private reduce(op: Reduction, axes: readonly number[] | undefined, keep: boolean): Tensor {
    const over = axes ? axes.map((a) => this.axis(op, a)).sort((a, b) => a - b) : this.shape.map((_, i) => i);
    const y = over.length ? make1(op, [this], { axes: over }) : this;
    return keep ? y : y.reshape(this.shape.filter((_, i) => !over.includes(i)));
  }
  sum(axes?: readonly number[], keep = false): Tensor {
    return this.reduce('sum', axes, keep);
  }
  amax(axes?: readonly number[], keep = false): Tensor {
    return this.reduce('amax', axes, keep);
  }
  amin(axes?: readonly number[], keep = false): Tensor {
    return this.reduce('amin', axes, keep);
  }
  /** The gradient is exact at zeros too. */
  prod(axes?: readonly number[], keep = false): Tensor {
    return this.reduce('prod', axes, keep);
  }
  mean(axes?: readonly number[], keep = false): Tensor {
    const y = this.sum(axes, keep);
    return y.mul(numel(y.shape) / numel(this.shape));
  }

  // Along one axis. Floats are read as f32; i32 and u32 stay what they are.
  private arg(op: 'argmax' | 'argmin', axis: number | undefined, keep: boolean): Tensor {
    if (axis === undefined) {
      const y = make1(op, [this.reshape([-1])], { axis: 0 });
      return y.reshape(keep ? this.shape.map(() => 1) : []);
    }
    const a = this.axis(op, axis);
    const y = make1(op, [this], { axis: a });
    return keep ? y : y.squeeze(a);
  }
  /**
   * Where the largest element stands, i32: the first of equal ones, and of NaN where there are any. Over all, flattened, without an axis.
   */
  argmax(axis?: number, keep = false): Tensor {
    return this.arg('argmax', axis, keep);
  }
  /** Where the smallest element stands: see argmax. */
  argmin(axis?: number, keep = false): Tensor {
    return this.arg('argmin', axis, keep);
  }
  /**
   * The k largest (or smallest) along an axis, in order, and where they stand, i32. Of equal elements the first comes first; NaN is
   * above everything. With k the size of the axis it sorts. The values pass a gradient.
   */
  topK(k: number, axis = -1, largest = true): { values: Tensor; indices: Tensor } {
    const [values, indices] = make('topK', [this], { axis: this.axis('topK', axis), k, largest }) as [Tensor, Tensor];
    return { values, indices };
  }
  /** Running sums along an axis; `exclusive` leaves out the element itself, `reverse` begins at the end. */
  cumSum(
    axis: number,
    { exclusive = false, reverse = false }: { exclusive?: boolean; reverse?: boolean } = {},
  ): Tensor {
    return make1('cumSum', [this], { axis: this.axis('cumSum', axis), exclusive, reverse });
  }

  // Over the last axis, without affine.
  softmax(): Tensor {
    return make1('softmax', [this], {});
  }
  /** log(softmax), without underflow. */
  logSoftmax(): Tensor {
    const shifted = this.sub(make1('detach', [this.amax([-1], true)], {}));
    return shifted.sub(shifted.exp().sum([-1], true).log());
  }
  layerNorm(eps = 1e-6): Tensor {
    return make1('layerNorm', [this], { eps });
  }
  rmsNorm(eps = 1e-6): Tensor {
    return make1('rmsNorm', [this], { eps });
  }

  /**
   * Matrix product over the last two axes, in f32; the flags transpose an operand first. Leading axes broadcast; with a
   * b of two axes the leading axes of a are rows of one product.
   */
  matmul(b: Tensor, { transA = false, transB = false }: { transA?: boolean; transB?: boolean } = {}): Tensor {
    const [ra, rb] = [this.shape.length, b.shape.length];
    if (ra < 2 || rb < 2)
      fail('matmul', `expected operands of two axes or more, got ${printShapes(this.shape, b.shape)}`);
    if (rb === 2 && ra > 2) {
      const a = transA ? this.transpose() : this;
      const k = a.shape.at(-1)!;
      if (k !== b.shape[transB ? 1 : 0])
        fail('matmul', `inner sizes differ: ${printShapes(a.shape)} · ${printShapes(b.shape)}${transB ? 'ᵀ' : ''}`);
      const y = make1('matmul', [a.reshape([-1, k]), b], { transA: false, transB });
      return y.reshape([...a.shape.slice(0, -1), y.shape[1]!]);
    }
    if (ra === 2 && rb === 2) return make1('matmul', [this, b], { transA, transB });
    const batch = broadcastShape('matmul', [this.shape.slice(0, -2), b.shape.slice(0, -2)]);
    const flat = (t: Tensor): Tensor =>
      t.expand([...batch, ...t.shape.slice(-2)]).reshape([numel(batch), ...t.shape.slice(-2)]);
    const y = make1('matmul', [flat(this), flat(b)], { transA, transB });
    return y.reshape([...batch, ...y.shape.slice(-2)]);
  }
}

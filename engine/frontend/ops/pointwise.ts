/** Elementwise ops: unary, binary, where, cast, detach. Operands have one shape; broadcasting is an `expand` before. */
import { BYTES } from '../../../kernels/kernel.ts';
import { isPacked } from '../../../kernels/packed.ts';
import { fail, printShapes } from '../../host/errors.ts';
import type { Binary, TensorType, Unary } from '../graph.ts';
import { sizeOf } from '../graph.ts';
import type { Tensor } from '../tensor.ts';
import type { OpDef } from './op.ts';
import { arity, floats, isFloat, isStorage, sameShape } from './op.ts';
import { rounded, toEven, toWhole } from './rounding.ts';
import { EXACT, EXPENSIVE, INLINED, SINGLE, type Traits } from './traits.ts';

const each = (_: readonly TensorType[], outs: readonly TensorType[]): number => sizeOf(outs[0]!);

/** Abramowitz and Stegun 7.1.5 near zero and the continued fraction of erfc beyond, both to double precision. */
export function erf(x: number): number {
  const a = Math.abs(x);
  if (a > 6) return Math.sign(x);
  if (a < 2.5) {
    let term = a;
    let sum = a;
    for (let n = 1; Math.abs(term) > 1e-18 * Math.abs(sum); n++) {
      term *= (-a * a) / n;
      sum += term / (2 * n + 1);
    }
    return (Math.sign(x) * 2 * sum) / Math.sqrt(Math.PI);
  }
  let fraction = a;
  for (let k = 120; k >= 1; k--) fraction = a + k / 2 / fraction;
  return Math.sign(x) * (1 - Math.exp(-a * a) / (Math.sqrt(Math.PI) * fraction));
}

/** `local(x, y, dy)` is the cotangent of x. */
function unary(
  op: Unary,
  traits: Traits,
  f: (x: number) => number,
  local: ((x: Tensor, y: Tensor, dy: Tensor) => Tensor) | null,
): OpDef<Unary> {
  return {
    infer(x) {
      arity(op, x, 1);
      if (op !== 'neg' && op !== 'abs' && op !== 'sign') floats(op, x);
      return [op === 'isFinite' ? { shape: x[0]!.shape, dtype: 'f32' } : x[0]!];
    },
    oracle: ([x], _, [out]) => [
      Float64Array.from(x!.data, isFloat(out!.dtype) ? f : (v: number) => rounded(f(v), out!.dtype)),
    ],
    vjp: local && (({ x, y, dy }) => [local(x[0]!, y[0]!, dy[0]!)]),
    flops: each,
    traits,
  };
}

/** Of whole numbers: products wrap, quotients are cut at the point, and 0 where nothing divides. */
const OF_INTEGERS: { [K in Binary]?: (a: number, b: number) => number } = {
  mul: Math.imul,
  div: (a, b) => (b === 0 ? 0 : Math.trunc(a / b)),
};

type BinaryRule = (c: { a: Tensor; b: Tensor; y: Tensor; dy: Tensor }) => Tensor;

function binary(
  op: Binary,
  traits: Traits,
  f: (a: number, b: number) => number,
  rules: readonly [BinaryRule, BinaryRule] | null,
): OpDef<Binary> {
  const compares = op === 'lt' || op === 'le' || op === 'eq';
  return {
    infer(x) {
      arity(op, x, 2);
      const [a, b] = x as [TensorType, TensorType];
      if (!sameShape(a.shape, b.shape)) fail(op, `shapes differ: ${printShapes(a.shape, b.shape)}`);
      if (a.dtype !== b.dtype) fail(op, `dtypes differ: ${a.dtype} and ${b.dtype}; cast one`);
      if (op === 'pow') floats(op, x);
      return [compares ? { shape: a.shape, dtype: 'f32' } : a];
    },
    oracle([a, b], _, outs) {
      const y = new Float64Array(sizeOf(outs[0]!));
      const { dtype } = outs[0]!;
      const g = isFloat(a!.dtype) ? f : (OF_INTEGERS[op] ?? f);
      for (let i = 0; i < y.length; i++) {
        const value = g(a!.data[i]!, b!.data[i]!);
        y[i] = isFloat(dtype) ? value : rounded(value, dtype);
      }
      return [y];
    },
    vjp:
      rules &&
      (({ x, y, dy, needs }) =>
        rules.map((rule, i) => (needs[i] ? rule({ a: x[0]!, b: x[1]!, y: y[0]!, dy: dy[0]! }) : null))),
    flops: each,
    traits,
  };
}

/** 0 where the mask is set. */
const unless = (mask: Tensor, x: Tensor): Tensor => x.like(0).select(mask, x);

/** As in C: 1 to any power is 1, where JavaScript has NaN of NaN and infinities. */
const power = (a: number, b: number): number => (a === 1 || (a === -1 && Math.abs(b) === Infinity) ? 1 : a ** b);

/** The power of two that brings |x| to [1, 2), exponents within ±110: by bits, as no logarithm is exact. */
function unitScale(x: number): number {
  const exponent = (new Uint32Array(Float32Array.of(x).buffer)[0]! >>> 23) & 255;
  return 2 ** (127 - Math.min(Math.max(exponent, 17), 237));
}

/** Operands that tie share the cotangent. */
const wins = (less: Tensor, equal: Tensor): Tensor => less.add(equal.mul(0.5));

export const unaryOps: { [K in Unary]: OpDef<K> } = {
  neg: unary(
    'neg',
    EXACT,
    (x) => -x,
    (_x, _y, dy) => dy.neg(),
  ),
  log1p: unary('log1p', EXPENSIVE, Math.log1p, (x, _y, dy) => dy.div(x.add(1))),
  exp: unary('exp', EXPENSIVE, Math.exp, (_x, y, dy) => dy.mul(y)),
  log: unary('log', EXPENSIVE, Math.log, (x, _y, dy) => dy.div(x)),
  sqrt: unary('sqrt', INLINED, Math.sqrt, (_x, y, dy) => dy.mul(0.5).div(y)),
  rsqrt: unary(
    'rsqrt',
    INLINED,
    (x) => 1 / Math.sqrt(x),
    (_x, y, dy) => dy.mul(-0.5).mul(y.mul(y).mul(y)),
  ),
  sin: unary('sin', SINGLE, Math.sin, (x, _y, dy) => dy.mul(x.cos())),
  cos: unary('cos', SINGLE, Math.cos, (x, _y, dy) => dy.mul(x.sin()).neg()),
  tanh: unary('tanh', EXPENSIVE, Math.tanh, (_x, y, dy) => dy.mul(y.mul(y).neg().add(1))),
  sigmoid: unary(
    'sigmoid',
    EXPENSIVE,
    (x) => 1 / (1 + Math.exp(-x)),
    (_x, y, dy) => dy.mul(y).mul(y.neg().add(1)),
  ),
  erf: unary('erf', SINGLE, erf, (x, _y, dy) => dy.mul(x.mul(x).neg().exp()).mul(2 / Math.sqrt(Math.PI))),
  abs: unary('abs', EXACT, Math.abs, (x, _y, dy) => dy.mul(x.sign())),
  sign: unary('sign', EXACT, Math.sign, null),
  floor: unary('floor', EXACT, Math.floor, null),
  round: unary('round', EXACT, toEven, null),
  isFinite: unary('isFinite', { ...INLINED, lanes: 'single' }, (x) => Number(Number.isFinite(x)), null),
  unitScale: unary('unitScale', { ...INLINED, lanes: 'single' }, unitScale, null),
};

export const binaryOps: { [K in Binary]: OpDef<K> } = {
  add: binary('add', INLINED, (a, b) => a + b, [({ dy }) => dy, ({ dy }) => dy]),
  sub: binary('sub', INLINED, (a, b) => a - b, [({ dy }) => dy, ({ dy }) => dy.neg()]),
  mul: binary('mul', INLINED, (a, b) => a * b, [({ b, dy }) => dy.mul(b), ({ a, dy }) => dy.mul(a)]),
  div: binary('div', INLINED, (a, b) => a / b, [({ b, dy }) => dy.div(b), ({ b, y, dy }) => dy.mul(y).div(b).neg()]),
  max: binary('max', EXACT, Math.max, [
    ({ a, b, dy }) => dy.mul(wins(b.lt(a), a.eq(b))),
    ({ a, b, dy }) => dy.mul(wins(a.lt(b), a.eq(b))),
  ]),
  min: binary('min', EXACT, Math.min, [
    ({ a, b, dy }) => dy.mul(wins(a.lt(b), a.eq(b))),
    ({ a, b, dy }) => dy.mul(wins(b.lt(a), a.eq(b))),
  ]),
  pow: binary('pow', SINGLE, power, [
    // Of x⁰ it is 0, even at 0.
    ({ a, b, dy }) => unless(b.eq(0), dy.mul(b).mul(a.pow(b.sub(1)))),
    // The derivative by the exponent exists for a positive base only; elsewhere it is taken as 0.
    ({ a, y, dy }) => unless(a.le(0), dy.mul(y).mul(a.like(1).select(a.le(0), a).log())),
  ]),
  lt: binary('lt', INLINED, (a, b) => Number(a < b), null),
  le: binary('le', INLINED, (a, b) => Number(a <= b), null),
  eq: binary('eq', INLINED, (a, b) => Number(a === b), null),
};

export const where: OpDef<'where'> = {
  infer(x) {
    arity('where', x, 3);
    const [mask, a, b] = x as [TensorType, TensorType, TensorType];
    if (!sameShape(mask.shape, a.shape) || !sameShape(a.shape, b.shape))
      fail('where', `shapes differ: ${printShapes(mask.shape, a.shape, b.shape)}`);
    floats('where', [mask]);
    if (a.dtype !== b.dtype) fail('where', `dtypes differ: ${a.dtype} and ${b.dtype}; cast one`);
    return [a];
  },
  oracle: ([mask, a, b]) => [Float64Array.from(mask!.data, (m, i) => (m !== 0 ? a!.data[i]! : b!.data[i]!))],
  vjp: ({ x, dy, needs }) => {
    const g = dy[0]!;
    return [null, needs[1] ? g.select(x[0]!, 0) : null, needs[2] ? g.like(0).select(x[0]!, g) : null];
  },
  flops: each,
  traits: INLINED,
};

export const cast: OpDef<'cast'> = {
  infer(x, { dtype }) {
    arity('cast', x, 1);
    if (!Object.hasOwn(BYTES, dtype) && !isPacked(dtype))
      fail('cast', `expected one of ${Object.keys(BYTES).join(', ')}, got ${dtype}`);
    if (isStorage(dtype) && x[0]!.dtype !== dtype)
      fail('cast', `${dtype} is for storage: it is made on the host (device.tensor), never by a kernel`);
    if (isPacked(x[0]!.dtype) && x[0]!.dtype !== dtype)
      fail('cast', `${x[0]!.dtype} is packed: only matmul reads it; make it f32 or bf16 on the host`);
    return [{ shape: x[0]!.shape, dtype }];
  },
  oracle: ([x], { dtype }) => [
    dtype === 'i32' || dtype === 'u32'
      ? Float64Array.from(x!.data, (v) => (isFloat(x!.dtype) ? toWhole(v, dtype) : rounded(v, dtype)))
      : x!.data,
  ],
  vjp: ({ x, dy }) => [isFloat(x[0]!.dtype) ? dy[0]!.cast(x[0]!.dtype) : null],
  flops: each,
  traits: INLINED,
};

export const detach: OpDef<'detach'> = {
  infer(x) {
    arity('detach', x, 1);
    return [x[0]!];
  },
  oracle: ([x]) => [x!.data],
  vjp: null,
  flops: () => 0,
  traits: { ...INLINED, cost: 'free' },
};

/** What each pointwise op is in WGSL, of names of its operands, and the functions that these texts call. */
import { BF16 } from '../../kernels/halves.ts';
import type { DType } from '../../kernels/kernel.ts';
import { quotientFunction } from '../../kernels/quotient.ts';
import { HALF, isNaN, POWER, special, SPECIAL, unlessNaN, WHOLE, type Real } from '../../kernels/special.ts';
import { WIDE_TRIG } from '../../kernels/trig.ts';
import { constantOf, typeOf, type Binary, type Node, type OpName, type Unary, type Value } from '../frontend/graph.ts';
import { opOf } from '../frontend/ops/index.ts';

/** Computed in f32, whatever it is stored as. */
export const isReal = (d: DType): boolean => d !== 'i32' && d !== 'u32';

/** Of floats; `t` is the type they are computed in. */
const UNARY: { [K in Unary]: (a: string, t: Real) => string } = {
  neg: (a) => `-${a}`,
  exp: (a, t) => unlessNaN(a, `exp(${a})`, t),
  log: (a, t) => `${special('logarithm', t)}(${a})`,
  log1p: (a, t) => `${special('logarithmOfOneAnd', t)}(${a})`,
  sqrt: (a) => `sqrt(${a})`,
  rsqrt: (a) => `inverseSqrt(${a})`,
  sin: (a) => `sine(${a})`,
  cos: (a) => `cosine(${a})`,
  tanh: (a, t) => `${special('tangent', t)}(${a})`,
  sigmoid: (a, t) => unlessNaN(a, `1.0 / (1.0 + exp(-${a}))`, t),
  erf: (a) => `erf(${a})`,
  abs: (a) => `abs(${a})`,
  sign: (a, t) => unlessNaN(a, `sign(${a})`, t),
  floor: (a) => `floor(${a})`,
  round: (a) => `round(${a})`, // ties to even
  isFinite: (a) => `finite(${a})`,
  unitScale: (a) => `unitScale(${a})`,
};
const ARITHMETIC = {
  add: (a: string, b: string) => `${a} + ${b}`,
  sub: (a: string, b: string) => `${a} - ${b}`,
  mul: (a: string, b: string) => `${a} * ${b}`,
  div: (a: string, b: string) => `${a} / ${b}`,
  max: (a: string, b: string) => `max(${a}, ${b})`,
  min: (a: string, b: string) => `min(${a}, ${b})`,
  pow: (a: string, b: string) => `power(${a}, ${b})`,
};
const COMPARISONS = { lt: '<', le: '<=', eq: '==' };
/** Of i32 and u32, where they are not as of floats. Arithmetic wraps; what is divided by 0 is 0. */
const OF_INTEGERS: { [K in Unary | Binary]?: (a: string, b: string, t: string) => string } = {
  neg: (a, _, t) => `${t}(0) - ${a}`,
  abs: (a, _, t) => (t === 'u32' ? a : `abs(${a})`),
  sign: (a, _, t) => (t === 'u32' ? `min(${a}, 1u)` : `sign(${a})`),
  div: (a, b, t) => `select(${a} / ${b}, ${t}(0), ${b} == ${t}(0))`,
};
/** Functions that generated code may call; only those named in it are put into the module, callers before what they call. */
const LIBRARY: Record<string, string> = {
  ...SPECIAL,
  divide: quotientFunction('divide'),
  power: POWER,
  half: HALF,
  finite: `fn finite(x: f32) -> f32 { return select(0.0, 1.0, (bitcast<u32>(x) & 0x7f800000u) != 0x7f800000u); }`, // WGSL may assume NaN away: test bits
  unitScale: `fn unitScale(x: f32) -> f32 { return bitcast<f32>((254u - clamp((bitcast<u32>(x) >> 23u) & 0xffu, 17u, 237u)) << 23u); }`,
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

const neverNaN = (v: Value): boolean => {
  const number = constantOf(v);
  return number !== null && !Number.isNaN(number);
};

export const isComparison = (op: OpName): op is keyof typeof COMPARISONS => op in COMPARISONS;

/** A comparison as a bool. */
export function comparison({ op, inputs }: Node, args: readonly string[], t: Real): string {
  const [a, b] = args;
  const unsure = args.filter((_, i) => isReal(typeOf(inputs[i]!).dtype) && !neverNaN(inputs[i]!));
  return [`(${a} ${COMPARISONS[op as keyof typeof COMPARISONS]} ${b})`, ...unsure.map((x) => `!${isNaN(x, t)}`)].join(
    ' & ',
  );
}

/** What the op gives; f16 is computed in f32 and rounded. */
export function formula({ op, inputs, outs }: Node, args: readonly string[], four: boolean): string {
  const { dtype } = typeOf(inputs[0]!);
  const [a, b = ''] = args as [string, string?];
  if (!isReal(dtype)) return (OF_INTEGERS[op as Binary] ?? ARITHMETIC[op as keyof typeof ARITHMETIC])(a, b, dtype);
  const [first, second] = inputs.map(neverNaN);
  const { traits } = opOf(op);
  const one = (x: string, y: string, t: Real): string => {
    if (op in UNARY) return UNARY[op as Unary](x, t);
    const text = ARITHMETIC[op as keyof typeof ARITHMETIC](x, y);
    if (op !== 'max' && op !== 'min') return text;
    const kept = second ? text : unlessNaN(y, text, t);
    return first ? kept : unlessNaN(x, kept, t);
  };
  const each = (): string =>
    `vec4f(${['x', 'y', 'z', 'w'].map((c) => one(`${a}.${c}`, `${b}.${c}`, 'f32')).join(', ')})`;
  const text = four && traits.lanes !== 'vector' ? each() : one(a, b, four ? 'vec4f' : 'f32');
  return outs[0]!.dtype === 'f16' && !traits.exact ? `half(${text})` : text;
}

export function conversion(from: DType, to: DType, x: string): string {
  const real = isReal(from) ? x : `f32(${x})`;
  if (to === 'f16') return `half(${real})`;
  if (isReal(to)) return real;
  return isReal(from) ? `${to === 'i32' ? 'toI32' : 'toU32'}(${x})` : `${to}(${x})`;
}

/** Library functions the code calls, and those that these call, in a fixed order. */
export function library(code: string): string {
  const texts: string[] = [];
  for (const [name, text] of Object.entries(LIBRARY))
    if ([code, ...texts].some((t) => t.includes(`${name}(`))) texts.push(text);
  if (/\b(sine|cosine)\(/.test(code)) texts.push(WIDE_TRIG);
  if (/\bto[IU]32\(/.test(code)) texts.push(WHOLE);
  if (code.includes('bf16x1(')) texts.push(BF16);
  return texts.join('\n');
}

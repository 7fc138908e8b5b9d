/**
 * Functions in WGSL that keep what IEEE 754 says of NaN, infinities, zeros and small results. A shader's compiler may take it that
 * there are none of them, and drivers lose them in built-in functions: so they are told by their bits, and made from bits.
 */
export type Real = 'f32' | 'vec4f';

/** A word for each lane. */
const all = (t: Real, word: string): string => (t === 'f32' ? word : `vec4u(${word})`);
const bits = (x: string, t: Real): string => `bitcast<${t === 'f32' ? 'u32' : 'vec4u'}>(${x})`;
const magnitude = (x: string, t: Real): string => `(${bits(x, t)} & ${all(t, '0x7fffffffu')})`;

export const isNaN = (x: string, t: Real): string => `(${magnitude(x, t)} > ${all(t, '0x7f800000u')})`;
/** Not ±0. NaN is not. */
export const isSet = (x: string, t: Real): string => `(${magnitude(x, t)} != ${all(t, '0u')})`;
/** `y`, but NaN where the name `x` is. */
export const unlessNaN = (x: string, y: string, t: Real): string => `select(${y}, ${x}, ${isNaN(x, t)})`;

const suffix = (t: Real): string => (t === 'f32' ? '' : '4');

/** `tangent`: tanh to 2 ulp. Cephes' polynomial near zero, where 1 - 2 / (e²ˣ + 1) cancels. */
const tangent = (t: Real): string => `fn tangent${suffix(t)}(x: ${t}) -> ${t} {
  let s = x * x;
  let near = x + x * s * (-0.33333282 + s * (0.13331442 + s * (-0.05373971 + s * (0.020639079 + s * -0.0057049887))));
  let a = abs(x);
  let far = 1.0 - 2.0 / (exp(2.0 * min(a, ${t}(10.0))) + 1.0);
  let y = select(select(far, -far, x < ${t}()), near, a < ${t}(0.625));
  return ${unlessNaN('x', 'y', t)};
}`;

/** `nearOne(x)`: log(1 + x) = 2 atanh(x / (2 + x)) for |x| < ½, by its series. */
const nearOne = (t: Real): string => `fn nearOne${suffix(t)}(x: ${t}) -> ${t} {
  let r = x / (2.0 + x);
  let s = r * r;
  return 2.0 * r + 2.0 * r * s * (0.33333334 + s * (0.2 + s * (0.14285715 + s * (0.11111111 + s * (0.09090909 + s * (0.07692308 + s * 0.06666667))))));
}`;

/** `logarithm`: of numbers below the normal ones too, and near 1, where drivers keep no digit. -inf at 0, NaN below. */
const logarithm = (t: Real): string => `fn logarithm${suffix(t)}(x: ${t}) -> ${t} {
  let b = ${bits('x', t)};
  let small = b < ${all(t, '0x00800000u')};
  var y = log(select(x, ${t}(b), small)) - select(${t}(), ${t}(103.27893), small);
  let d = x - 1.0;
  y = select(y, nearOne${suffix(t)}(d), abs(d) < ${t}(0.5));
  y = select(y, bitcast<${t}>(b | ${all(t, '0xff800000u')}), (b << ${all(t, '1u')}) == ${all(t, '0u')});
  y = select(y, x, b == ${all(t, '0x7f800000u')});
  return select(y, bitcast<${t}>(b | ${all(t, '0x7fc00000u')}), (b > ${all(t, '0x7f800000u')}) & (b != ${all(t, '0x80000000u')}));
}`;

/** `logarithmOfOneAnd`: log(1 + x), also where 1 + x rounds x away. */
const log1p = (t: Real): string => `fn logarithmOfOneAnd${suffix(t)}(x: ${t}) -> ${t} {
  return select(logarithm${suffix(t)}(1.0 + x), nearOne${suffix(t)}(x), abs(x) < ${t}(0.5));
}`;

/**
 * pow as C99 has it: of zeros, infinities and negative bases too, which WGSL leaves open; x⁰ and 1ʸ are 1 even of NaN. `&`, not `&&`:
 * one CPU driver takes minutes over the branches.
 */
export const POWER = `fn power(a: f32, b: f32) -> f32 {
  let ma = bitcast<u32>(a) & 0x7fffffffu;
  let mb = bitcast<u32>(b) & 0x7fffffffu;
  let negative = bitcast<u32>(a) >= 0x80000000u;
  let grows = (ma > 0x3f800000u) == (bitcast<u32>(b) < 0x80000000u);
  let whole = (mb >= 0x4b000000u) | (floor(b) == b); // from 2²³ on every float is
  let odd = whole & (mb < 0x4b800000u) & (floor(b * 0.5) * 2.0 != b);
  var m = bitcast<u32>(pow(abs(a), b));
  m = select(m, select(0u, 0x7f800000u, grows), (ma == 0u) | (ma == 0x7f800000u) | (mb == 0x7f800000u));
  m = select(m, 0x3f800000u, (mb == 0x7f800000u) & (ma == 0x3f800000u));
  m = m | select(0u, 0x80000000u, negative & odd);
  m = select(m, 0x7fc00000u, negative & !whole & (ma != 0u) & (ma != 0x7f800000u));
  m = select(m, 0x7fc00000u, (ma > 0x7f800000u) | (mb > 0x7f800000u));
  return bitcast<f32>(select(m, 0x3f800000u, (mb == 0u) | (bitcast<u32>(a) == 0x3f800000u)));
}`;

/** The f16 nearest to x, as f32; `steps` of 2⁻²⁴ below its normal numbers. By bits: drivers undo a cast there and back, or have no f16. */
export const HALF = `fn half(x: f32) -> f32 {
  let m = bitcast<u32>(x) & 0x7fffffffu;
  let normal = select((m + 0xfffu + ((m >> 13u) & 1u)) & 0xffffe000u, 0x7f800000u, m >= 0x477ff000u);
  let steps = bitcast<u32>(bitcast<f32>(min(m, 0x38800000u)) + 0.5) - 0x3f000000u;
  let y = select(normal, bitcast<u32>(f32(steps) * 0x1p-24f), m < 0x38800000u);
  return bitcast<f32>(select(y, m, m > 0x7f800000u) | (bitcast<u32>(x) & 0x80000000u));
}`;

/** To whole numbers: the part before the point, the nearest end of the range outside it, 0 of NaN. */
export const WHOLE = `fn toI32(x: f32) -> i32 {
  let m = bitcast<u32>(x) & 0x7fffffffu;
  let inside = m < 0x4f000000u;
  let end = select(bitcast<i32>(0x7fffffffu + (bitcast<u32>(x) >> 31u)), 0, m > 0x7f800000u);
  return select(end, i32(select(0.0, x, inside)), inside);
}
fn toU32(x: f32) -> u32 {
  let b = bitcast<u32>(x);
  let inside = b < 0x4f800000u;
  return select(select(0u, 0xffffffffu, b <= 0x7f800000u), u32(select(0.0, x, inside)), inside);
}`;

/** Functions of one and of four, by the name they are called by. */
export const SPECIAL: Record<string, string> = Object.fromEntries(
  (['f32', 'vec4f'] as const).flatMap((t) => [
    [`logarithmOfOneAnd${suffix(t)}`, log1p(t)],
    [`logarithm${suffix(t)}`, logarithm(t)],
    [`nearOne${suffix(t)}`, nearOne(t)],
    [`tangent${suffix(t)}`, tangent(t)],
  ]),
);
export const special = (name: 'logarithmOfOneAnd' | 'logarithm' | 'tangent', t: Real): string => `${name}${suffix(t)}`;

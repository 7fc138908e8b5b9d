/**
 * Packed matrices as a shader reads them. Every type is a number's code times a scale, less a minimum; the last two are the same for a run
 * of neighbours. `i` counts fours of neighbours; of `x`, the buffer's name:
 *
 *     fn x_head(i: u32) -> vec2f    scale and minimum of the run that four i stands in
 *     fn x_codes(i: u32) -> vec4f   its codes
 *     fn x_four(i: u32) -> vec4f    its values
 *
 * Blocks of odd lengths are read as bytes are, out of two words each.
 */
import type { FloatReader } from './halves.ts';
import { fp8Of, type BlockType, type Fp8, type Packed } from './packed.ts';

/** What the readers of all buffers call. */
const COMMON = `fn low4(q: u32, bits: u32) -> vec4f { return vec4f((vec4u(q) >> vec4u(0u, 8u, 16u, 24u)) & vec4u(bits)); }
fn pick4(low: u32, high: u32) -> vec4f { return low4(low, 15u) + 16.0 * low4(high, 3u); }
fn bits4(low: u32, high: u32) -> vec4f { return low4(low, 15u) + 16.0 * vec4f((vec4u(high) >> vec4u(0u, 1u, 2u, 3u)) & vec4u(1u)); }
fn signed4(q: u32) -> vec4f { return vec4f(bitcast<vec4i>(vec4u(q) << vec4u(24u, 16u, 8u, 0u)) >> vec4u(24u)); }
fn signed1(q: u32) -> f32 { return f32(bitcast<i32>(q << 24u) >> 24u); }
fn nonlinear1(q: u32) -> f32 {
  let low = select(0x3f2d1801u, 0x766a5d4fu, (q & 4u) != 0u); let high = select(0xa6998d81u, 0xf1d9c5b5u, (q & 4u) != 0u);
  return f32((select(low, high, (q & 8u) != 0u) >> ((q & 3u) * 8u)) & 255u) - 128.0;
}
fn nonlinear4(q: u32) -> vec4f { return vec4f(nonlinear1(q), nonlinear1(q >> 8u), nonlinear1(q >> 16u), nonlinear1(q >> 24u)); }
fn halves4(low: u32, high: u32) -> vec4f { return vec4f(unpack2x16float(low), unpack2x16float(high)); }
fn f8_e5m2(q: u32) -> vec4f { return halves4(((q & 0xffu) << 8u) | ((q & 0xff00u) << 16u), ((q >> 8u) & 0xff00u) | (q & 0xff000000u)); }
fn e4m3(q: u32) -> u32 { return (q & 0x80008000u) | ((q >> 1u) & 0x3f803f80u); }
fn f8_e4m3(q: u32) -> vec4f { return 256.0 * halves4(e4m3(((q & 0xffu) << 8u) | ((q & 0xff00u) << 16u)), e4m3(((q >> 8u) & 0xff00u) | (q & 0xff000000u))); }`;

/** Bodies of `head` and `codes`. `word(at)` and `half(at)` are of bytes, `x[…]` of words where blocks are whole words. */
interface Body {
  /** What both begin with. */
  readonly at: string;
  readonly head: string;
  readonly codes: string;
}

/** Blocks of 32: four `i & 7` of one. */
const small = (bytes: number, head: string, codes: string): Body => ({
  at: `let at = (i >> 3u) * ${bytes}u; let j = i & 7u;`,
  head,
  codes,
});
const D = 'return vec2f(half(at), 0.0);';
const DM = 'let h = unpack2x16float(x[at >> 2u]); return vec2f(h.x, -h.y);';
const nibbles = (from: number): string => `word(at + ${from}u + 4u * (j & 3u)) >> ((j >> 2u) * 4u)`;

/** Blocks of 256 with eight runs of 32, whose scales have six bits. */
const SIX_BITS = `let h = unpack2x16float(x[at]); let t = (j & 3u) * 8u;
let s = x[at + 1u] >> t; let m = x[at + 2u] >> t; let both = x[at + 3u] >> t;
let scale = select((both & 15u) | ((s >> 2u) & 48u), s & 63u, j < 4u);
let least = select(((both >> 4u) & 15u) | ((m >> 2u) & 48u), m & 63u, j < 4u);
return vec2f(h.x * f32(scale), h.y * f32(least));`;
const wide = (words: number, head: string, codes: string): Body => ({
  at: `let at = (i >> 6u) * ${words}u; let j = (i >> 3u) & 7u; let l = i & 7u;`,
  head,
  codes,
});

/** Blocks of 256 with sixteen runs of 16: two halves of four groups of 32. */
const sixteen = (bytes: number, head: string, codes: string): Body => ({
  at: `let at = (i >> 6u) * ${bytes}u; let part = (i >> 5u) & 1u; let g = (i >> 3u) & 3u; let l = i & 7u; let run = 8u * part + 2u * g + (l >> 2u);`,
  head,
  codes,
});

const BODIES: Record<BlockType, Body> = {
  q8_0: small(34, D, 'return signed4(word(at + 2u + 4u * j));'),
  q4_0: small(18, D, `return low4(${nibbles(2)}, 15u) - vec4f(8.0);`),
  q4_1: small(20, DM, `return low4(${nibbles(4)}, 15u);`),
  q5_0: small(22, D, `return bits4(${nibbles(6)}, word(at + 2u) >> (4u * j)) - vec4f(16.0);`),
  q5_1: small(24, DM, `return bits4(${nibbles(8)}, word(at + 4u) >> (4u * j));`),
  iq4_nl: small(18, D, `return nonlinear4(${nibbles(2)});`),
  q4_k: wide(36, SIX_BITS, 'return low4(x[at + 4u + (j >> 1u) * 8u + l] >> ((j & 1u) * 4u), 15u);'),
  q5_k: wide(
    44,
    SIX_BITS,
    'return pick4(x[at + 12u + (j >> 1u) * 8u + l] >> ((j & 1u) * 4u), (x[at + 4u + l] >> j) & 0x01010101u);',
  ),
  q6_k: sixteen(
    210,
    'return vec2f(half(at + 208u) * signed1(word(at + 192u + run)), 0.0);',
    `return pick4(word(at + 64u * part + 32u * (g & 1u) + 4u * l) >> ((g >> 1u) * 4u), word(at + 128u + 32u * part + 4u * l) >> (2u * g)) - vec4f(32.0);`,
  ),
  q3_k: sixteen(
    110,
    `let low = (word(at + 96u + (run & 7u)) >> ((run >> 3u) * 4u)) & 15u; let high = (word(at + 104u + (run & 3u)) >> (2u * (run >> 2u))) & 3u;
return vec2f(half(at + 108u) * (f32(low | (high << 4u)) - 32.0), 0.0);`,
    `return low4(word(at + 32u + 32u * part + 4u * l) >> (2u * g), 3u) + 4.0 * low4(word(at + 4u * l) >> (4u * part + g), 1u) - vec4f(4.0);`,
  ),
  q2_k: sixteen(
    84,
    `let h = unpack2x16float(x[(at >> 2u) + 20u]); let s = x[(at + run) >> 2u] >> ((run & 3u) * 8u);
return vec2f(h.x * f32(s & 15u), h.y * f32((s >> 4u) & 15u));`,
    'return low4(x[(at >> 2u) + 4u + 8u * part + l] >> (2u * g), 3u);',
  ),
  iq4_xs: wide(
    34,
    `let low = (x[at + 1u] >> (4u * j)) & 15u; let high = (x[at] >> (16u + 2u * j)) & 3u;
return vec2f(unpack2x16float(x[at]).x * (f32(low | (high << 4u)) - 32.0), 0.0);`,
    'return nonlinear4(x[at + 2u + 4u * j + (l & 3u)] >> ((l >> 2u) * 4u));',
  ),
};

/** Codes of runs behind their scales: whole words. */
function scaled(code: Fp8, run: number): Body {
  return {
    at: `let block = i / ${run / 4}u; let at = block * ${run / 4 + 1}u;`,
    head: 'return vec2f(bitcast<f32>(x[at]), 0.0);',
    codes: `return ${code}(x[at + 1u + i - block * ${run / 4}u]);`,
  };
}

function bodyOf(dtype: Packed): Body {
  const eight = fp8Of(dtype);
  if (!eight) return BODIES[dtype as BlockType];
  if (eight.run) return scaled(eight.code, eight.run);
  return { at: '', head: 'return vec2f(1.0, 0.0);', codes: `return ${eight.code}(x[i]);` };
}

/** Numbers that share scale and minimum, as a power of two up to 32; eight-bit floats of a scale for a few have none worth it. */
function runOf(dtype: Packed): number | undefined {
  const eight = fp8Of(dtype);
  if (!eight) return ['q2_k', 'q3_k', 'q6_k'].includes(dtype) ? 16 : 32;
  return eight.run && eight.run % 32 === 0 ? 32 : undefined;
}

export function packedReader(dtype: Packed): FloatReader {
  const { at, head, codes } = bodyOf(dtype);
  const length = runOf(dtype);
  const text = `fn x_word(at: u32) -> u32 { let i = at >> 2u; let s = (at & 3u) * 8u; return (x[i] >> s) | ((x[i + 1u] << 1u) << (31u - s)); }
fn x_half(at: u32) -> f32 { return unpack2x16float(x[at >> 2u] >> ((at & 2u) * 8u)).x; }
fn x_head(i: u32) -> vec2f { ${at}\n${head} }
fn x_codes(i: u32) -> vec4f { ${at}\n${codes} }
fn x_four(i: u32) -> vec4f { let head = x_head(i); return head.x * x_codes(i) - vec4f(head.y); }`;
  return {
    type: 'u32',
    common: COMMON,
    functions: (name) => text.replace(/\bx(_\w+|\[)/g, `${name}$1`).replace(/\b(word|half)\(/g, `${name}_$1(`),
    read: (name, i) => `${name}_four(${i})`,
    fours: true,
    ...(length && {
      run: {
        length,
        head: (name, i) => `${name}_head(${i})`,
        values: (name, i, head) => `${head}.x * ${name}_codes(${i}) - vec4f(${head}.y)`,
      },
    }),
  };
}

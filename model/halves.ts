/** f16 and bf16 as bit patterns: conversion to and from f32, round to nearest, ties to even; and from eight bits. */

const word = new Uint32Array(1);
const float = new Float32Array(word.buffer);

/** Every f16 bit pattern's value. */
let f16Values: Float32Array | undefined;

export function f16Table(): Float32Array {
  if (f16Values) return f16Values;
  f16Values = new Float32Array(65536);
  for (let bits = 0; bits < 65536; bits++) {
    const exponent = (bits >> 10) & 31;
    const mantissa = bits & 1023;
    const magnitude =
      exponent === 31
        ? mantissa
          ? NaN
          : Infinity
        : exponent === 0
          ? mantissa * 2 ** -24
          : (1024 + mantissa) * 2 ** (exponent - 25);
    f16Values[bits] = bits & 0x8000 ? -magnitude : magnitude;
  }
  return f16Values;
}

export function fromF16(bits: Uint16Array): Float32Array<ArrayBuffer> {
  const table = f16Table();
  const out = new Float32Array(bits.length);
  for (let i = 0; i < bits.length; i++) out[i] = table[bits[i]!]!;
  return out;
}

/** Values from 65520 become infinity; subnormals are kept. */
export function toF16(values: Float32Array): Uint16Array<ArrayBuffer> {
  const out = new Uint16Array(values.length);
  for (let i = 0; i < values.length; i++) {
    float[0] = values[i]!;
    const bits = word[0]!;
    const sign = (bits >>> 16) & 0x8000;
    const magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) out[i] = sign | 0x7e00;
    else if (magnitude >= 0x47800000) out[i] = sign | 0x7c00;
    else if (magnitude >= 0x38800000) {
      // Normal: rebias the exponent by 112; a carry out of the mantissa rightly moves the exponent, up to infinity.
      out[i] = sign | ((magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13);
    } else {
      // Subnormal: whole multiples of 2^-24. Adding 2^-1 leaves the sum an ulp of 2^-24, so the addition rounds as f16 would.
      float[0] = Math.fround(Math.abs(values[i]!)) + 0.5;
      out[i] = sign | (word[0]! - 0x3f000000);
    }
  }
  return out;
}

export function fromBF16(bits: Uint16Array): Float32Array<ArrayBuffer> {
  const out = new Float32Array(bits.length);
  const words = new Uint32Array(out.buffer);
  for (let i = 0; i < bits.length; i++) words[i] = bits[i]! << 16;
  return out;
}

/** Values that round past the largest finite bf16 become infinity. */
export function toBF16(values: Float32Array): Uint16Array<ArrayBuffer> {
  const out = new Uint16Array(values.length);
  for (let i = 0; i < values.length; i++) {
    float[0] = values[i]!;
    const bits = word[0]!;
    const nan = (bits & 0x7fffffff) > 0x7f800000;
    out[i] = nan ? (bits >>> 16) | 0x40 : (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
  }
  return out;
}

let e4m3Values: Float32Array | undefined;

function e4m3Table(): Float32Array {
  return (e4m3Values ??= Float32Array.from({ length: 256 }, (_, b) => {
    const exponent = (b >> 3) & 15,
      mantissa = b & 7;
    const magnitude = (b & 127) === 127 ? NaN : exponent ? (8 + mantissa) * 2 ** (exponent - 10) : mantissa * 2 ** -9;
    return b & 128 ? -magnitude : magnitude;
  }));
}

/** Sign, four bits of exponent, three of mantissa: no infinities, NaN where all seven bits are set ("fn"). */
export function fromF8E4M3(bits: Uint8Array): Float32Array<ArrayBuffer> {
  const table = e4m3Table();
  const out = new Float32Array(bits.length);
  for (let i = 0; i < bits.length; i++) out[i] = table[bits[i]!]!;
  return out;
}

/** An f16 without its low byte. */
export function fromF8E5M2(bits: Uint8Array): Float32Array<ArrayBuffer> {
  const table = f16Table();
  const out = new Float32Array(bits.length);
  for (let i = 0; i < bits.length; i++) out[i] = table[bits[i]! << 8]!;
  return out;
}

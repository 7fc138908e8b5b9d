/**
 * Sine and cosine to f32 accuracy. WGSL promises 2^-11 on [-π, π] only, and drivers use that freedom: with these the same seed
 * gives the same video on each of them.
 *
 * Cody-Waite reduction by half-integer multiples of π (in three parts: |x| up to about 1e4), then the odd Taylor polynomial to
 * r^11 on [-π/2, π/2].
 */
export const TRIG = `fn wave(x: f32, halfTurns: f32) -> f32 {
  let r = ((x - halfTurns * 3.140625) - halfTurns * 9.675026e-4) - halfTurns * 1.509958e-7;
  let s = r * r;
  return r + r * s * (-0.16666667 + s * (0.008333334 + s * (-0.0001984127 + s * (2.7557319e-6 + s * -2.5052108e-8))));
}
fn sine(x: f32) -> f32 {
  let k = round(x * 0.31830987); // sin x = (-1)^k sin(x - k π)
  return select(1.0, -1.0, floor(k * 0.5) * 2.0 != k) * wave(x, k);
}
fn cosine(x: f32) -> f32 {
  let k = floor(x * 0.31830987); // cos x = -(-1)^k sin(x - (k + 1/2) π)
  return select(-1.0, 1.0, floor(k * 0.5) * 2.0 != k) * wave(x, k + 0.5);
}`;

/**
 * Sine and cosine of any f32, to 2 ulp. x is taken by whole numbers (Payne and Hanek): its 24 bits times those 96 bits of 2/π that
 * matter to x · 2/π modulo 4, which no compiler can rearrange. Then Cephes' polynomials on [-π/4, π/4].
 */
export const WIDE_TRIG = `const twoOverPi = array<u32, 8>(0u, 0u, 0xa2f9836eu, 0x4e441529u, 0xfc2757d1u, 0xf534ddc0u, 0xdb629599u, 0x3c439041u);
fn high(a: u32, b: u32) -> u32 {
  let low = ((a & 0xffffu) * (b & 0xffffu)) >> 16u;
  let m1 = (a >> 16u) * (b & 0xffffu) + low;
  let m2 = (a & 0xffffu) * (b >> 16u) + (m1 & 0xffffu);
  return (a >> 16u) * (b >> 16u) + (m1 >> 16u) + (m2 >> 16u);
}
fn spread(w: u32, next: u32, by: u32) -> u32 { return (w << by) | ((next >> 1u) >> (31u - by)); }
struct Turn { r: f32, quarters: u32 }
/** |x| as quarter turns and a rest in [-π/4, π/4]. */
fn turnOf(x: f32) -> Turn {
  let b = bitcast<u32>(x) & 0x7fffffffu;
  if (b < 0x3f490fdbu) { return Turn(bitcast<f32>(b), 0u); }
  if (b >= 0x7f800000u) { return Turn(bitcast<f32>(b | 0x7fc00000u), 0u); }
  let m = (b << 8u) | 0x80000000u;
  let first = (b >> 23u) - 96u; // of the bits, with 63 zeros in front of the point, whose products with m reach below 4
  let i = first >> 5u;
  let by = first & 31u;
  let w0 = spread(twoOverPi[i], twoOverPi[i + 1u], by);
  let w1 = spread(twoOverPi[i + 1u], twoOverPi[i + 2u], by);
  let w2 = spread(twoOverPi[i + 2u], twoOverPi[i + 3u], by);
  let low = high(m, w2);
  let middle = low + m * w1;
  let top = m * w0 + high(m, w1) + select(0u, 1u, middle < low);
  // Two bits of quarters, then the fraction: from a half on it is the next quarter less what is missing.
  let f = (top << 2u) | (middle >> 30u);
  let less = f >= 0x80000000u;
  let hi = select(f, ~f, less);
  let lo = select(middle << 2u, ~(middle << 2u), less);
  let zeros = min(countLeadingZeros(hi), 31u);
  let scale = bitcast<f32>((95u - zeros) << 23u); // 2^(-32 - zeros)
  let r = f32(spread(hi, lo, zeros)) * scale * 1.5707964;
  return Turn(select(r, -r, less), (top >> 30u) + select(0u, 1u, less));
}
fn waveAt(t: Turn, quarters: u32) -> f32 {
  let s = t.r * t.r;
  let odd = t.r + t.r * s * (-0.16666655 + s * (0.008332161 + s * -0.00019515296));
  let even = 1.0 - 0.5 * s + s * s * (0.041666646 + s * (-0.0013887316 + s * 0.000024433157));
  let y = select(odd, even, (quarters & 1u) == 1u);
  return select(y, -y, (quarters & 2u) == 2u);
}
fn sine(x: f32) -> f32 {
  let t = turnOf(x);
  let y = waveAt(t, t.quarters);
  return select(y, -y, bitcast<u32>(x) >> 31u == 1u);
}
fn cosine(x: f32) -> f32 {
  let t = turnOf(x);
  return waveAt(t, t.quarters + 1u);
}`;

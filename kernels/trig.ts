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

/** Whole division in WGSL by a float reciprocal and two corrections: on CPU drivers integer division is done lane by lane. */

/** `name(x, d)` = ⌊x / d⌋ for x, d < 2³¹. */
export const quotientFunction = (name: string): string => `fn ${name}(x: u32, d: u32) -> u32 {
  let r = 1.0 / f32(d);
  var q = u32(f32(x) * r);
  q = u32(i32(q) + i32(floor(f32(i32(x - q * d)) * r)));
  let rest = i32(x - q * d);
  if (rest < 0) { q = q - 1u; } else if (u32(rest) >= d) { q = q + 1u; }
  return q;
}`;

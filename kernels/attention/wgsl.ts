/** WGSL that every attention kernel is made of: its uniforms, rows read and written, and which tile a workgroup has. */
import type { Access, Binding } from '../kernel.ts';
import { range } from '../print.ts';
import type { AttentionPlan } from './plan.ts';

/** Uniform words of every attention kernel. `H` heads, `D` elements and `steps` vec4 a row; `own` tiles a head. */
export const PARAMS = ['tiles', 'own', 'B', 'N', 'L', 'H', 'D', 'steps', 'scale'] as const;

/** Below every score; finite, because WGSL has no infinity. */
export const LOWEST = '-3.4e38';

/** A tensor of rows [B, rows, H, D]. */
export function rowBinding(plan: AttentionPlan, name: string, access: Access): Binding {
  return { name, type: plan.vec ? 'vec4f' : 'f32', access };
}

/** `get_x(row, s)` and `put_x(row, s, v)`: vec4 number s of flat row (b·rows + i)·H + h; values past D read as zero. */
export function rowFunctions(plan: AttentionPlan, reads: readonly string[], writes: readonly string[]): string {
  const get = (name: string) =>
    plan.vec
      ? `fn get_${name}(row: u32, s: u32) -> vec4f { return ${name}[row * p.steps + s]; }`
      : `fn get_${name}(row: u32, s: u32) -> vec4f {
  let at = row * p.D; let d = 4u * s;
  return vec4f(${range(4)
    .map((j) => `select(0.0, ${name}[at + min(d + ${j}u, p.D - 1u)], d + ${j}u < p.D)`)
    .join(', ')});
}`;
  const put = (name: string) =>
    plan.vec
      ? `fn put_${name}(row: u32, s: u32, v: vec4f) { ${name}[row * p.steps + s] = v; }`
      : `fn put_${name}(row: u32, s: u32, v: vec4f) {
  var w = v;
  for (var j = 0u; j < min(4u, p.D - 4u * s); j++) { ${name}[row * p.D + 4u * s + j] = w[j]; }
}`;
  return [...reads.map(get), ...writes.map(put)].join('\n');
}

/** Which (batch, head) and which tile of own rows this workgroup has, and how many keys count: `len`, uniform. */
export function prologue(lengths: boolean): string {
  return `
let tile = wid.x + wid.y * nwg.x;
if (tile >= p.tiles) { return; }
let bh = tile / p.own;
let b = bh / p.H;
let h = bh % p.H;
let scale = bitcast<f32>(p.scale);
${
  lengths
    ? `if (li == 0u) { keys = min(lengths[b], p.L); }
let len = workgroupUniformLoad(&keys);`
    : 'let len = p.L;'
}`;
}

export const lengthsVariable = (lengths: boolean): string => (lengths ? 'var<workgroup> keys: u32;' : '');

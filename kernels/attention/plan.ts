/** Attention planner: (capabilities, problem) → the configuration both tiers print from. Pure. */
import { ceilDiv, type Access, type Binding, type Caps } from '../kernel.ts';
import { choose, combinations, near } from '../tuning.ts';

/** o = softmax(scale · q kᵀ) v by head. q, o: [B, N, H, D]; k, v: [B, L, H, D]; lse: [B, H, N]. All f32, contiguous. */
export interface AttentionProblem {
  B: number;
  N: number;
  L: number;
  H: number;
  D: number;
  scale: number;
  /** A slot of u32[B] follows: keys at lengths[b] and beyond do not take part. */
  lengths: boolean;
  /** One for each input slot. */
  access: readonly Access[];
}

/** scalar: rows a lane holds, and rows of the other side it meets at a time. */
export interface AttentionConfig {
  own: number;
  others: number;
}

export interface AttentionPlan extends AttentionConfig {
  tier: 'scalar' | 'tiled';
  /** D is a multiple of 4: rows are read and written as vec4. */
  vec: boolean;
  /** vec4 steps along D; stands in the text as the size of the sums a lane holds. */
  steps: number;
  /** scalar: lanes that share loads by broadcast (1: none). */
  lanes: number;
  threads: number;
}

/** Rows and columns of a score tile in the tiled tier, and the columns of D staged at a time. */
export const TILE = 32;

/** `side`: whose rows the lanes hold, queries or keys. */
export function planAttention(caps: Caps, family: 'attention' | 'attentionGrad', p: AttentionProblem, side: 'queries' | 'keys'): AttentionPlan {
  const steps = ceilDiv(p.D, 4), vec = p.D % 4 === 0;
  if (caps.tier === 'tiled') return { tier: 'tiled', vec, steps, lanes: 1, threads: 64, own: TILE, others: TILE };
  const lanes = caps.subgroup || 1, threads = caps.subgroup || 32;
  const [rows, met] = side === 'queries' ? [p.N, p.L] : [p.L, p.N];
  const config = choose<typeof family>(caps, {
    family, problem: p, shape: `${side} ${[p.B * p.H, rows, met, p.D].map(near).join('x')}`,
    rule: { own: rows > threads ? 2 : 1, others: lanes > 1 ? 16 : 4 },
    options: () => combinations<AttentionConfig>({ own: [1, 2, 4], others: lanes > 1 ? [4, 8, 16, 32] : [2, 4, 8] }).filter((c) => c.own * c.others <= 64),
  });
  return { tier: 'scalar', vec, steps, lanes, threads, ...config };
}

/** Rows of its own side that one workgroup covers. */
export const ownRows = (plan: AttentionPlan): number => (plan.tier === 'tiled' ? TILE : plan.own * plan.threads);

/** Uniform words of every attention kernel. `H` heads, `D` elements and `steps` vec4 a row; `own` tiles a head. */
export const PARAMS = ['tiles', 'own', 'B', 'N', 'L', 'H', 'D', 'steps', 'scale'] as const;

export const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);
export const XYZW = ['x', 'y', 'z', 'w'] as const;
/** Below every score; finite, because WGSL has no infinity. */
export const LOWEST = '-3.4e38';

/** A tensor of rows [B, rows, H, D]. */
export function rowBinding(plan: AttentionPlan, name: string, access: Access): Binding {
  return { name, type: plan.vec ? 'vec4f' : 'f32', access };
}

/** `get_x(row, s)` and `put_x(row, s, v)`: vec4 number s of flat row (b·rows + i)·H + h; values past D read as zero. */
export function rowFunctions(plan: AttentionPlan, reads: readonly string[], writes: readonly string[]): string {
  const get = (name: string) => plan.vec
    ? `fn get_${name}(row: u32, s: u32) -> vec4f { return ${name}[row * p.steps + s]; }`
    : `fn get_${name}(row: u32, s: u32) -> vec4f {
  let at = row * p.D; let d = 4u * s;
  return vec4f(${range(4).map((j) => `select(0.0, ${name}[at + min(d + ${j}u, p.D - 1u)], d + ${j}u < p.D)`).join(', ')});
}`;
  const put = (name: string) => plan.vec
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
${lengths ? `if (li == 0u) { keys = min(lengths[b], p.L); }
let len = workgroupUniformLoad(&keys);` : 'let len = p.L;'}`;
}

export const lengthsVariable = (lengths: boolean): string => (lengths ? 'var<workgroup> keys: u32;' : '');

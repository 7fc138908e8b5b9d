/** Attention planner: (capabilities, problem) → the configuration every tier prints from. Pure. */
import { ceilDiv, type Access, type Caps } from '../kernel.ts';
import { fitsThreads, unitFor, type MatrixUnit } from '../mma.ts';
import { choose, combinations, near } from '../tuning.ts';
import { matrixBytes } from './matrix.ts';

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
  /** Operands may be rounded to f16; sums and all else stay f32. */
  half?: boolean;
  /** One for each input slot. */
  access: readonly Access[];
}

/** scalar: rows a lane holds, and rows of the other side it meets at a time. */
export interface AttentionConfig {
  own: number;
  others: number;
}

/** matrix: rows of its own side that a workgroup holds, shared by its subgroups, and rows of the other side it meets at a time. */
export interface MatrixTile extends AttentionConfig {
  subgroups: number;
}

export type Kind = 'forward' | 'gradQuery' | 'gradKey';

export interface AttentionPlan extends AttentionConfig {
  tier: 'scalar' | 'tiled' | 'matrix';
  matrix?: { tile: MatrixTile; unit: MatrixUnit };
  /** D is a multiple of 4: rows are read and written as vec4. */
  vec: boolean;
  /** vec4 steps along D; stands in the text as the size of the sums a lane holds. */
  steps: number;
  /** scalar: lanes that share loads by broadcast (1: none). */
  lanes: number;
  threads: number;
}

/** Fused kernels that keep no scores, or products over scores in memory. */
export interface AttentionPath {
  path: 'fused' | 'composed';
}

const FUSED: AttentionPath = { path: 'fused' };
const COMPOSED: AttentionPath = { path: 'composed' };
/** Bytes of scores above which they are not kept. */
const MOST_SCORES = 2 ** 26;
/** Keys of each of as many queries from which on products pay on a CPU driver: five of them do what takes the fused gradient seven. */
const MANY = 128;

/**
 * Fused, unless measured otherwise on this device; on lavapipe forward and gradient are 1.1
 * (128 tokens) to 1.5 times (512) as fast with the gradient composed.
 */
export function attentionPath(
  caps: Caps,
  op: 'attention' | 'attentionGrad',
  p: AttentionProblem,
): AttentionPath['path'] {
  const scores = [p.B * p.H, p.N, p.L] as const;
  if (4 * scores.reduce((a, b) => a * b) > Math.min(MOST_SCORES, caps.maxBindingBytes)) return 'fused';
  const rule =
    caps.tier === 'scalar' && op === 'attentionGrad' && p.N * p.L >= MANY ** 2 && Math.min(p.N, p.L) >= MANY / 2
      ? COMPOSED
      : FUSED;
  return choose<'attentionPath' | 'attentionGradPath'>(caps, {
    family: `${op}Path`,
    problem: p,
    shape: [...scores, p.D].map(near).join('x'),
    rule,
    options: () => [FUSED, COMPOSED],
  }).path;
}

/** Rows and columns of a score tile in the tiled tier, and the columns of D staged at a time. */
export const TILE = 32;

const TILED: AttentionConfig = { own: TILE, others: TILE };

/**
 * Largest first; what stands behind them is for the tuner. 16 rows a subgroup: their results take 64 of a thread's registers at D = 128.
 */
const MATRIX_TILES: readonly MatrixTile[] = [
  { own: 64, others: 32, subgroups: 4 },
  { own: 32, others: 32, subgroups: 2 },
  { own: 32, others: 16, subgroups: 2 },
  { own: 16, others: 16, subgroups: 1 },
  { own: 16, others: 16, subgroups: 2 },
  { own: 64, others: 64, subgroups: 4 },
  { own: 64, others: 32, subgroups: 2 },
];
/** Workgroups that fill a device; below, smaller tiles are better. */
const ENOUGH_TILES = 64;
/** Head sizes that units serve: below them most of a unit is padding, above them results don't fit a thread's registers. */
const [LEAST_D, MOST_D] = [32, 128];

/**
 * Units serve rows enough for one of them, on either side: all three kernels round what
 * they read, or none, or statistics of one are not the other's.
 */
function matrixTiles(caps: Caps, unit: MatrixUnit, kind: Kind, { rows, D }: { rows: number; D: number }): MatrixTile[] {
  if (D < LEAST_D || D > MOST_D || rows < 16) return [];
  return MATRIX_TILES.filter((t) => {
    const threads = t.subgroups * unit.lanes;
    return (
      (t.own / t.subgroups) % unit.M === 0 &&
      t.others % unit.N === 0 &&
      t.others % unit.K === 0 &&
      threads % t.own === 0 &&
      t.others % (threads / t.own) === 0 &&
      fitsThreads(threads, unit, caps) &&
      matrixBytes(t, ceilDiv(D, 4), unit, kind) <= caps.maxWorkgroupBytes
    );
  });
}

export function planAttention(caps: Caps, p: AttentionProblem, kind: Kind): AttentionPlan {
  const steps = ceilDiv(p.D, 4),
    vec = p.D % 4 === 0;
  const [rows, met] = kind === 'gradKey' ? [p.L, p.N] : [p.N, p.L];
  const family = kind === 'forward' ? 'attention' : 'attentionGrad';
  const shape = `${kind === 'gradKey' ? 'keys' : 'queries'} ${[p.B * p.H, rows, met, p.D].map(near).join('x')}`;
  if (caps.tier === 'tiled') {
    const tiled: AttentionPlan = { tier: 'tiled', vec, steps, lanes: 1, threads: 64, ...TILED };
    const unit = unitFor(caps, p.half ? 'f16' : 'f32');
    const tiles = unit ? matrixTiles(caps, unit, kind, { rows: Math.min(rows, met), D: p.D }) : [];
    if (!unit || !tiles.length) return tiled;
    const rule =
      tiles.find((t) => p.B * p.H * ceilDiv(rows, t.own) >= ENOUGH_TILES) ??
      tiles.find((t) => t.own === Math.min(...tiles.map((o) => o.own)))!;
    const tile = choose<typeof family>(caps, {
      family,
      problem: p,
      shape: `${shape} ${unit.operands}`,
      rule,
      options: () => [...tiles, TILED],
    });
    if (!('subgroups' in tile)) return tiled;
    return { ...tiled, tier: 'matrix', matrix: { tile, unit }, threads: tile.subgroups * unit.lanes, ...tile };
  }
  const lanes = caps.subgroup || 1,
    threads = caps.subgroup || 32;
  const config = choose<typeof family>(caps, {
    family,
    problem: p,
    shape,
    rule: { own: rows > threads ? 2 : 1, others: lanes > 1 ? 16 : 4 },
    options: () =>
      combinations<AttentionConfig>({ own: [1, 2, 4], others: lanes > 1 ? [4, 8, 16, 32] : [2, 4, 8] }).filter(
        (c) => c.own * c.others <= 64,
      ),
  });
  return { tier: 'scalar', vec, steps, lanes, threads, ...config };
}

/** Rows of its own side that one workgroup covers. */
export const ownRows = (plan: AttentionPlan): number => (plan.tier === 'scalar' ? plan.own * plan.threads : plan.own);

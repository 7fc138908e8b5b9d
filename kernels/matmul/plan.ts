/** Matmul planner: (capabilities, problem) → normalised shape and configuration. Pure; the templates only print what it decides. */
import { floatReader, type FloatReader, type FloatType } from '../halves.ts';
import { ceilDiv, type Access, type Caps, type Epilogue } from '../kernel.ts';
import { fitsThreads, unitFor, type MatrixUnit } from '../mma.ts';
import { packedReader } from '../packedread.ts';
import { isPacked, type Packed } from '../packed.ts';
import { MOST_SUMS, mostSums } from '../registers.ts';
import { choose, combinations, near } from '../tuning.ts';
import { matrixBytes, matrixThreads } from './matrix.ts';
import { tiledBytes, tiledThreads } from './tiled.ts';

/** What products read. */
export type OperandType = FloatType | Packed;

/**
 * out[batch, M, N] = op(a) · op(b), accumulated in f32. a is stored [batch, M, K], or [batch, K, M] with transA; b is
 * [batch, K, N], or [batch, N, K] with transB. All are contiguous. An f16 operand has 11 bits and ends at 65504, above which it is
 * infinite; products and sums of halves are f32, as the output is. A packed operand is one of a batch of 1, its rows whole blocks.
 */
export interface MatmulProblem {
  batch: number;
  M: number;
  N: number;
  K: number;
  transA: boolean;
  transB: boolean;
  dtypeA: OperandType;
  dtypeB: OperandType;
  access: readonly [Access, Access];
  epilogue?: Epilogue | undefined;
}

/** One operand as the templates see it: its slot and how its storage lies. */
interface Operand {
  slot: number;
  dtype: OperandType;
  access: Access;
  trans: boolean;
  /** Elements from one matrix of the batch to the next. */
  stride: number;
  /** Elements from one stored row to the next. */
  ld: number;
}

export interface Shape {
  batch: number;
  M: number;
  N: number;
  K: number;
  a: Operand;
  b: Operand;
}

/**
 * `scalar`: each lane holds rows × 4·cols of the output; the rows' a values travel by broadcast in a subgroup of `lanes` (1: no subgroups).
 */
export interface ScalarConfig {
  tier: 'scalar';
  rows: number;
  cols: number;
  lanes: number;
  workgroup: readonly [number, number];
}

/** `tiled`: a workgroup makes BM × BN of the output from panels of BK in workgroup memory; a thread holds TM × TN, multiples of 4. */
export interface TiledConfig {
  tier: 'tiled';
  BM: number;
  BN: number;
  BK: number;
  TM: number;
  TN: number;
}

/** `matrix`: a workgroup of rows × cols subgroups makes BM × BN of the output by matrix units, from panels of BK in workgroup memory. */
export interface MatrixConfig {
  tier: 'matrix';
  BM: number;
  BN: number;
  BK: number;
  rows: number;
  cols: number;
}

export type MatmulConfig = ScalarConfig | TiledConfig | MatrixConfig;

export interface Plan {
  shape: Shape;
  config: MatmulConfig;
  /** Of a `matrix` configuration. */
  unit?: MatrixUnit;
  /** Both operands and the output are read and written as vec4. */
  vec: boolean;
  /** How the templates read each operand: vec4f, or f32 unless `vec`. */
  read: { a: FloatReader; b: FloatReader };
  /** K ends inside a step of a vec4 kernel: loads past it must give zero. */
  ragged: boolean;
  tilesM: number;
  tilesN: number;
  /** K is cut in `splits` chunks of `chunk`, whose partial outputs a second dispatch adds in order. */
  splits: number;
  chunk: number;
}

/** Lays a single output column as a row, so that the templates see the good case. */
function normalise(p: MatmulProblem): Shape {
  const { batch, M, N, K } = p;
  const a: Operand = {
    slot: 0,
    dtype: p.dtypeA,
    access: p.access[0],
    trans: p.transA,
    stride: M * K,
    ld: p.transA ? M : K,
  };
  const b: Operand = {
    slot: 1,
    dtype: p.dtypeB,
    access: p.access[1],
    trans: p.transB,
    stride: K * N,
    ld: p.transB ? K : N,
  };
  if (N > 1 || M === 1) return { batch, M, N, K, a, b };
  return { batch, M: 1, N: M, K, a: { ...b, trans: !b.trans }, b: { ...a, trans: !a.trans } };
}

/** Largest first. 8 × 8 sums a thread read 4 vec4 for 64 multiply-adds, 8 × 4 three for 32. */
const TILES: readonly TiledConfig[] = [
  { tier: 'tiled', BM: 128, BN: 128, BK: 16, TM: 8, TN: 8 },
  { tier: 'tiled', BM: 128, BN: 64, BK: 16, TM: 8, TN: 4 },
  { tier: 'tiled', BM: 64, BN: 64, BK: 16, TM: 8, TN: 8 },
  { tier: 'tiled', BM: 64, BN: 64, BK: 16, TM: 8, TN: 4 },
  { tier: 'tiled', BM: 32, BN: 32, BK: 16, TM: 4, TN: 4 },
];
const FLAT_TILE: TiledConfig = { tier: 'tiled', BM: 16, BN: 64, BK: 8, TM: 4, TN: 4 };
/** Workgroups that fill a large GPU once, or nearly. */
const ENOUGH_TILES = 128;

const tileCount = (s: Shape, rows: number, cols: number) => s.batch * ceilDiv(s.M, rows) * ceilDiv(s.N, cols);

/** Workgroups of 32 rows that keep a few cores busy: fewer loads a multiply-add, and twice as long to compile. */
const TALL_TILES = 12;

function scalarConfig(caps: Caps, s: Shape): ScalarConfig {
  if (!caps.subgroup) return { tier: 'scalar', rows: 4, cols: 2, lanes: 1, workgroup: s.M <= 4 ? [32, 1] : [8, 4] };
  const tall = ceilDiv(s.M, 32) * 32 <= 1.125 * s.M && tileCount(s, 32, 4 * caps.subgroup) >= TALL_TILES;
  return {
    tier: 'scalar',
    rows: s.M <= 4 ? 4 : s.M <= 8 ? 8 : tall ? 32 : 16,
    cols: 1,
    lanes: caps.subgroup,
    workgroup: [caps.subgroup, 1],
  };
}

function tiledConfig(caps: Caps, s: Shape): TiledConfig {
  if (s.M <= FLAT_TILE.BM) return FLAT_TILE;
  const fits = TILES.filter(
    (t) =>
      tiledThreads(t) <= caps.maxInvocations &&
      tiledBytes(t) <= caps.maxWorkgroupBytes &&
      t.TM * t.TN <= mostSums(caps),
  );
  // A tile twice as high as the output computes nothing with its lower half.
  return (
    fits.find((t) => t.BM < 2 * s.M && tileCount(s, t.BM, t.BN) * Math.min(4, ceilDiv(s.K, 512)) >= ENOUGH_TILES) ??
    fits.at(-1)!
  );
}

/** Largest first. */
const MATRIX_TILES: readonly MatrixConfig[] = [
  { tier: 'matrix', BM: 128, BN: 128, BK: 32, rows: 2, cols: 4 },
  { tier: 'matrix', BM: 64, BN: 128, BK: 32, rows: 2, cols: 4 },
  { tier: 'matrix', BM: 64, BN: 64, BK: 32, rows: 2, cols: 2 },
  { tier: 'matrix', BM: 32, BN: 32, BK: 32, rows: 2, cols: 2 },
];
const fitsUnit =
  (caps: Caps, unit: MatrixUnit) =>
  (c: MatrixConfig): boolean =>
    (c.BM / c.rows) % unit.M === 0 &&
    (c.BN / c.cols) % unit.N === 0 &&
    c.BK % unit.K === 0 &&
    (c.BM / c.rows) * (c.BN / c.cols) <= MOST_SUMS * unit.lanes &&
    fitsThreads(matrixThreads(c, unit), unit, caps) &&
    matrixBytes(c, unit) <= caps.maxWorkgroupBytes;

/**
 * Units that round their operands to f16 serve beside one that is f16, weights stored as
 * bf16 too. Flat products read too little to gain from any.
 */
function unitOf(caps: Caps, s: Shape): MatrixUnit | undefined {
  const types = [s.a.dtype, s.b.dtype];
  const half = types.includes('f16') && !types.includes('f32');
  return s.M <= FLAT_TILE.BM ? undefined : unitFor(caps, half ? 'f16' : 'f32');
}

function matrixConfig(caps: Caps, s: Shape, unit: MatrixUnit | undefined): MatrixConfig | undefined {
  const fits = unit ? MATRIX_TILES.filter(fitsUnit(caps, unit)) : [];
  return fits.find((t) => tileCount(s, t.BM, t.BN) * Math.min(4, ceilDiv(s.K, 512)) >= ENOUGH_TILES) ?? fits.at(-1);
}

/** The configurations that the templates can print for this device. */
function configs(caps: Caps, unit: MatrixUnit | undefined): MatmulConfig[] {
  if (caps.tier === 'tiled') {
    const units = unit ? MATRIX_TILES.filter(fitsUnit(caps, unit)) : [];
    const tiles = combinations<Omit<TiledConfig, 'tier'>>({
      BM: [16, 32, 64, 128],
      BN: [32, 64, 128],
      BK: [8, 16, 32],
      TM: [4, 8],
      TN: [4, 8],
    })
      .map((c) => ({ tier: 'tiled' as const, ...c }))
      .filter((c) => {
        const threads = tiledThreads(c);
        return (
          threads >= 32 &&
          threads <= caps.maxInvocations &&
          ((c.BM + c.BN) * c.BK) / 16 <= 2 * threads && // more blocks a thread would take its registers
          tiledBytes(c) <= caps.maxWorkgroupBytes
        );
      });
    return [...units, ...tiles];
  }
  const lanes = caps.subgroup || 1;
  const [rows, workgroups] =
    lanes > 1
      ? [[4, 8, 16, 32], [[lanes, 1]]]
      : [
          [4, 8],
          [
            [8, 4],
            [32, 1],
            [16, 2],
          ],
        ];
  return combinations<Omit<ScalarConfig, 'tier'>>({
    rows,
    cols: [1, 2],
    lanes: [lanes],
    workgroup: workgroups as [number, number][],
  })
    .map((c) => ({ tier: 'scalar' as const, ...c }))
    .filter((c) => c.rows * c.cols <= 32);
}

const classOf = ({ batch, M, N, K, a, b }: Shape): string =>
  `${[batch, M, N, K].map(near).join('x')} ${a.trans ? 't' : 'n'}${b.trans ? 't' : 'n'} ${a.dtype}${a.dtype === b.dtype ? '' : b.dtype}`;

export function planMatmul(caps: Caps, p: MatmulProblem): Plan {
  const shape = normalise(p);
  const { M, N, K, a, b } = shape;
  const unit = unitOf(caps, shape);
  const rule =
    caps.tier === 'scalar' ? scalarConfig(caps, shape) : (matrixConfig(caps, shape, unit) ?? tiledConfig(caps, shape));
  const config = choose(caps, {
    family: 'matmul',
    shape: classOf(shape),
    problem: p,
    rule,
    options: () => configs(caps, unit),
  });
  const [rows, cols, step] =
    config.tier === 'scalar'
      ? [config.rows * config.workgroup[1], 4 * config.cols * config.workgroup[0], 4]
      : [config.BM, config.BN, config.BK];
  const tiles = tileCount(shape, rows, cols);
  const [enough, leastK] = config.tier === 'scalar' ? [4, 1024] : [ENOUGH_TILES, 128];
  const want = tiles >= enough ? 1 : Math.max(1, Math.min(ceilDiv(enough, tiles), Math.floor(K / leastK), 32));
  const vec = (a.trans ? M : K) % 4 === 0 && (b.trans ? K : N) % 4 === 0 && N % 4 === 0;
  const reader = ({ dtype }: Operand): FloatReader =>
    isPacked(dtype) ? packedReader(dtype) : floatReader(caps, dtype, vec);
  const read = { a: reader(a), b: reader(b) };
  const whole = Math.max(step, read.b.run?.length ?? 1);
  const chunk = ceilDiv(ceilDiv(K, want), whole) * whole;
  return {
    shape,
    config,
    ...(unit && config.tier === 'matrix' && { unit }),
    vec,
    read,
    ragged: K % 4 !== 0,
    tilesM: ceilDiv(M, rows),
    tilesN: ceilDiv(N, cols),
    splits: Math.max(1, ceilDiv(K, chunk)),
    chunk,
  };
}

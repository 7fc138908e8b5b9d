/** What a 3-D convolution asks of its templates: sizes, the affine form both directions share, and tile choices. */
import { ceilDiv, numel, type Access, type Caps, type Epilogue } from '../kernel.ts';
import { LOAD } from '../matmul/cost.ts';
import { unitFor, type MatrixUnit } from '../mma.ts';
import { mostSums } from '../registers.ts';
import { choose, combinations, near } from '../tuning.ts';
import { fitsUnit } from './matrix.ts';

/** Time, height, width. */
export type Triple = readonly [number, number, number];

/** x [N, C, ...in], w [O, C, ...kernel], y [N, O, ...out], all f32; y[t] reads x[t * stride - padLo + k]. */
export interface Conv3dProblem {
  N: number;
  C: number;
  O: number;
  in: Triple;
  out: Triple;
  kernel: Triple;
  stride: Triple;
  padLo: Triple;
  access: Access;
  /** Operands may be rounded to f16; sums stay f32. */
  half?: boolean;
  epilogue?: Epilogue;
}

/**
 * One correlation of `source` [N, ci, ...size] over a grid of positions:
 * dst(n, o, g) = sum over c, k of source(n, c, g * stride - pad + k) * w[wStart + o wOut + c wIn + k . wTap].
 * Steps and pads may be negative. The forward convolution is one of these, the input gradient one for each phase of the stride.
 */
export interface Correlation {
  N: number;
  ci: number;
  co: number;
  size: Triple;
  grid: Triple;
  kernel: Triple;
  stride: Triple;
  pad: Triple;
  /** Elements: dst index = dstStart + (n co + o) dstPlane + g . dstStep. */
  dstStart: number;
  dstPlane: number;
  dstStep: Triple;
  wStart: number;
  wOut: number;
  wIn: number;
  wTap: Triple;
}

const triple = (f: (axis: 0 | 1 | 2) => number): Triple => [f(0), f(1), f(2)];
const strides = ([, h, w]: Triple): Triple => [h * w, w, 1];
const dot = (a: Triple, b: Triple): number => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];

export function forward({ N, C, O, in: size, out, kernel, stride, padLo }: Conv3dProblem): Correlation {
  return {
    N,
    ci: C,
    co: O,
    size,
    grid: out,
    kernel,
    stride,
    pad: padLo,
    dstStart: 0,
    dstPlane: numel(out),
    dstStep: strides(out),
    wStart: 0,
    wOut: C * numel(kernel),
    wIn: numel(kernel),
    wTap: strides(kernel),
  };
}

/**
 * dx at i = a + s j sees only the taps k = k0 + s m, m < M, with k0 = (a + pad) mod s. Read backwards they are a plain
 * correlation over dy with stride 1, so a strided gradient is one dense correlation for every phase a, none of it wasted.
 */
export function inputPhases({ N, C, O, in: size, out, kernel, stride, padLo }: Conv3dProblem): Correlation[] {
  const phases: Correlation[] = [];
  const tap = strides(kernel);
  const step = strides(size);
  for (let at = 0; at < numel(stride); at++) {
    const a: Triple = [
      Math.floor(at / (stride[1] * stride[2])),
      Math.floor(at / stride[2]) % stride[1],
      at % stride[2],
    ];
    const grid = triple((d) => ceilDiv(size[d] - a[d], stride[d]));
    if (grid.some((n) => n <= 0)) continue;
    const first = triple((d) => (a[d] + padLo[d]) % stride[d]);
    const taps = triple((d) => Math.max(0, ceilDiv(kernel[d] - first[d], stride[d])));
    phases.push({
      N,
      ci: O,
      co: C,
      size: out,
      grid,
      stride: [1, 1, 1],
      kernel: taps.includes(0) ? [0, 1, 1] : taps, // a phase no tap reaches is filled with zeros
      pad: triple((d) => taps[d] - 1 - (a[d] + padLo[d] - first[d]) / stride[d]),
      dstStart: dot(a, step),
      dstPlane: numel(size),
      dstStep: triple((d) => stride[d] * step[d]),
      wStart: dot(
        triple((d) => first[d] + stride[d] * (taps[d] - 1)),
        tap,
      ),
      wOut: numel(kernel),
      wIn: C * numel(kernel),
      wTap: triple((d) => -stride[d] * tap[d]),
    });
  }
  return phases;
}

/** `scalar`: a lane owns `along` neighbours in W and `channels` outputs; weights go round by subgroup broadcast (lanes > 0). */
export interface ScalarTile {
  lanes: number;
  broadcast: boolean;
  channels: number;
  along: number;
  /** Weight gradient only: (c, kt, kh) columns a lane owns. */
  columns: number;
}

/** What decides a tile: channels read, channels made, taps in W, voxels of a plane, planes. */
interface Sizes {
  ci: number;
  co: number;
  kw: number;
  plane: number;
  planes: number;
}

export const sizesOf = (c: Correlation): Sizes => ({
  ci: c.ci,
  co: c.co,
  kw: c.kernel[2],
  plane: c.grid[1] * c.grid[2],
  planes: c.N * c.grid[0],
});
export const weightSizes = ({ N, C, O, out, kernel }: Conv3dProblem): Sizes => ({
  ci: C,
  co: O,
  kw: kernel[2],
  plane: out[1] * out[2],
  planes: N * out[0],
});

const classOf = (s: Sizes): string => `${near(s.ci)}>${near(s.co)} k${s.kw} ${near(s.planes)}x${near(s.plane)}`;

type Convolution = 'conv3d' | 'conv3dInput' | 'conv3dWeight';

/** Kernels one wide use each load once, so they want more sums a load: more channels, more columns. */
export function scalarTile(caps: Caps, family: Convolution, problem: Conv3dProblem, sizes: Sizes): ScalarTile {
  const broadcast = caps.subgroup > 0;
  const { co, kw } = sizes;
  const channels = co <= 4 ? 4 : co <= 8 ? 8 : kw === 1 && co > 16 ? 32 : 16;
  const rule: ScalarTile = broadcast
    ? {
        lanes: caps.subgroup,
        broadcast,
        channels,
        along: family !== 'conv3dWeight' && channels <= 8 ? 8 : 4,
        columns: kw === 1 && channels < 32 ? 4 : 2,
      }
    : { lanes: 16, broadcast, channels: 4, along: 8, columns: 2 };
  const weights = family === 'conv3dWeight';
  return choose<Convolution>(caps, {
    family,
    problem,
    shape: classOf(sizes),
    rule,
    options: () =>
      combinations<ScalarTile>({
        lanes: [rule.lanes],
        broadcast: [broadcast],
        channels: broadcast ? [4, 8, 16, 32] : [4, 8],
        along: weights ? [rule.along] : [4, 8],
        columns: weights ? [2, 4] : [rule.columns],
      }),
  }) as ScalarTile;
}

/** A workgroup's part of the output, `panel` of the inner axis at a time. */
interface Tile {
  channels: number;
  columns: number;
  panel: number;
}

/** `tiled`: a thread holds TM x TN of the tile. */
export interface WorkgroupTile extends Tile {
  TM: number;
  TN: number;
}

/** Threads must be a multiple of `columns`. 96 channels are what Wan's VAE has at full size. */
const WORKGROUP_TILES: readonly WorkgroupTile[] = [
  { channels: 16, columns: 256, panel: 8, TM: 4, TN: 4 },
  { channels: 32, columns: 128, panel: 16, TM: 8, TN: 4 },
  { channels: 96, columns: 128, panel: 16, TM: 12, TN: 8 },
  { channels: 96, columns: 64, panel: 16, TM: 8, TN: 4 },
  { channels: 64, columns: 128, panel: 16, TM: 8, TN: 8 },
  { channels: 64, columns: 128, panel: 16, TM: 8, TN: 4 },
  { channels: 64, columns: 64, panel: 16, TM: 8, TN: 4 },
  { channels: 64, columns: 64, panel: 16, TM: 4, TN: 4 },
];

/** A vec4 of padding behind each row and column of a panel, and what its inner indices mean. */
const tiledBytes = ({ channels, columns, panel }: WorkgroupTile): number =>
  4 * (channels + columns) * (panel + 4) + 16 * panel;

/** `matrix`: the tile is made by rows × cols subgroups. */
export interface MatrixTile extends Tile {
  rows: number;
  cols: number;
}

/** Where two cost the same, the first. */
const MATRIX_TILES: readonly MatrixTile[] = [
  { channels: 128, columns: 64, panel: 32, rows: 2, cols: 2 },
  { channels: 96, columns: 64, panel: 32, rows: 2, cols: 2 },
  { channels: 32, columns: 64, panel: 32, rows: 1, cols: 2 },
  { channels: 64, columns: 64, panel: 32, rows: 2, cols: 2 },
  { channels: 32, columns: 32, panel: 16, rows: 1, cols: 1 },
];
/** Fewer channels leave most of a unit empty. */
const LEAST_CHANNELS = 16;

/** Work with the channels that overhang, times the cost of feeding it. */
function cheapest<T extends Tile>(tiles: readonly T[], co: number): T {
  const cost = ({ channels, columns }: Tile) =>
    ceilDiv(co, channels) * channels * (1 + LOAD.global / channels + LOAD.global / columns);
  return tiles.reduce((a, b) => (cost(b) < cost(a) ? b : a));
}

/** A tile, and the matrix unit that makes one of units. */
export interface Block {
  tile: WorkgroupTile | MatrixTile;
  unit: MatrixUnit | undefined;
}

export function blockOf(caps: Caps, family: Convolution, problem: Conv3dProblem, sizes: Sizes): Block {
  const unit = unitFor(caps, problem.half ? 'f16' : 'f32');
  const units = unit && sizes.co >= LEAST_CHANNELS ? MATRIX_TILES.filter((t) => fitsUnit(t, unit, caps)) : [];
  const tiles = WORKGROUP_TILES.filter((t) => t.TM * t.TN <= mostSums(caps) && tiledBytes(t) <= caps.maxWorkgroupBytes);
  const tile = choose<Convolution>(caps, {
    family,
    problem,
    shape: `${classOf(sizes)}${unit && units.length ? ` ${unit.operands}` : ''}`,
    rule: cheapest<WorkgroupTile | MatrixTile>(units.length ? units : tiles, sizes.co),
    options: () => [...units, ...tiles],
  }) as WorkgroupTile | MatrixTile;
  return { tile, unit };
}

/** Into how many ordered parts the voxels of a weight gradient are split, so that `groups` workgroups fill the device. */
export function weightSplits(
  caps: Caps,
  groups: number,
  units: number,
  shortest: number,
): { splits: number; chunk: number } {
  const wanted = ceilDiv(caps.tier === 'scalar' ? 32 : 512, groups);
  const chunk = Math.max(shortest, ceilDiv(units, wanted));
  return { splits: ceilDiv(units, chunk), chunk };
}

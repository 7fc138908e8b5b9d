/**
 * Part of stage `simplify`: a convolution whose windows tile its input, each as wide as the stride, is a product of matrices. Single
 * voxels lie as columns already, patches are moved there: a template for windows that overlap would read them unrolled.
 */
import { numel } from '../../kernels/kernel.ts';
import { typeOf, type MakeValue, type OpAttrs, type Value } from '../frontend/graph.ts';

type Shape = readonly number[];

/** Of w [O,C,kt,kh,kw] over x [N,C,t·kt,h·kh,w·kw]. */
interface Tiling {
  clips: number;
  /** [O, C·kt·kh·kw] of w as a matrix. */
  rows: number;
  cols: number;
  channels: number;
  window: Shape;
  /** [t, h, w] */
  grid: Shape;
}

function tiling(w: Shape, x: Shape, { stride, padLo, padHi }: OpAttrs['conv3d']): Tiling | null {
  const window = w.slice(2);
  const tiles =
    [...padLo, ...padHi].every((n) => n === 0) && window.every((k, i) => stride[i] === k && x[i + 2]! % k === 0);
  return tiles
    ? {
        clips: x[0]!,
        rows: w[0]!,
        cols: numel(w.slice(1)),
        channels: w[1]!,
        window,
        grid: window.map((k, i) => x[i + 2]! / k),
      }
    : null;
}

const isVoxel = ({ window }: Tiling): boolean => window.every((k) => k === 1);
/** A matrix for each clip; one clip's has two axes. */
const matrices = ({ clips }: Tiling, rows: number, cols: number): number[] =>
  clips === 1 ? [rows, cols] : [clips, rows, cols];

/** x → a window a column. */
function columns(x: Value, p: Tiling, make: MakeValue): Value {
  const {
    clips,
    channels,
    cols,
    grid: [t, h, w],
    window: [kt, kh, kw],
  } = p;
  const moved = isVoxel(p)
    ? x
    : make('permute', [make('reshape', [x], { shape: [clips, channels, t!, kt!, h!, kh!, w!, kw!] })], {
        order: [0, 1, 3, 5, 7, 2, 4, 6],
      });
  return make('reshape', [moved], { shape: matrices(p, cols, numel(p.grid)) });
}

/** A window a column → x. */
function fromColumns(v: Value, p: Tiling, shape: Shape, make: MakeValue): Value {
  const { clips, channels, grid, window } = p;
  const moved = isVoxel(p)
    ? v
    : make('permute', [make('reshape', [v], { shape: [clips, channels, ...window, ...grid] })], {
        order: [0, 1, 5, 2, 6, 3, 7, 4],
      });
  return make('reshape', [moved], { shape });
}

/** y or dy as a matrix for each clip. */
const outputs = (y: Value, p: Tiling, make: MakeValue): Value =>
  make('reshape', [y], { shape: matrices(p, p.rows, numel(p.grid)) });

/** w for each clip. */
function weights(w: Value, p: Tiling, make: MakeValue): Value {
  const { clips, rows, cols } = p;
  if (clips === 1) return make('reshape', [w], { shape: [rows, cols] });
  return make('expand', [make('reshape', [w], { shape: [1, rows, cols] })], { shape: [clips, rows, cols] });
}

export function tiledConv(
  [x, w]: readonly Value[],
  attrs: OpAttrs['conv3d'],
  make: MakeValue,
  shape: Shape,
): Value | null {
  const p = tiling(typeOf(w!).shape, typeOf(x!).shape, attrs);
  return (
    p &&
    make('reshape', [make('matmul', [weights(w!, p, make), columns(x!, p, make)], { transA: false, transB: false })], {
      shape,
    })
  );
}

export function tiledConvInput(
  [dy, w]: readonly Value[],
  attrs: OpAttrs['conv3dInput'],
  make: MakeValue,
): Value | null {
  const p = tiling(typeOf(w!).shape, attrs.shape, attrs);
  return (
    p &&
    fromColumns(
      make('matmul', [weights(w!, p, make), outputs(dy!, p, make)], { transA: true, transB: false }),
      p,
      attrs.shape,
      make,
    )
  );
}

export function tiledConvWeight(
  [x, dy]: readonly Value[],
  attrs: OpAttrs['conv3dWeight'],
  make: MakeValue,
): Value | null {
  const p = tiling(attrs.shape, typeOf(x!).shape, attrs);
  if (!p) return null;
  const products = make('matmul', [outputs(dy!, p, make), columns(x!, p, make)], { transA: false, transB: true });
  return make('reshape', [p.clips === 1 ? products : make('sum', [products], { axes: [0] })], { shape: attrs.shape });
}

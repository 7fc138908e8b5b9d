/** 3-D convolution with asymmetric pads and strides, and its two gradients, as implicit GEMMs. Slots: inputs, output, epilogue, scratch. */
import { ceilDiv, numel, type Caps, type Dispatch, type Launch } from '../kernel.ts';
import { plainPrologue, reduce } from '../reduce/index.ts';
import {
  blockOf,
  forward,
  inputPhases,
  scalarTile,
  sizesOf,
  weightSizes,
  weightSplits,
  type Conv3dProblem,
  type Correlation,
} from './plan.ts';
import { scalarCorrelation, scalarWeight } from './scalar.ts';
import { tiledCorrelation, tiledWeight } from './tiled.ts';

export type { Conv3dProblem, Triple } from './plan.ts';

const slots = (problem: Conv3dProblem): number[] => [
  0,
  1,
  2,
  ...(problem.epilogue?.buffers ?? []).map((_, i) => 3 + i),
];

function correlate(name: 'conv3d' | 'conv3dInput', caps: Caps, problem: Conv3dProblem, bind: number[]) {
  return (c: Correlation): Dispatch => {
    const fused = { access: problem.access, epilogue: problem.epilogue, bind };
    return caps.tier === 'scalar'
      ? scalarCorrelation(name, c, scalarTile(caps, name, problem, sizesOf(c)), fused)
      : tiledCorrelation(name, c, blockOf(caps, name, problem, sizesOf(c)), fused);
  };
}

/** Slots: x, w, y. */
export function conv3d(caps: Caps, problem: Conv3dProblem): Launch {
  return { dispatches: [correlate('conv3d', caps, problem, slots(problem))(forward(problem))], scratch: [] };
}

/** Slots: dy, w, dx. One dispatch for each phase of the stride. */
export function conv3dInput(caps: Caps, problem: Conv3dProblem): Launch {
  return { dispatches: inputPhases(problem).map(correlate('conv3dInput', caps, problem, slots(problem))), scratch: [] };
}

type Fused = Parameters<typeof scalarWeight>[4];

/** Into how many parts a weight gradient is cut, and the kernel of one of them. */
function weightParts(
  caps: Caps,
  problem: Conv3dProblem,
): { splits: number; part: (splits: number, fused: Fused) => Dispatch } {
  const { N, C, O, out, kernel } = problem;
  const sizes = weightSizes(problem);
  if (caps.tier === 'scalar') {
    const tile = scalarTile(caps, 'conv3dWeight', problem, sizes);
    const groups = ceilDiv(C * kernel[0] * kernel[1], tile.lanes * tile.columns) * ceilDiv(O, tile.channels);
    const { splits, chunk } = weightSplits(caps, groups, N * out[0] * out[1], 8);
    return { splits, part: (n, fused) => scalarWeight(problem, tile, n, chunk, fused) };
  }
  const block = blockOf(caps, 'conv3dWeight', problem, sizes);
  const { tile } = block;
  const { splits, chunk } = weightSplits(
    caps,
    ceilDiv(C * numel(kernel), tile.columns) * ceilDiv(O, tile.channels),
    N * numel(out),
    256,
  );
  return { splits, part: (n, fused) => tiledWeight(problem, block, { splits: n, chunk }, fused) };
}

/** Slots: x, dy, dw. Voxels are split into parts whose sums are added in order, so two runs give the same bits. */
export function conv3dWeight(caps: Caps, problem: Conv3dProblem): Launch {
  const { C, O, kernel, access, epilogue } = problem;
  const bind = slots(problem);
  const { splits, part } = weightParts(caps, problem);
  if (splits === 1) return { dispatches: [part(1, { access, epilogue, bind })], scratch: [] };
  const total = O * C * numel(kernel);
  const scratch = bind.length;
  const combine = reduce(caps, {
    op: 'sum',
    dims: [
      { size: splits, reduce: true },
      { size: total, reduce: false },
    ],
    prologue: plainPrologue('read_write'),
    epilogue,
  });
  // The reduction's slots are: partials, out, epilogue, its own scratch.
  const slot = (s: number) => (s === 0 ? scratch : s < bind.length - 1 ? s + 1 : s + 2);
  return {
    dispatches: [
      part(splits, { access, epilogue: undefined, bind: [0, 1, scratch] }),
      ...combine.dispatches.map((d) => ({ ...d, bind: d.bind.map(slot) })),
    ],
    scratch: [4 * splits * total, ...combine.scratch],
  };
}

/** 3-D convolution with asymmetric pads and strides, and its two gradients, as implicit GEMMs. Slots: inputs, output, epilogue, scratch. */
import { ceilDiv, numel, type Caps, type Dispatch, type Launch } from '../kernel.ts';
import { plainPrologue, reduce } from '../reduce/index.ts';
import { forward, inputPhases, scalarTile, weightSplits, workgroupTile, type Conv3dProblem, type Correlation } from './plan.ts';
import { scalarCorrelation, scalarWeight } from './scalar.ts';
import { tiledCorrelation, tiledWeight } from './tiled.ts';

export type { Conv3dProblem, Triple } from './plan.ts';

const slots = (problem: Conv3dProblem): number[] => [0, 1, 2, ...(problem.epilogue?.buffers ?? []).map((_, i) => 3 + i)];

function correlate(name: string, caps: Caps, problem: Conv3dProblem, bind: number[]) {
  return (c: Correlation): Dispatch => {
    const fused = { access: problem.access, epilogue: problem.epilogue, bind };
    return caps.tier === 'scalar'
      ? scalarCorrelation(name, c, scalarTile(caps, c.co, c.kernel[2]), fused)
      : tiledCorrelation(name, c, workgroupTile(c.co), fused);
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

/** Slots: x, dy, dw. Voxels are split into parts whose sums are added in order, so two runs give the same bits. */
export function conv3dWeight(caps: Caps, problem: Conv3dProblem): Launch {
  const { N, C, O, out, kernel, access, epilogue } = problem;
  const bind = slots(problem);
  const part = (splits: number, chunk: number, fused: { access: typeof access; epilogue: typeof epilogue; bind: number[] }) =>
    (caps.tier === 'scalar' ? scalarWeight(problem, tile, splits, chunk, fused) : tiledWeight(problem, block, splits, chunk, fused));
  const tile = scalarTile(caps, O, kernel[2]);
  const block = workgroupTile(O);
  const { splits, chunk } = caps.tier === 'scalar'
    ? weightSplits(caps, ceilDiv(C * kernel[0] * kernel[1], tile.lanes * tile.columns) * ceilDiv(O, tile.channels), N * out[0] * out[1], 8)
    : weightSplits(caps, ceilDiv(C * numel(kernel), block.columns) * ceilDiv(O, block.channels), N * numel(out), 256);
  if (splits === 1) return { dispatches: [part(1, chunk, { access, epilogue, bind })], scratch: [] };
  const total = O * C * numel(kernel);
  const scratch = bind.length;
  const combine = reduce(caps, {
    op: 'sum', dims: [{ size: splits, reduce: true }, { size: total, reduce: false }], prologue: plainPrologue('read_write'), epilogue,
  });
  // The reduction's slots are: partials, out, epilogue, its own scratch.
  const slot = (s: number) => (s === 0 ? scratch : s < bind.length - 1 ? s + 1 : s + 2);
  return {
    dispatches: [
      part(splits, chunk, { access, epilogue: undefined, bind: [0, 1, scratch] }),
      ...combine.dispatches.map((d) => ({ ...d, bind: d.bind.map(slot) })),
    ],
    scratch: [4 * splits * total, ...combine.scratch],
  };
}

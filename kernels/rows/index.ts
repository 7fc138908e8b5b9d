/** Operations along the rows of [rows, cols]: softmax, layer and RMS normalisation without affine, and their gradients. */
import {
  ceilDiv,
  epilogueBindings,
  epilogueFunction,
  f32bits,
  foldGrid,
  shader,
  type Caps,
  type Launch,
} from '../kernel.ts';
import { unlessNaN } from '../special.ts';
import { planRows, type RowsProblem } from './plan.ts';
import { rowFunctions, rowMain, type RowOperation } from './template.ts';

export type { RowsProblem } from './plan.ts';

/** Slots: the operation's inputs, the output, then the epilogue's buffers. */
const family =
  (op: RowOperation) =>
  (caps: Caps, p: RowsProblem): Launch => {
    const plan = planRows(caps, op.name, p);
    const type = plan.vec ? 'vec4f' : 'f32',
      width = plan.vec ? 4 : 1;
    const extra = epilogueBindings(p.epilogue, width);
    return {
      dispatches: [
        {
          label: `${op.name} ${plan.reduce} ${plan.share}/${plan.threads} ${plan.vec ? 'vec' : 'plain'} ${p.rows}x${p.cols}`,
          wgsl: shader({
            params: ['rows', 'cols', 'steps', 'eps', ...(p.epilogue?.params ?? []).map(([name]) => name)],
            buffers: [
              ...op.inputs.map((name, i) => ({ name: `${name}s`, type, access: p.access[i]! })),
              { name: 'ys', type, access: 'read_write' as const },
              ...extra,
            ],
            workgroup: [plan.threads, 1, 1],
            enable: plan.reduce === 'subgroup' ? ['subgroups'] : [],
            functions: `${rowFunctions(plan, op)}\n${epilogueFunction(p.epilogue, width, true)}`,
            main: rowMain(plan, op),
          }),
          grid: foldGrid(plan.share > 1 ? p.rows : ceilDiv(p.rows, plan.threads)),
          params: [
            p.rows,
            p.cols,
            plan.vec ? p.cols / 4 : p.cols,
            f32bits(p.eps ?? 0),
            ...(p.epilogue?.params ?? []).map(([, v]) => v),
          ],
          bind: [...op.inputs, 'y', ...extra].map((_, slot) => slot),
          flops: op.work * p.rows * p.cols,
          bytes: 4 * (op.inputs.length + 1) * p.rows * p.cols,
        },
      ],
      scratch: [],
    };
  };

/**
 * Robust for any finite row; a row of nothing but the lowest number, which masks, gives equal weights. One with NaN or +inf, or of
 * nothing but -inf, is NaN.
 */
export const softmax = family({
  name: 'softmax',
  inputs: ['x'],
  work: 6,
  passes: [
    { join: 'max', terms: ['x'], after: 'let top = r.x;' },
    { join: 'sum', terms: ['weight(x - top)'], after: 'let inv = 1.0 / r.x;' },
  ],
  result: 'weight(x - top) * inv',
  functions: (t) => `fn weight(d: ${t}) -> ${t} { return ${unlessNaN('d', 'exp(d)', t)}; }`,
});

/**
 * Mean and variance in one pass, of d = x − x0: x0 is one of the row's own values, so that the variance is at least
 * (mean d)² / cols, and what cancels in mean d² − (mean d)² costs at most a relative cols · 2⁻²⁴, however large the mean.
 */
const moments = `let m = r.x / count; let variance = r.y / count - m * m;
let below = bitcast<u32>(variance) - 0x80000000u <= 0x7f800000u; // by rounding; NaN stays
let inv = inverseSqrt(select(variance, 0.0, below) + eps);`;

/** (x − mean) / √(var + eps). */
export const layerNorm = family({
  name: 'layerNorm',
  inputs: ['x'],
  work: 6,
  passes: [{ join: 'sum', from: 'let d = x - x0;', terms: ['d', 'd * d'], after: moments }],
  result: '(x - x0 - m) * inv',
});

/** x / √(mean(x²) + eps). */
export const rmsNorm = family({
  name: 'rmsNorm',
  inputs: ['x'],
  work: 3,
  passes: [{ join: 'sum', terms: ['x * x'], after: 'let inv = inverseSqrt(r.x / count + eps);' }],
  result: 'x * inv',
});

/** Slots: x, dy → dx = inv · (dy − mean(dy) − x̂ · mean(dy · x̂)), x̂ = (x − mean) · inv. */
export const layerNormGrad = family({
  name: 'layerNormGrad',
  inputs: ['x', 'dy'],
  work: 12,
  passes: [
    {
      join: 'sum',
      from: 'let d = x - x0;',
      terms: ['d', 'd * d', 'dy', 'd * dy'],
      after: `${moments} let meanDy = r.z / count; let slope = (r.w / count - m * meanDy) * inv * inv;`,
    },
  ],
  result: '(dy - meanDy - (x - x0 - m) * slope) * inv',
});

/** Slots: x, dy → dx = inv · (dy − x · inv² · mean(dy · x)). */
export const rmsNormGrad = family({
  name: 'rmsNormGrad',
  inputs: ['x', 'dy'],
  work: 8,
  passes: [
    {
      join: 'sum',
      terms: ['x * x', 'x * dy'],
      after: 'let inv = inverseSqrt(r.x / count + eps); let slope = r.y / count * inv * inv;',
    },
  ],
  result: '(dy - x * slope) * inv',
});

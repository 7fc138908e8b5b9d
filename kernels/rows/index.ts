/** Operations along the rows of [rows, cols]: softmax, layer and RMS normalisation without affine, and their gradients. */
import { ceilDiv, f32bits, foldGrid, shader, type Caps, type Launch } from '../kernel.ts';
import { planRows, type RowsProblem } from './plan.ts';
import { rowFunctions, rowMain, type RowOperation } from './template.ts';

export type { RowsProblem } from './plan.ts';

/** Slots: the operation's inputs, then the output. */
const family = (op: RowOperation) => (caps: Caps, p: RowsProblem): Launch => {
  const plan = planRows(caps, op.name, p);
  const type = plan.vec ? 'vec4f' : 'f32';
  return {
    dispatches: [{
      label: `${op.name} ${plan.reduce} ${plan.share}/${plan.threads} ${plan.vec ? 'vec' : 'plain'} ${p.rows}x${p.cols}`,
      wgsl: shader({
        params: ['rows', 'cols', 'steps', 'eps'],
        buffers: [
          ...op.inputs.map((name, i) => ({ name: `${name}s`, type, access: p.access[i]! })),
          { name: 'ys', type, access: 'read_write' as const },
        ],
        workgroup: [plan.threads, 1, 1],
        enable: plan.reduce === 'subgroup' ? ['subgroups'] : [],
        functions: rowFunctions(plan, op),
        main: rowMain(plan, op),
      }),
      grid: foldGrid(plan.share > 1 ? p.rows : ceilDiv(p.rows, plan.threads)),
      params: [p.rows, p.cols, plan.vec ? p.cols / 4 : p.cols, f32bits(p.eps ?? 0)],
      bind: [...op.inputs.map((_, i) => i), op.inputs.length],
      flops: op.work * p.rows * p.cols,
      bytes: 4 * (op.inputs.length + 1) * p.rows * p.cols,
    }],
    scratch: [],
  };
};

/** Robust for any finite row; a row of nothing but the lowest number, which masks, gives equal weights. */
export const softmax = family({
  name: 'softmax', inputs: ['x'], work: 6,
  passes: [
    { join: 'max', each: 'u = max(u, x);', after: 'let top = r.x;' },
    { join: 'sum', each: 'u += exp(x - top);', after: 'let inv = 1.0 / r.x;' },
  ],
  result: 'exp(x - top) * inv',
});

/** (x − mean) / √(var + eps). The variance is taken of x − mean, so that a large mean does not cancel it. */
export const layerNorm = family({
  name: 'layerNorm', inputs: ['x'], work: 6,
  passes: [
    { join: 'sum', each: 'u += x;', after: 'let mean = r.x / count;' },
    { join: 'sum', each: 'let d = x - mean; u = fma(d, d, u);', after: 'let inv = inverseSqrt(r.x / count + eps);' },
  ],
  result: '(x - mean) * inv',
});

/** x / √(mean(x²) + eps). */
export const rmsNorm = family({
  name: 'rmsNorm', inputs: ['x'], work: 3,
  passes: [{ join: 'sum', each: 'u = fma(x, x, u);', after: 'let inv = inverseSqrt(r.x / count + eps);' }],
  result: 'x * inv',
});

/** Slots: x, dy → dx = inv · (dy − mean(dy) − x̂ · mean(dy · x̂)), x̂ = (x − mean) · inv. */
export const layerNormGrad = family({
  name: 'layerNormGrad', inputs: ['x', 'dy'], work: 12,
  passes: [
    { join: 'sum', each: 'u += x; v += dy;', after: 'let mean = r.x / count; let meanDy = r.y / count;' },
    {
      join: 'sum', each: 'let d = x - mean; u = fma(d, d, u); v = fma(d, dy, v);',
      after: 'let inv = inverseSqrt(r.x / count + eps); let slope = r.y / count * inv * inv;',
    },
  ],
  result: '(dy - meanDy - (x - mean) * slope) * inv',
});

/** Slots: x, dy → dx = inv · (dy − x · inv² · mean(dy · x)). */
export const rmsNormGrad = family({
  name: 'rmsNormGrad', inputs: ['x', 'dy'], work: 8,
  passes: [{
    join: 'sum', each: 'u = fma(x, x, u); v = fma(x, dy, v);',
    after: 'let inv = inverseSqrt(r.x / count + eps); let slope = r.y / count * inv * inv;',
  }],
  result: '(dy - x * slope) * inv',
});

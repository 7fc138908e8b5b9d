/** A planner's problem as a program of the engine: what the tuner runs to time and check a configuration. */
import { vjp } from '../../engine/frontend/autodiff.ts';
import { make, type Tensor } from '../../engine/frontend/tensor.ts';
import type { Caps, DType } from '../../kernels/kernel.ts';
import type { Family, Question, Tunable, Tuning } from '../../kernels/tuning.ts';

export type Problem<F extends Family = Family> = Tunable[F]['problem'];
export interface Input {
  shape: readonly number[];
  dtype: DType;
  /** Whole numbers up to this, in place of normals. */ below?: number;
}
export interface Program {
  inputs: Input[];
  fn: (...x: Tensor[]) => readonly Tensor[];
}

const f32 = (...shape: number[]): Input => ({ shape, dtype: 'f32' });

function product(p: Problem<'matmul'>): Program {
  const matrix = (rows: number, cols: number, trans: boolean, dtype: DType): Input => {
    const shape = trans ? [cols, rows] : [rows, cols];
    return { shape: p.batch > 1 ? [p.batch, ...shape] : shape, dtype };
  };
  return {
    inputs: [matrix(p.M, p.K, p.transA, p.dtypeA), matrix(p.K, p.N, p.transB, p.dtypeB)],
    fn: (a, b) => make('matmul', [a!, b!], { transA: p.transA, transB: p.transB }),
  };
}

function attended({ B, N, L, H, D, scale, lengths, half }: Problem<'attention'>, gradient: boolean): Program {
  const [q, k] = [f32(B, N, H, D), f32(B, L, H, D)];
  const counts: Input[] = lengths ? [{ shape: [B], dtype: 'u32', below: L }] : [];
  const attention = (...x: Tensor[]): Tensor => make('attention', x, half ? { scale, half } : { scale })[0]!;
  return gradient
    ? {
        inputs: [q, k, k, q, ...counts],
        fn: (a, b, c, dy, ...n) => vjp(attention(a!, b!, c!, ...n), dy!, [a!, b!, c!]),
      }
    : { inputs: [q, k, k, ...counts], fn: (...x) => [attention(...x)] };
}

function convolved(family: 'conv3d' | 'conv3dInput' | 'conv3dWeight', p: Problem<'conv3d'>): Program {
  const [x, w, y] = [f32(p.N, p.C, ...p.in), f32(p.O, p.C, ...p.kernel), f32(p.N, p.O, ...p.out)];
  const padHi = [0, 1, 2].map((i) => (p.out[i]! - 1) * p.stride[i]! + p.kernel[i]! - p.in[i]! - p.padLo[i]!) as [
    number,
    number,
    number,
  ];
  const attrs = { stride: p.stride, padLo: p.padLo, padHi };
  if (family === 'conv3d') return { inputs: [x, w], fn: (...t) => make('conv3d', t, attrs) };
  return family === 'conv3dInput'
    ? { inputs: [y, w], fn: (...t) => make('conv3dInput', t, { ...attrs, shape: x.shape }) }
    : { inputs: [x, y], fn: (...t) => make('conv3dWeight', t, { ...attrs, shape: w.shape }) };
}

const rows =
  (op: 'softmax' | 'layerNorm' | 'rmsNorm' | 'layerNormGrad' | 'rmsNormGrad', inputs: number) =>
  (p: Problem<'softmax'>): Program => ({
    inputs: Array.from({ length: inputs }, () => f32(p.rows, p.cols)),
    fn: (...x) => (op === 'softmax' ? make(op, x, {}) : make(op, x, { eps: p.eps ?? 0 })),
  });

const fed = (dtype: DType): boolean => dtype === 'f32' || dtype === 'f16';

const PROGRAMS: { [F in Family]: (p: Problem<F>) => Program | undefined } = {
  matmul: (p) => (fed(p.dtypeA) && fed(p.dtypeB) ? product(p) : undefined),
  attention: (p) => attended(p, false),
  attentionGrad: (p) => attended(p, true),
  attentionPath: (p) => attended(p, false),
  attentionGradPath: (p) => attended(p, true),
  conv3d: (p) => convolved('conv3d', p),
  conv3dInput: (p) => convolved('conv3dInput', p),
  conv3dWeight: (p) => convolved('conv3dWeight', p),
  softmax: rows('softmax', 1),
  layerNorm: rows('layerNorm', 1),
  rmsNorm: rows('rmsNorm', 1),
  layerNormGrad: rows('layerNormGrad', 2),
  rmsNormGrad: rows('rmsNormGrad', 2),
};

/** undefined for what the engine cannot feed: operands that are only stored so. */
export const programOf = (family: Family, problem: Problem): Program | undefined =>
  (PROGRAMS[family] as (p: Problem) => Program | undefined)(problem);

/** What was asked while planners worked, each class once; a problem without its epilogue, which is code. */
export interface Seen {
  family: Family;
  shape: string;
  problem: Problem;
  rule: object;
  options: object[];
  count: number;
}

/** Notes every question and answers none. */
export function recorder(): { tuning: Tuning; seen: Map<string, Seen> } {
  const seen = new Map<string, Seen>();
  return {
    seen,
    tuning: {
      find<F extends Family>({ family, shape, problem, rule, options }: Question<F>) {
        const key = `${family} ${shape}`;
        const before = seen.get(key);
        if (before) before.count++;
        else
          seen.set(key, {
            family,
            shape,
            problem: { ...problem, epilogue: undefined },
            rule,
            options: options(),
            count: 1,
          });
        return undefined;
      },
    },
  };
}

/** Answers one question with this configuration, and leaves the others to `rest`. */
export const insisting = (family: Family, shape: string, config: object, rest?: Caps['tuning']): Tuning => ({
  find: (question) =>
    question.family === family && question.shape === shape ? (config as never) : rest?.find(question),
});

/** Ops over rows of the last axis: softmax, layer and RMS normalisation without affine, and their gradients. */
import { fail, printShapes } from '../../host/errors.ts';
import type { OpName, TensorType } from '../graph.ts';
import { sizeOf } from '../graph.ts';
import type { HostTensor } from '../tree.ts';
import type { OpDef } from './op.ts';
import { arity, floats, sameShape } from './op.ts';
import { KERNEL } from './traits.ts';

function infer(op: OpName, x: readonly TensorType[], count: 1 | 2): TensorType[] {
  arity(op, x, count);
  floats(op, x);
  if (!x[0]!.shape.length) fail(op, 'expected at least one axis, got a scalar');
  if (count === 2 && !sameShape(x[0]!.shape, x[1]!.shape))
    fail(op, `shapes differ: ${printShapes(x[0]!.shape, x[1]!.shape)}`);
  return [x[0]!];
}

/** Applies `f` to each row of the operands. */
function rows(x: readonly HostTensor[], f: (...rows: Float64Array[]) => Float64Array): Float64Array[] {
  const n = x[0]!.shape.at(-1)!;
  const y = new Float64Array(x[0]!.data.length);
  for (let at = 0; at < y.length; at += n)
    y.set(f(...x.map((t) => Float64Array.from(t.data.subarray(at, at + n)))), at);
  return [y];
}

const mean = (x: Float64Array): number => x.reduce((a, b) => a + b, 0) / x.length;
const cost =
  (perElement: number) =>
  (x: readonly TensorType[]): number =>
    perElement * sizeOf(x[0]!);

const softmax: OpDef<'softmax'> = {
  infer: (x) => infer('softmax', x, 1),
  oracle: (x) =>
    rows(x, (row) => {
      const top = Math.max(...row);
      const e = row.map((v) => Math.exp(v - top));
      const total = e.reduce((a, b) => a + b, 0);
      return e.map((v) => v / total);
    }),
  vjp({ y, dy }) {
    const g = dy[0]!.mul(y[0]!);
    return [g.sub(y[0]!.mul(g.sum([-1], true)))];
  },
  flops: cost(5),
  traits: { ...KERNEL, epilogue: 'rows' },
};

const centred = (row: Float64Array): Float64Array => {
  const mu = mean(row);
  return row.map((v) => v - mu);
};
const scaleOf = (row: Float64Array, eps: number): number => 1 / Math.sqrt(mean(row.map((v) => v * v)) + eps);

const layerNorm: OpDef<'layerNorm'> = {
  infer: (x) => infer('layerNorm', x, 1),
  oracle: (x, { eps }) =>
    rows(x, (row) => {
      const c = centred(row);
      const r = scaleOf(c, eps);
      return c.map((v) => v * r);
    }),
  vjp: ({ x, dy, attrs, make }) => make('layerNormGrad', [x[0]!, dy[0]!], attrs),
  flops: cost(7),
  traits: { ...KERNEL, epilogue: 'rows' },
};

/** dx = r (dy − mean dy − x̂ mean(dy x̂)), with r = rsqrt(var + eps). */
const layerNormGrad: OpDef<'layerNormGrad'> = {
  infer: (x) => infer('layerNormGrad', x, 2),
  oracle: (x, { eps }) =>
    rows(x, (row, dy) => {
      const c = centred(row);
      const r = scaleOf(c, eps);
      const hat = c.map((v) => v * r);
      const along = mean(hat.map((v, i) => v * dy[i]!));
      const mu = mean(dy!);
      return hat.map((v, i) => r * (dy[i]! - mu - v * along));
    }),
  vjp: ({ throughComposed }) => throughComposed(),
  composed([x, dy], { eps }) {
    const c = x!.sub(x!.mean([-1], true));
    const r = c.square().mean([-1], true).add(eps).rsqrt();
    const hat = c.mul(r);
    return [
      dy!
        .sub(dy!.mean([-1], true))
        .sub(hat.mul(dy!.mul(hat).mean([-1], true)))
        .mul(r),
    ];
  },
  flops: cost(12),
  traits: { ...KERNEL, epilogue: 'rows' },
};

const rmsNorm: OpDef<'rmsNorm'> = {
  infer: (x) => infer('rmsNorm', x, 1),
  oracle: (x, { eps }) =>
    rows(x, (row) => {
      const r = scaleOf(row, eps);
      return row.map((v) => v * r);
    }),
  vjp: ({ x, dy, attrs, make }) => make('rmsNormGrad', [x[0]!, dy[0]!], attrs),
  flops: cost(4),
  traits: { ...KERNEL, epilogue: 'rows' },
};

/** dx = r (dy − x̂ mean(dy x̂)), with r = rsqrt(mean x² + eps). */
const rmsNormGrad: OpDef<'rmsNormGrad'> = {
  infer: (x) => infer('rmsNormGrad', x, 2),
  oracle: (x, { eps }) =>
    rows(x, (row, dy) => {
      const r = scaleOf(row, eps);
      const hat = row.map((v) => v * r);
      const along = mean(hat.map((v, i) => v * dy[i]!));
      return hat.map((v, i) => r * (dy[i]! - v * along));
    }),
  vjp: ({ throughComposed }) => throughComposed(),
  composed([x, dy], { eps }) {
    const r = x!.square().mean([-1], true).add(eps).rsqrt();
    const hat = x!.mul(r);
    return [dy!.sub(hat.mul(dy!.mul(hat).mean([-1], true))).mul(r)];
  },
  flops: cost(9),
  traits: { ...KERNEL, epilogue: 'rows' },
};

export const rowOps = { softmax, layerNorm, layerNormGrad, rmsNorm, rmsNormGrad };

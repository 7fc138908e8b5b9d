/** ONNX's layers: products, convolutions, pooling, norms, softmax and losses. */
import * as F from '../../../engine/frontend/functional.ts';
import type { Triple } from '../../../engine/frontend/graph.ts';
import type { Tensor } from '../../../engine/frontend/tensor.ts';
import { numel } from '../../../kernels/kernel.ts';
import { Unsupported, type Call, type OnnxOps } from '../call.ts';

interface Geometry {
  kernel: number[];
  stride: number[];
  dilation: number[];
  padLo: number[];
  padHi: number[];
}

/** Windows over the last axes of x, whatever way the pads are told. */
function geometry(c: Call, size: readonly number[], kernel: number[], transposed = false): Geometry {
  const each = (n: number): number[] => kernel.map(() => n);
  const stride = c.list('strides') ?? each(1);
  const dilation = c.list('dilations') ?? each(1);
  const pads = c.list('pads') ?? [...each(0), ...each(0)];
  let [padLo, padHi] = [pads.slice(0, kernel.length), pads.slice(kernel.length)];
  const auto = c.text('auto_pad', 'NOTSET');
  if (auto.startsWith('SAME')) {
    const total = size.map((n, i) => {
      const reach = (kernel[i]! - 1) * dilation[i]! + 1;
      return Math.max(0, transposed ? reach - stride[i]! : (Math.ceil(n / stride[i]!) - 1) * stride[i]! + reach - n);
    });
    const less = total.map((n) => Math.floor(n / 2));
    const more = total.map((n) => Math.ceil(n / 2));
    [padLo, padHi] = auto === 'SAME_UPPER' ? [less, more] : [more, less];
  }
  if (c.number('ceil_mode', 0))
    padHi = padHi.map((hi, i) => {
      const reach = (kernel[i]! - 1) * dilation[i]! + 1;
      const room = size[i]! + padLo[i]! + hi - reach;
      return hi + Math.ceil(room / stride[i]!) * stride[i]! - room;
    });
  return { kernel, stride, dilation, padLo, padHi };
}

/** One or two axes as three, those in front of size 1. */
function three(list: readonly number[], fill: number): Triple {
  if (list.length > 3) throw new Unsupported(`windows over ${list.length} axes`);
  return [...Array<number>(3 - list.length).fill(fill), ...list] as unknown as Triple;
}
const lifted = (x: Tensor): Tensor => x.reshape([...x.shape.slice(0, 2), ...three(x.shape.slice(2), 1)]);
const lowered = (y: Tensor, rank: number): Tensor => y.reshape([...y.shape.slice(0, 2), ...y.shape.slice(7 - rank)]);

function conv(c: Call, x: Tensor, w: Tensor, b?: Tensor): Tensor {
  const g = geometry(c, x.shape.slice(2), w.shape.slice(2));
  const y = F.conv3d(lifted(x), lifted(w), b, {
    stride: three(g.stride, 1),
    dilation: three(g.dilation, 1),
    padLo: three(g.padLo, 0),
    padHi: three(g.padHi, 0),
    groups: c.number('group', 1),
  });
  return lowered(y, x.shape.length);
}

function convTranspose(c: Call): Tensor {
  const [x, w] = [c.x(0), c.x(1)];
  const g = geometry(c, x.shape.slice(2), w.shape.slice(2), true);
  const extra = c.list('output_padding') ?? g.kernel.map(() => 0);
  const wanted = c.list('output_shape');
  if (wanted)
    g.kernel.forEach((k, i) => {
      const whole = (x.shape[2 + i]! - 1) * g.stride[i]! + (k - 1) * g.dilation[i]! + 1 + extra[i]!;
      const total = whole - wanted.slice(-g.kernel.length)[i]!;
      g.padLo[i] =
        c.text('auto_pad', 'NOTSET') === 'SAME_UPPER' ? Math.floor(total / 2) : total - Math.floor(total / 2);
      g.padHi[i] = total - g.padLo[i]!;
    });
  const y = F.convTranspose3d(lifted(x), lifted(w), c.maybe(2), {
    stride: three(g.stride, 1),
    dilation: three(g.dilation, 1),
    padLo: three(g.padLo, 0),
    padHi: three(g.padHi, 0),
    outputPad: three(extra, 0),
    groups: c.number('group', 1),
  });
  return lowered(y, x.shape.length);
}

function pool(c: Call, f: (x: Tensor, g: Geometry) => Tensor): Tensor {
  const x = c.x(0);
  const kernel = c.list('kernel_shape')!;
  if (c.wanted > 1) throw new Unsupported('pooling that tells where its maxima stand');
  return f(x.cast('f32'), geometry(c, x.shape.slice(2), kernel)).cast(x.dtype);
}

const overPlanes = (x: Tensor): number[] => x.shape.map((_, a) => a).slice(2);
/** [C] beside x [N,C,…]. */
const perChannel = (t: Tensor, x: Tensor): Tensor => t.reshape([-1, ...overPlanes(x).map(() => 1)]);

function batchNorm(c: Call): readonly Tensor[] {
  const [x, scale, bias] = [c.x(0), c.x(1), c.x(2)];
  let [mean, variance] = [c.x(3), c.x(4)];
  const outs: Tensor[] = [];
  if (c.number('training_mode', 0)) {
    const axes = [0, ...overPlanes(x)];
    const momentum = c.number('momentum', 0.9);
    const own = x.mean(axes);
    const spread = x.sub(perChannel(own, x)).square().mean(axes);
    outs.push(F.lerp(own, mean, momentum), F.lerp(spread, variance, momentum));
    [mean, variance] = [own, spread];
  }
  const factor = perChannel(scale, x).div(perChannel(variance, x).add(c.number('epsilon', 1e-5)).sqrt());
  return [x.sub(perChannel(mean, x)).mul(factor).add(perChannel(bias, x)), ...outs];
}

const instanceNorm = (c: Call): Tensor => {
  const x = c.x(0);
  const y = x
    .reshape([...x.shape.slice(0, 2), -1])
    .layerNorm(c.number('epsilon', 1e-5))
    .reshape(x.shape);
  return y.mul(perChannel(c.x(1), x)).add(perChannel(c.x(2), x));
};

function layerNorm(c: Call): Tensor[] {
  const x = c.x(0);
  const axes = [...x.shape.keys()].slice(c.axis(c.number('axis', -1)));
  const mean = x.mean(axes, true);
  const centred = x.sub(mean);
  const inverse = centred.square().mean(axes, true).add(c.number('epsilon', 1e-5)).sqrt().pow(-1);
  const y = centred.mul(inverse).mul(c.x(1));
  return [c.has(2) ? y.add(c.x(2)) : y, mean, inverse];
}

/** Sums of squares of so many neighbouring channels. */
function localResponse(c: Call): Tensor {
  const x = c.x(0);
  const size = c.number('size', 1);
  const flat = x.square().reshape([x.shape[0]!, x.shape[1]!, -1]).transpose(1, 2);
  const [lo, hi] = [Math.floor((size - 1) / 2), Math.ceil((size - 1) / 2)];
  const sums = F.avgPool(flat, [size], { stride: [1], padLo: [lo], padHi: [hi] }).mul(size);
  const near = sums.transpose(1, 2).reshape(x.shape);
  return x.div(
    near
      .mul(c.number('alpha', 1e-4) / size)
      .add(c.number('bias', 1))
      .pow(c.number('beta', 0.75)),
  );
}

/** Along one axis; old operator sets took all axes from it on as one. */
function along(c: Call, f: (x: Tensor) => Tensor): Tensor {
  const x = c.x(0);
  const axis = c.axis(c.number('axis', c.opset >= 13 ? -1 : 1));
  if (c.opset >= 13) return f(x.transpose(axis, -1)).transpose(axis, -1);
  return f(x.reshape([numel(x.shape.slice(0, axis)), numel(x.shape.slice(axis))])).reshape(x.shape);
}

function gemm(c: Call): Tensor {
  const y = c
    .x(0)
    .matmul(c.x(1), { transA: !!c.number('transA', 0), transB: !!c.number('transB', 0) })
    .mul(c.number('alpha', 1));
  return c.has(2) ? y.add(c.x(2).mul(c.number('beta', 1))) : y;
}

/** Vectors count as a row on the left and as a column on the right. */
function matmul(a: Tensor, b: Tensor): Tensor {
  const [left, right] = [a.shape.length === 1, b.shape.length === 1];
  const y = (left ? a.unsqueeze(0) : a).matmul(right ? b.unsqueeze(1) : b);
  const narrow = right ? y.squeeze(-1) : y;
  return left ? narrow.squeeze(right ? -1 : -2) : narrow;
}

/** Loss of log-probabilities [N,C,…] by classes [N,…]. */
function negativeLogLikelihood(c: Call, logs: Tensor): Tensor {
  const target = c.x(1);
  const classes = logs.shape[1]!;
  const ignored = c.attribute('ignore_index')?.i;
  const order = [...target.shape.keys()];
  const chosen = F.oneHot(target, classes).permute(order.toSpliced(1, 0, order.length));
  const kept = ignored === undefined ? undefined : target.eq(ignored).eq(0);
  const weights = c.has(2) ? chosen.mul(perChannel(c.x(2), logs)) : chosen;
  const counted = kept ? weights.mul(kept.unsqueeze(1)) : weights;
  const each = logs.select(counted, 0).mul(counted).sum([1]).neg();
  const how = c.text('reduction', 'mean');
  if (how === 'none') return each;
  return how === 'sum' ? each.sum() : each.sum().div(counted.sum());
}

/** Products of all operands over the axes of all letters, summed over the letters that the result lacks. */
function einsum(c: Call): Tensor {
  const [left, right] = c.text('equation', '').replaceAll(' ', '').split('->') as [string, string | undefined];
  if (right === undefined || left.includes('.')) {
    if (left !== '...ii' && !left.startsWith('...')) throw new Unsupported(`the equation ${left}`);
    throw new Unsupported(`the equation ${c.text('equation', '')}`);
  }
  const terms = left.split(',');
  const letters = [...new Set(right + left.replaceAll(',', ''))];
  const spread = c.all().map((x, i) => {
    const own = letters.filter((l) => terms[i]!.includes(l));
    return x
      .permute(own.map((l) => terms[i]!.indexOf(l)))
      .reshape(letters.map((l) => (own.includes(l) ? x.shape[terms[i]!.indexOf(l)]! : 1)));
  });
  const over = letters.map((_, i) => i).slice(right.length);
  return over.length ? spread.reduce((a, b) => a.mul(b)).sum(over) : spread.reduce((a, b) => a.mul(b));
}

export const LAYERS: OnnxOps = {
  MatMul: (c) => matmul(c.x(0), c.x(1)),
  Gemm: gemm,
  Einsum: einsum,
  Conv: (c) => conv(c, c.x(0), c.x(1), c.maybe(2)),
  ConvTranspose: convTranspose,
  MaxPool: (c) => pool(c, (x, { kernel, ...g }) => F.maxPool(x, kernel, g)),
  AveragePool: (c) =>
    pool(c, (x, { kernel, ...g }) => F.avgPool(x, kernel, { ...g, countPads: c.number('count_include_pad', 0) !== 0 })),
  GlobalAveragePool: (c) => c.x(0).mean(overPlanes(c.x(0)), true),
  GlobalMaxPool: (c) => c.x(0).amax(overPlanes(c.x(0)), true),
  BatchNormalization: batchNorm,
  InstanceNormalization: instanceNorm,
  LayerNormalization: layerNorm,
  LRN: localResponse,
  MeanVarianceNormalization: (c) => {
    const axes = c.list('axes') ?? [0, 2, 3];
    const centred = c.x(0).sub(c.x(0).mean(axes, true));
    return centred.div(centred.square().mean(axes, true).sqrt().add(1e-9));
  },
  Softmax: (c) => along(c, (x) => x.softmax()),
  LogSoftmax: (c) => along(c, (x) => x.logSoftmax()),
  NegativeLogLikelihoodLoss: (c) => negativeLogLikelihood(c, c.x(0)),
  SoftmaxCrossEntropyLoss: (c) => {
    const logs = c.x(0).transpose(1, -1).logSoftmax().transpose(1, -1);
    return [negativeLogLikelihood(c, logs), logs];
  },
  MatMulInteger: (c) => {
    const less = (t: Tensor, zero: Tensor | undefined): Tensor =>
      zero ? t.cast('f32').sub(zero.cast('f32')) : t.cast('f32');
    return matmul(less(c.x(0), c.maybe(2)), less(c.x(1), c.maybe(3))).cast('i32');
  },
  ConvInteger: (c) => {
    const x = c.has(2) ? c.x(0).cast('f32').sub(c.x(2).cast('f32')) : c.x(0).cast('f32');
    return conv(c, x, c.x(1).cast('f32')).cast('i32');
  },
};

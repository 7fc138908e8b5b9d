/** The reference's op names as functions over our tensors. Attributes keep the reference's names. */
import * as F from '../../engine/frontend/functional.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { resize as bicubic } from '../../model/clip/resize.ts';
import { channelNorm } from '../../model/wan/vaelayers.ts';
import { rotate } from '../../model/wan/tables.ts';
import { Skip } from './executor.ts';
import type { Attrs } from './format.ts';
import { LOSSES } from './losses.ts';

export type Named = Record<string, Tensor>;
/** Inputs by name → outputs by name; a single tensor is the output `y`. `inputs`: their names in the case's order. */
export type GoldenOp = (t: Named, attrs: Attrs, inputs?: readonly string[]) => Tensor | Named;

type One = (x: Tensor, attrs: Attrs) => Tensor;
type Two = (a: Tensor, b: Tensor, attrs: Attrs) => Tensor;
const each = (ops: Record<string, One>): Record<string, GoldenOp> =>
  Object.fromEntries(Object.entries(ops).map(([name, f]) => [name, (t, attrs) => f(t['x']!, attrs)]));
const pairs = (ops: Record<string, Two>): Record<string, GoldenOp> =>
  Object.fromEntries(Object.entries(ops).map(([name, f]) => [name, (t, attrs) => f(t['a']!, t['b']!, attrs)]));

const ACTIVATIONS = each({
  gelu_tanh: (x) => F.gelu(x, 'tanh'),
  gelu_exact: (x) => F.gelu(x, 'exact'),
  silu: F.silu,
  sigmoid: (x) => x.sigmoid(),
  tanh: (x) => x.tanh(),
  softplus: (x, { beta = 1 }) => F.softplus(x.mul(beta)).div(beta),
  relu: F.relu,
  leaky_relu: (x, { number, negative_slope: slope = number }) => x.select(x.like(0).lt(x), x.mul(slope)),
  quick_gelu: (x) => x.mul(x.mul(1.702).sigmoid()),
  erf: (x) => x.erf(),
  abs: (x) => x.abs(),
  square: (x) => x.square(),
  exp: (x) => x.exp(),
  expm1: (x) => x.exp().sub(1),
  log: (x) => x.log(),
  log1p: (x) => x.add(1).log(),
  sqrt: (x) => x.sqrt(),
  rsqrt: (x) => x.rsqrt(),
  reciprocal: (x) => x.like(1).div(x),
  sin: (x) => x.sin(),
  cos: (x) => x.cos(),
  pow: (x, { number, exponent = number }) => x.pow(exponent),
  neg: (x) => x.neg(),
  clamp: (x, { min, max }) => {
    const above = min === undefined ? x : x.max(min);
    return max === undefined ? above : above.min(max);
  },
});

const ARITHMETIC = pairs({
  add: (a, b) => a.add(b),
  sub: (a, b) => a.sub(b),
  mul: (a, b) => a.mul(b),
  div: (a, b) => a.div(b),
  maximum: (a, b) => a.max(b),
  minimum: (a, b) => a.min(b),
});

/** Vectors count as a row on the left and as a column on the right. */
const matmul: Two = (a, b, { transpose_a: transA = false, transpose_b: transB = false }) => {
  const rows = a.shape.length === 1 ? a.unsqueeze(0) : a;
  const columns = b.shape.length === 1 ? b.unsqueeze(1) : b;
  const y = rows.matmul(columns, { transA, transB });
  return y.reshape(
    y.shape.filter(
      (_, i) => !(a === rows ? false : i === y.shape.length - 2) && !(b === columns ? false : i === y.shape.length - 1),
    ),
  );
};

/** Products of all operands over the axes of all letters, summed over the letters that the result lacks. */
function einsum(equation: string, operands: readonly Tensor[]): Tensor {
  const [left, right] = equation.replaceAll(' ', '').split('->') as [string, string | undefined];
  const terms = left.split(',');
  if (right === undefined || equation.includes('.') || terms.some((t) => new Set(t).size < t.length))
    throw new Skip(`einsum ${equation}: expected an arrow, and each letter once in an operand`);
  const letters = [...new Set(`${right}${left.replaceAll(',', '')}`.split(''))];
  const spread = operands.map((x, i) => {
    const own = letters.filter((c) => terms[i]!.includes(c));
    const sizes = letters.map((c) => (own.includes(c) ? x.shape[terms[i]!.indexOf(c)]! : 1));
    return x.permute(own.map((c) => terms[i]!.indexOf(c))).reshape(sizes);
  });
  return spread.reduce((a, b) => a.mul(b)).sum(letters.map((_, i) => i).slice(right.length));
}

/** PyTorch's `interpolate`. */
const upsample: GoldenOp = ({ x, rows, columns }, { mode, size, scale, align_corners: corners = false }) => {
  if (mode === 'bicubic') {
    if (corners) throw new Skip('upsample: bicubic with aligned corners');
    return bicubic(x!, { rows: rows!, columns: columns! });
  }
  const how = {
    nearest: { mode: 'nearest', coordinates: 'asymmetric' },
    'nearest-exact': { mode: 'nearest' },
    linear: { coordinates: corners ? 'align-corners' : 'half-pixel' },
  } as const;
  const name = ['bilinear', 'trilinear'].includes(mode) ? 'linear' : mode;
  if (!(name in how)) throw new Skip(`upsample: the mode ${mode}`);
  return F.resize(x!, size ? { size } : { scale }, how[name as keyof typeof how]);
};

const PRODUCTS: Record<string, GoldenOp> = {
  ...pairs({ matmul }),
  linear: ({ x, w, b }) => F.linear(x!, w!, b),
  einsum: (t, { equation }, inputs = Object.keys(t)) =>
    einsum(
      equation,
      inputs.map((n) => t[n]!),
    ),
  conv3d: (
    { x, w, b },
    { stride, dilation, groups, pad_w_lo_hi_h_lo_hi_t_lo_hi: [w0, w1, h0, h1, t0, t1] = [0, 0, 0, 0, 0, 0] },
  ) => F.conv3d(x!, w!, b, { stride, dilation, groups, padLo: [t0, h0, w0], padHi: [t1, h1, w1] }),
  conv2d: ({ x, w, b }, { stride, dilation, groups, pad_w_lo_hi_h_lo_hi: [w0, w1, h0, h1] = [0, 0, 0, 0] }) =>
    F.conv2d(x!, w!, b, { stride, dilation, groups, padLo: [h0, w0], padHi: [h1, w1] }),
  upsample,
};

export const along = (x: Tensor, axis: number, f: (x: Tensor) => Tensor): Tensor =>
  f(x.transpose(axis, -1)).transpose(axis, -1);
/** Several axes as one, the last. */
function over(x: Tensor, axes: readonly number[], f: (x: Tensor) => Tensor): Tensor {
  const rank = x.shape.length;
  const own = axes.map((a) => (a + rank) % rank);
  const order = [...[...x.shape.keys()].filter((a) => !own.includes(a)), ...own];
  const moved = x.permute(order);
  const y = f(moved.reshape([...moved.shape.slice(0, rank - own.length), -1])).reshape(moved.shape);
  return y.permute(order.map((_, a) => order.indexOf(a)));
}
const affine = (y: Tensor, { w, b }: Named): Tensor => {
  const scaled = w ? y.mul(w) : y;
  return b ? scaled.add(b) : scaled;
};
const NORMS: Record<string, GoldenOp> = {
  layer_norm: (t, { eps, axis = -1 }) =>
    affine(
      over(t['x']!, [axis].flat(), (x) => x.layerNorm(eps)),
      t,
    ),
  rms_norm: (t, { eps, axis = -1 }) =>
    affine(
      over(t['x']!, [axis].flat(), (x) => x.rmsNorm(eps)),
      t,
    ),
  group_norm: ({ x, w, b }, { groups, eps }) =>
    F.groupNorm(x!, groups, w ?? F.full([x!.shape[1]!], 1), b ?? F.zeros([x!.shape[1]!]), eps),
  channel_rms_norm: ({ x, gamma }) => channelNorm(x!, gamma!),
};

const heads = (x: Tensor): Tensor => x.permute([0, 2, 1, 3]);
const ATTENTION: Record<string, GoldenOp> = {
  softmax: ({ x }, { axis }) => along(x!, axis, (y) => y.softmax()),
  log_softmax: ({ x }, { axis }) => along(x!, axis, (y) => y.logSoftmax()),
  attention: ({ q, k, v, keep, bias, lengths }, { scale }) => {
    // Masks that are no prefix, biases and narrower values are not our fused op's business.
    if ((keep && !lengths) || bias || v!.shape[3] !== q!.shape[3]) {
      const scores = q!.matmul(k!, { transB: true }).mul(scale);
      const biased = bias ? scores.add(bias) : scores;
      return F.where(keep ? keep.cast('f32') : biased.like(1), biased, -1e30)
        .softmax()
        .matmul(v!);
    }
    return heads(F.attention(heads(q!), heads(k!), heads(v!), { lengths, scale }));
  },
  rope3d: ({ x, cos, sin }) => {
    const half = (table: Tensor) => table.reshape([x!.shape[1]!, -1, 2]).slice(2, 1).squeeze(2);
    return { y: rotate(x!, { cos: cos!, sin: sin! }), cos: half(cos!), sin: half(sin!) };
  },
};

const count = (x: Tensor, axes: number[]): number => axes.reduce((n, a) => n * x.shape.at(a)!, 1);
const variance: One = (x, { axes = [...x.shape.keys()], keepdim = false, correction = 1 }) => {
  const d = x.sub(x.mean(axes, true));
  return d
    .square()
    .sum(axes, keepdim)
    .div(count(x, axes) - correction);
};
const REDUCTIONS = each({
  sum: (x, { axes, keepdim }) => x.sum(axes, keepdim),
  mean: (x, { axes, keepdim }) => x.mean(axes, keepdim),
  var: variance,
  std: (x, attrs) => variance(x, attrs).sqrt(),
  prod: (x, { axes, keepdim }) => x.prod(axes, keepdim),
  l2norm: (x, { axes, keepdim }) => x.square().sum(axes, keepdim).sqrt(),
  amax: (x, { axes, keepdim }) => x.amax(axes, keepdim),
  amin: (x, { axes, keepdim }) => x.amin(axes, keepdim),
  argmax: (x, { axis, keepdim }) => x.argmax(axis, keepdim),
  argmin: (x, { axis, keepdim }) => x.argmin(axis, keepdim),
  cumsum: (x, { axis }) => x.cumSum(axis),
});

/** Rows of x along `axis` by one list of ids. */
const front = (x: Tensor, axis: number): number => (axis < 0 ? axis + x.shape.length : axis);
const select = (x: Tensor, a: number, ids: Tensor): Tensor => {
  const axis = front(x, a);
  const order = [axis, ...[...x.shape.keys()].filter((i) => i !== axis)];
  return F.gather(x.permute(order), ids).permute(order.map((_, i) => order.indexOf(i)));
};
const lohi = (x: Tensor, flat: number[]): [number, number][] =>
  x.shape.map((_, axis) => {
    const from = 2 * (x.shape.length - 1 - axis);
    return [flat[from] ?? 0, flat[from + 1] ?? 0];
  });
const SHAPES: Record<string, GoldenOp> = {
  ...each({
    slice: (x, { start, stop, step }) => x.shape.reduce((y, _, a) => y.slice(a, start[a], stop[a], step[a]), x),
    flip: (x, { axis }) => x.flip(...[axis].flat()),
    pad: (x, { pad_last_lo_hi_then_prev: flat, value }) => {
      const pads = lohi(x, flat);
      const cut = pads.reduce((y, [lo, hi], a) => y.slice(a, Math.max(0, -lo), y.shape[a]! + Math.min(0, hi)), x);
      return cut
        .sub(value)
        .pad(
          pads.map(([lo]) => Math.max(0, lo)),
          pads.map(([, hi]) => Math.max(0, hi)),
        )
        .add(value);
    },
    permute: (x, { dims, reshape }) => (reshape ? x.permute(dims).reshape(reshape) : x.permute(dims)),
    reshape: (x) => {
      const [b, c2, t, h, w] = x.shape as [number, number, number, number, number];
      return x
        .reshape([b, 2, c2 / 2, t, h * w])
        .permute([0, 2, 3, 1, 4])
        .reshape([b, c2 / 2, 2 * t, h, w]);
    },
    expand: (x, { shape }) => x.expand(shape),
    repeat_interleave: (x, { axis: a, repeats }) => {
      const axis = front(x, a);
      return x
        .unsqueeze(axis + 1)
        .expand(x.shape.toSpliced(axis + 1, 0, repeats))
        .reshape(x.shape.with(axis, x.shape[axis]! * repeats));
    },
    masked_fill: (x, { value }) => F.where(F.iota(x.shape, -1).le(F.iota(x.shape, -2)), x, value),
  }),
  embedding: ({ ids, w }) => F.gather(w!, ids!),
  index_select: ({ x, idx }, { axis }) => select(x!, axis, idx!),
  gather: ({ x, idx }, { axis }) => {
    // The flat position of each picked element.
    const place = x!.shape.reduce<Tensor>(
      (at, n, a) => at.mul(n).add(a === front(x!, axis) ? idx!.cast('f32') : F.iota(idx!.shape, a)),
      F.zeros(idx!.shape),
    );
    return F.gather(x!.reshape([-1, 1]), place.cast('i32')).squeeze(-1);
  },
  concat: (t, { axis, order }) =>
    F.concat(
      (order as string[]).map((n) => t[n]!),
      axis,
    ),
  stack: (t, { axis }, inputs = Object.keys(t)) =>
    F.stack(
      inputs.map((n) => t[n]!),
      axis,
    ),
  chunk: ({ x }, { axis, chunks }) => {
    const size = x!.shape.at(axis)!,
      span = Math.ceil(size / chunks); // the last one may be shorter
    return Object.fromEntries(
      Array.from({ length: Math.ceil(size / span) }, (_, i) => [
        `y${i}`,
        x!.slice(axis, i * span, Math.min(size, (i + 1) * span)),
      ]),
    );
  },
  split: ({ x }, { axis, sizes }) => {
    let at = 0;
    return Object.fromEntries((sizes as number[]).map((n, i) => [`y${i}`, x!.slice(axis, at, (at += n))]));
  },
  where_one: ({ c, x }) => F.where(c!.cast('f32'), 1, x!),
  where: ({ c, a, b }) => F.where(c!.cast('f32'), a!, b!),
  modulate: ({ x, scale, shift }) => x!.mul(scale!.add(1)).add(shift!),
};

const OP_TABLE: Readonly<Record<string, GoldenOp>> = {
  ...ACTIVATIONS,
  ...ARITHMETIC,
  ...PRODUCTS,
  ...NORMS,
  ...ATTENTION,
  ...REDUCTIONS,
  ...SHAPES,
  ...LOSSES,
};

/** The op of a name; a number at its end, as in `pow1.7` and `leaky_relu_0.2`, is its attribute `number`. */
export function goldenOp(name: string): GoldenOp | undefined {
  if (OP_TABLE[name]) return OP_TABLE[name];
  const [, stem, number] = /^(.*?)_?(-?\d+(?:\.\d+)?)$/.exec(name) ?? [];
  const op = OP_TABLE[stem ?? ''];
  return (
    op &&
    ((t, attrs, inputs) => op(t, Object.assign(Object.create(attrs) as Attrs, { number: Number(number) }), inputs))
  );
}

/** Attributes that only describe what the tensors show. */
const NOTES: Record<string, readonly string[]> = {
  conv3d: ['kernel', 'bias'],
  conv2d: ['kernel', 'bias'],
  rope3d: ['head_dim', 'grid_thw', 'pairs_t_h_w', 'freq_dim_t_h_w'],
};
/** Attributes that may have one value alone. */
const FIXED: Record<string, Attrs> = {
  upsample: { a: -0.75, antialias: false },
  rope3d: { theta: 10000 },
  channel_rms_norm: { axis: 1, eps: 1e-12 },
  clip_grad_norm: { eps: 1e-6, norm_type: 2 },
  reshape: { in: '[b,2c,t,h,w]', out: '[b,c,2t,h,w]' },
  masked_fill: { mask: 'upper triangle above diagonal' },
  loss_cross_entropy: { label_smoothing: 0 },
};

/** An op with all its attributes: refused in a line where there is one that it does not look at, or with a value it does not know. */
export function strictly(name: string, op: GoldenOp): GoldenOp {
  return (t, attrs, inputs) => {
    const seen = new Set<string>(NOTES[name] ?? []);
    for (const [key, value] of Object.entries(FIXED[name] ?? {})) {
      if (attrs[key] !== undefined && attrs[key] !== value)
        throw new Skip(`${name} with ${key} ${JSON.stringify(attrs[key])}: only ${JSON.stringify(value)} is known`);
      seen.add(key);
    }
    const watched = new Proxy(attrs, {
      get: (target, key) => {
        seen.add(String(key));
        return target[String(key)] as unknown;
      },
    });
    const result = op(t, watched, inputs);
    const unknown = Object.keys(attrs).filter((key) => !seen.has(key));
    if (unknown.length)
      throw new Skip(
        `${name} takes no attribute ${unknown.map((k) => `${k} (${JSON.stringify(attrs[k])})`).join(', ')}`,
      );
    return result;
  };
}

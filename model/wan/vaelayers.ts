/**
 * The layers of Wan's VAEs: causal convolution, channel norm, residual block, attention within a frame, resampling, and stages of these.
 */
import { attention, concat, conv3d, full, silu } from '../../engine/frontend/functional.ts';
import type { Triple } from '../../engine/frontend/graph.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { kaiming, ones, Scope, under, zeros, type Init, type Params, type Specs } from '../params.ts';
import { repeat, shrink, type Shortcut } from './shortcuts.ts';

/** What stands at one place of the encoder or decoder. `time`: the resampling goes over time too. */
export type Layer =
  | { readonly kind: 'residual'; readonly inputs: number; readonly outputs: number }
  | { readonly kind: 'attention'; readonly dim: number }
  | { readonly kind: 'down'; readonly dim: number; readonly time: boolean }
  | { readonly kind: 'up'; readonly dim: number; readonly outputs: number; readonly time: boolean }
  | Stage;

/** Wan2.2: layers with a shortcut past them; the last stage of a decoder has none. */
export interface Stage {
  readonly kind: 'stage';
  /** Of its layers in the checkpoint. */
  readonly name: 'downsamples' | 'upsamples';
  readonly layers: readonly Layer[];
  readonly shortcut?: Shortcut;
}

/** Weight and bias of a convolution with kernel (kt, kh, kw), or (kh, kw). */
export function convSpecs(
  inputs: number,
  outputs: number,
  kernel: readonly number[],
  weight: Init = kaiming(inputs * kernel.reduce((a, b) => a * b, 1)),
): Specs {
  return {
    weight: { shape: [outputs, inputs, ...kernel], init: weight },
    bias: { shape: [outputs], init: kaiming(inputs * kernel.reduce((a, b) => a * b, 1)) },
  };
}

/** Gain of a channel norm over video, or over single images. */
export const gainSpecs = (dim: number, axes: 3 | 2 = 3): Specs => ({
  gamma: { shape: [dim, ...Array<number>(axes).fill(1)], init: ones },
});

/**
 * What the layers remember of earlier frames when a clip comes in chunks: their last inputs, under the layer's name.
 * Without `before` the clip begins here, and a whole clip is a beginning that nothing follows.
 */
export class Cache {
  readonly before: Params | undefined;
  readonly after: Record<string, Tensor> = {};

  constructor(before?: Params) {
    this.before = before;
  }

  /** x [B,C,T,H,W] with what stood before it in front; its last `count` frames are kept for the next chunk, zeros before the clip. */
  join(name: string, x: Tensor, count: number): Tensor {
    const past = this.before?.[name];
    const seen = past ? concat([past, x], 2) : x;
    const surplus = seen.shape[2]! - count;
    this.after[name] = surplus < 0 ? seen.pad([0, 0, -surplus, 0, 0], [0, 0, 0, 0, 0]) : seen.slice(2, surplus);
    return seen;
  }
}

/** Convolution of [B,C,T,H,W] that sees no later frame: all padding in time stands in front. Kernel sizes are odd. */
export function causalConv(s: Scope, name: string, x: Tensor, cache: Cache): Tensor {
  const all = s.get(`${name}.weight`);
  const [kt, kh, kw] = all.shape.slice(2) as unknown as Triple;
  const [ph, pw] = [(kh - 1) / 2, (kw - 1) / 2];
  const seen = kt > 1 ? cache.join(s.scope(name).prefix, x, kt - 1) : x;
  // Of a single frame only the last tap sees more than the zeros in front.
  const alone = kt > 1 && seen.shape[2] === 1;
  return conv3d(seen, alone ? all.slice(2, kt - 1) : all, s.get(`${name}.bias`), {
    padLo: [alone ? 0 : kt - 1 - (seen.shape[2]! - x.shape[2]!), ph, pw],
    padHi: [0, ph, pw],
  });
}

/** Convolution of each frame with a (kh, kw) kernel. */
function frameConv(
  s: Scope,
  name: string,
  x: Tensor,
  options: { stride?: Triple; padLo: Triple; padHi: Triple },
): Tensor {
  return conv3d(x, s.get(`${name}.weight`).unsqueeze(2), s.get(`${name}.bias`), options);
}

/** x / max(‖x‖, 1e-12) · √C · gamma over the channels; there is no mean and no ε inside the root. */
export function channelNorm(x: Tensor, gamma: Tensor): Tensor {
  const c = x.shape[1]!;
  // The floor stands under the root, where its gradient is finite for a vector of zeros.
  const inverse = x.square().sum([1], true).max(1e-24).rsqrt();
  return x.mul(inverse).mul(gamma.mul(Math.sqrt(c)).reshape([1, c, ...Array<number>(x.shape.length - 2).fill(1)]));
}

const residualSpecs = (inputs: number, outputs: number): Specs => ({
  ...under('residual.0', gainSpecs(inputs)),
  ...under('residual.2', convSpecs(inputs, outputs, [3, 3, 3])),
  ...under('residual.3', gainSpecs(outputs)),
  ...under('residual.6', convSpecs(outputs, outputs, [3, 3, 3])),
  ...(inputs !== outputs && under('shortcut', convSpecs(inputs, outputs, [1, 1, 1]))),
});

function residual(s: Scope, x: Tensor, cache: Cache): Tensor {
  const r = s.scope('residual');
  const first = causalConv(r, '2', silu(channelNorm(x, r.get('0.gamma'))), cache);
  const y = causalConv(r, '6', silu(channelNorm(first, r.get('3.gamma'))), cache);
  return y.add(s.has('shortcut.weight') ? causalConv(s, 'shortcut', x, cache) : x);
}

const attentionSpecs = (dim: number): Specs => ({
  ...under('norm', gainSpecs(dim, 2)),
  ...under('to_qkv', convSpecs(dim, 3 * dim, [1, 1])),
  ...under('proj', convSpecs(dim, dim, [1, 1], zeros)),
});

/** One head over the cells of each frame. */
function frameAttention(s: Scope, x: Tensor): Tensor {
  const [b, c, t, h, w] = x.shape as [number, number, number, number, number];
  const cells = channelNorm(x, s.get('norm.gamma'))
    .permute([0, 2, 3, 4, 1])
    .reshape([b * t, h * w, c]);
  const pointwise = (name: string, y: Tensor) =>
    y.matmul(s.get(`${name}.weight`).reshape([-1, c]), { transB: true }).add(s.get(`${name}.bias`));
  const [q, k, v] = pointwise('to_qkv', cells).unsqueeze(2).split(3, 3) as [Tensor, Tensor, Tensor];
  const y = pointwise('proj', attention(q, k, v).squeeze(2));
  return x.add(y.reshape([b, t, h, w, c]).permute([0, 4, 1, 2, 3]));
}

const downSpecs = (dim: number, time: boolean): Specs => ({
  ...under('resample.1', convSpecs(dim, dim, [3, 3])),
  ...(time && under('time_conv', convSpecs(dim, dim, [3, 1, 1]))),
});

/** Halves height and width; with `time`, 1 + 2k frames become 1 + k: frame 0 stays, frame j comes from frames 2j-2 … 2j. */
function down(s: Scope, x: Tensor, time: boolean, cache: Cache): Tensor {
  const y = frameConv(s, 'resample.1', x, { stride: [1, 2, 2], padLo: [0, 0, 0], padHi: [0, 1, 1] });
  if (!time) return y;
  const seen = cache.join(s.scope('time_conv').prefix, y, 1);
  const halve = () => conv3d(seen, s.get('time_conv.weight'), s.get('time_conv.bias'), { stride: [2, 1, 1] });
  if (cache.before) return halve();
  return y.shape[2] === 1 ? y : concat([y.slice(2, 0, 1), halve()], 2);
}

const upSpecs = (dim: number, outputs: number, time: boolean): Specs => ({
  ...under('resample.1', convSpecs(dim, outputs, [3, 3])),
  ...(time && under('time_conv', convSpecs(dim, 2 * dim, [3, 1, 1]))),
});

/** [B,C,T,H,W] → [B,C,T,2H,2W] by repetition. */
function enlarge(x: Tensor): Tensor {
  const [b, c, t, h, w] = x.shape as [number, number, number, number, number];
  return x
    .reshape([b * c * t, h, 1, w, 1])
    .expand([b * c * t, h, 2, w, 2])
    .reshape([b, c, t, 2 * h, 2 * w]);
}

/**
 * Doubles height and width; with `time`, 1 + k frames become 1 + 2k.
 * Frame 0 passes by the temporal convolution and is not part of its context: what streaming through a cache comes to.
 */
function up(s: Scope, x: Tensor, time: boolean, cache: Cache): Tensor {
  return frameConv(s, 'resample.1', enlarge(time ? doubleFrames(s, x, cache) : x), {
    padLo: [0, 1, 1],
    padHi: [0, 1, 1],
  });
}

/** [B,C,T,H,W] → [B,C,2T,H,W], the clip's frame 0 apart: the convolution gives 2C channels, the first C the earlier frame. */
function doubleFrames(s: Scope, x: Tensor, cache: Cache): Tensor {
  const double = (y: Tensor): Tensor => {
    const [b, c, t, h, w] = y.shape as [number, number, number, number, number];
    return causalConv(s, 'time_conv', y, cache)
      .reshape([b, 2, c, t, h * w])
      .permute([0, 2, 3, 1, 4])
      .reshape([b, c, 2 * t, h, w]);
  };
  if (cache.before) return double(x);
  if (x.shape[2]! > 1) return concat([x.slice(2, 0, 1), double(x.slice(2, 1))], 2);
  cache.after[s.scope('time_conv').prefix] = full(x.shape.with(2, s.get('time_conv.weight').shape[2]! - 1), 0);
  return x;
}

export function layerSpecs(l: Layer): Specs {
  switch (l.kind) {
    case 'residual':
      return residualSpecs(l.inputs, l.outputs);
    case 'attention':
      return attentionSpecs(l.dim);
    case 'down':
      return downSpecs(l.dim, l.time);
    case 'up':
      return upSpecs(l.dim, l.outputs, l.time);
    default:
      return Object.assign({}, ...l.layers.map((inner, i) => under(`${l.name}.${i}`, layerSpecs(inner)))) as Specs;
  }
}

type Probe = (name: string, value: Tensor) => void;

export function layer(s: Scope, l: Layer, x: Tensor, cache: Cache, probe: Probe): Tensor {
  switch (l.kind) {
    case 'residual':
      return residual(s, x, cache);
    case 'attention':
      return frameAttention(s, x);
    case 'down':
      return down(s, x, l.time, cache);
    case 'up':
      return up(s, x, l.time, cache);
    default:
      return stage(s, l, x, cache, probe);
  }
}

function stage(s: Scope, { name, layers, shortcut }: Stage, x: Tensor, cache: Cache, probe: Probe): Tensor {
  const y = layers.reduce((h, l, i) => layer(s.scope(name).scope(i), l, h, cache, probe), x);
  if (!shortcut) return y;
  const past = name === 'downsamples' ? shrink(x, shortcut) : repeat(x, shortcut, !cache.before);
  probe(`${s.prefix}.avg_shortcut`, past);
  return y.add(past);
}

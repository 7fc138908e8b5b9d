/** The layers of the Wan2.1 VAE: causal convolution, channel norm, residual block, attention within a frame, resampling. */
import { attention, concat, conv3d, silu } from '../../engine/functional.ts';
import type { Triple } from '../../engine/graph.ts';
import type { Tensor } from '../../engine/tensor.ts';
import { kaiming, ones, Scope, under, zeros, type Init, type Specs } from '../params.ts';

/** What stands at one place of the encoder or decoder. `time`: the resampling goes over time too. */
export type Layer =
  | { readonly kind: 'residual'; readonly inputs: number; readonly outputs: number }
  | { readonly kind: 'attention'; readonly dim: number }
  | { readonly kind: 'down' | 'up'; readonly dim: number; readonly time: boolean };

/** Weight and bias of a convolution with kernel (kt, kh, kw), or (kh, kw). */
export function convSpecs(inputs: number, outputs: number, kernel: readonly number[], weight: Init = kaiming(inputs * kernel.reduce((a, b) => a * b, 1))): Specs {
  return {
    weight: { shape: [outputs, inputs, ...kernel], init: weight },
    bias: { shape: [outputs], init: kaiming(inputs * kernel.reduce((a, b) => a * b, 1)) },
  };
}

/** Gain of a channel norm over video, or over single images. */
export const gainSpecs = (dim: number, axes: 3 | 2 = 3): Specs => ({ gamma: { shape: [dim, ...Array<number>(axes).fill(1)], init: ones } });

/** Convolution of [B,C,T,H,W] that sees no later frame: all padding in time stands in front. Kernel sizes are odd. */
export function causalConv(s: Scope, name: string, x: Tensor): Tensor {
  const w = s.get(`${name}.weight`);
  const [kt, kh, kw] = w.shape.slice(2) as unknown as Triple;
  const [ph, pw] = [(kh - 1) / 2, (kw - 1) / 2];
  return conv3d(x, w, s.get(`${name}.bias`), { padLo: [kt - 1, ph, pw], padHi: [0, ph, pw] });
}

/** Convolution of each frame with a (kh, kw) kernel. */
function frameConv(s: Scope, name: string, x: Tensor, options: { stride?: Triple; padLo: Triple; padHi: Triple }): Tensor {
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
  ...under('residual.0', gainSpecs(inputs)), ...under('residual.2', convSpecs(inputs, outputs, [3, 3, 3])),
  ...under('residual.3', gainSpecs(outputs)), ...under('residual.6', convSpecs(outputs, outputs, [3, 3, 3])),
  ...(inputs !== outputs && under('shortcut', convSpecs(inputs, outputs, [1, 1, 1]))),
});

function residual(s: Scope, x: Tensor): Tensor {
  const r = s.scope('residual');
  const first = causalConv(r, '2', silu(channelNorm(x, r.get('0.gamma'))));
  const y = causalConv(r, '6', silu(channelNorm(first, r.get('3.gamma'))));
  return y.add(s.has('shortcut.weight') ? causalConv(s, 'shortcut', x) : x);
}

const attentionSpecs = (dim: number): Specs => ({
  ...under('norm', gainSpecs(dim, 2)), ...under('to_qkv', convSpecs(dim, 3 * dim, [1, 1])), ...under('proj', convSpecs(dim, dim, [1, 1], zeros)),
});

/** One head over the cells of each frame. */
function frameAttention(s: Scope, x: Tensor): Tensor {
  const [b, c, t, h, w] = x.shape as [number, number, number, number, number];
  const cells = channelNorm(x, s.get('norm.gamma')).permute([0, 2, 3, 4, 1]).reshape([b * t, h * w, c]);
  const pointwise = (name: string, y: Tensor) => y.matmul(s.get(`${name}.weight`).reshape([-1, c]), { transB: true }).add(s.get(`${name}.bias`));
  const [q, k, v] = pointwise('to_qkv', cells).unsqueeze(2).split(3, 3) as [Tensor, Tensor, Tensor];
  const y = pointwise('proj', attention(q, k, v).squeeze(2));
  return x.add(y.reshape([b, t, h, w, c]).permute([0, 4, 1, 2, 3]));
}

const downSpecs = (dim: number, time: boolean): Specs => ({
  ...under('resample.1', convSpecs(dim, dim, [3, 3])), ...(time && under('time_conv', convSpecs(dim, dim, [3, 1, 1]))),
});

/** Halves height and width; with `time`, 1 + 2k frames become 1 + k: frame 0 stays, frame j comes from frames 2j-2 … 2j. */
function down(s: Scope, x: Tensor, time: boolean): Tensor {
  const y = frameConv(s, 'resample.1', x, { stride: [1, 2, 2], padLo: [0, 0, 0], padHi: [0, 1, 1] });
  if (!time || y.shape[2] === 1) return y;
  const later = conv3d(y, s.get('time_conv.weight'), s.get('time_conv.bias'), { stride: [2, 1, 1] });
  return concat([y.slice(2, 0, 1), later], 2);
}

const upSpecs = (dim: number, time: boolean): Specs => ({
  ...under('resample.1', convSpecs(dim, dim / 2, [3, 3])), ...(time && under('time_conv', convSpecs(dim, 2 * dim, [3, 1, 1]))),
});

/** [B,C,T,H,W] → [B,C,T,2H,2W] by repetition. */
function enlarge(x: Tensor): Tensor {
  const [b, c, t, h, w] = x.shape as [number, number, number, number, number];
  return x.reshape([b * c * t, h, 1, w, 1]).expand([b * c * t, h, 2, w, 2]).reshape([b, c, t, 2 * h, 2 * w]);
}

/**
 * Doubles height and width and halves the channels; with `time`, 1 + k frames become 1 + 2k.
 * Frame 0 passes by the temporal convolution and is not part of its context: what streaming through a cache comes to.
 */
function up(s: Scope, x: Tensor, time: boolean): Tensor {
  const wide = time && x.shape[2]! > 1 ? concat([x.slice(2, 0, 1), doubleFrames(s, x.slice(2, 1))], 2) : x;
  return frameConv(s, 'resample.1', enlarge(wide), { padLo: [0, 1, 1], padHi: [0, 1, 1] });
}

/** [B,C,T,H,W] → [B,C,2T,H,W]: the convolution gives 2C channels, the first C the earlier frame. */
function doubleFrames(s: Scope, x: Tensor): Tensor {
  const [b, c, t, h, w] = x.shape as [number, number, number, number, number];
  return causalConv(s, 'time_conv', x).reshape([b, 2, c, t, h * w]).permute([0, 2, 3, 1, 4]).reshape([b, c, 2 * t, h, w]);
}

export function layerSpecs(l: Layer): Specs {
  if (l.kind === 'residual') return residualSpecs(l.inputs, l.outputs);
  if (l.kind === 'attention') return attentionSpecs(l.dim);
  return l.kind === 'down' ? downSpecs(l.dim, l.time) : upSpecs(l.dim, l.time);
}

export function layer(s: Scope, l: Layer, x: Tensor): Tensor {
  if (l.kind === 'residual') return residual(s, x);
  if (l.kind === 'attention') return frameAttention(s, x);
  return l.kind === 'down' ? down(s, x, l.time) : up(s, x, l.time);
}

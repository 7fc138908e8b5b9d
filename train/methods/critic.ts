/**
 * The critic of the VAE's reconstructions: logits of small patches of single frames, as
 * pix2pix and VQGAN have it (arXiv 1611.07004, 2012.09841).
 */
import { conv3d, silu, stopGradient } from '../../engine/frontend/functional.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { materialise, Scope, shapesOf, under, type HostParams, type Params } from '../../model/params.ts';
import { convSpecs } from '../../model/wan/vaelayers.ts';
import { ADVERSARIAL } from './losses.ts';

const PREFIX = 'critic';
const TAPS = 9;
/**
 * Channels, stride and gain of its 3x3 convolutions; a cell of the last one sees 13x13 pixels. The gain is of PyTorch's first weights: what
 * keeps the variance through a layer, and in the first one, which tells detail from its mean, more.
 */
const LAYERS = [
  [24, 1, 8],
  [48, 2, 2.45],
  [48, 1, 2.45],
  [1, 1, 1],
] as const;

const criticSpecs = (channels: number) =>
  under(
    PREFIX,
    Object.assign(
      {},
      ...LAYERS.map(([outputs], i) =>
        under(String(i), convSpecs(i ? LAYERS[i - 1]![0] : channels, outputs, [1, 3, 3])),
      ),
    ),
  );

/** Name → shape. */
export const criticShapes = (channels: number) => shapesOf(criticSpecs(channels));

/** First weights, under names of its own beside the VAE's: the first layer sees differences of neighbours, not their mean. */
export function initCritic(channels: number, seed: number): HostParams {
  const params = materialise(criticSpecs(channels), seed);
  LAYERS.forEach(([, , gain], i) => {
    const data = params[`${PREFIX}.${i}.weight`]!.data as Float32Array;
    for (let at = 0; at < data.length; at += TAPS) {
      const kernel = data.subarray(at, at + TAPS);
      const mean = i ? 0 : kernel.reduce((sum, w) => sum + w, 0) / TAPS;
      for (let k = 0; k < TAPS; k++) kernel[k] = gain * (kernel[k]! - mean);
    }
  });
  return params;
}

/** The VAE's own weights among a job's. */
export const withoutCritic = <T>(params: Readonly<Record<string, T>>): Record<string, T> =>
  Object.fromEntries(Object.entries(params).filter(([name]) => !name.startsWith(`${PREFIX}.`)));

/** Video [B,C,T,H,W] → logits [B,1,T,h,w]. */
function critic(net: Params, video: Tensor): Tensor {
  const s = Scope.of(net).scope(PREFIX);
  return LAYERS.reduce((x, [, stride], i) => {
    const y = conv3d(x, s.get(`${i}.weight`), s.get(`${i}.bias`), {
      stride: [1, stride, stride],
      padLo: [0, 1, 1],
      padHi: [0, 1, 1],
    });
    return i < LAYERS.length - 1 ? silu(y) : y;
  }, video);
}

/**
 * Hinge losses: of the reconstruction x̂ against a critic that stands still, and of the critic against x̂ as it is; their sum trains
 * both at once. `gap` is the mean logit of real pixels less that of x̂: 0 for a critic that sees nothing.
 */
export function criticised(net: Params, made: Tensor, video: Tensor) {
  const still = Object.fromEntries(Object.entries(net).map(([name, p]) => [name, stopGradient(p)]));
  const { generator, discriminator } = ADVERSARIAL.hinge;
  const [real, fake] = [critic(net, video), critic(net, stopGradient(made))];
  return {
    deceived: generator(critic(still, made), () => real),
    seen: discriminator(real, fake),
    gap: real.mean().sub(fake.mean()),
  };
}

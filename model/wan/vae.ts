/**
 * The causal video VAEs of Wan2.1 and Wan2.2, as functions over parameters under the checkpoint's names.
 *
 * Reference: wan/modules/vae.py and vae2_2.py: 1 + s k frames ↔ 1 + k latent frames, s the temporal stride, frame 0 apart.
 * A clip goes through as a whole, or in chunks that hand on a cache, with the same result.
 */
import { silu } from '../../engine/frontend/functional.ts';
import { fail, printShapes } from '../../engine/host/errors.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { vaeStride, type VAEConfig } from '../config.ts';
import { materialise, Scope, shapesOf, under, type HostParams, type Params, type Specs } from '../params.ts';
import { fold, unfold } from './shortcuts.ts';
import { Cache, causalConv, channelNorm, convSpecs, gainSpecs, layer, layerSpecs, type Layer } from './vaelayers.ts';

interface VAEOptions {
  /** For a clip in chunks: what the chunk before left, and where this one leaves the same. */
  cache?: Cache;
  /** Told of intermediate values, under the names of the reference tensors; for tests. */
  probe?: (name: string, value: Tensor) => void;
}

const middle = (dim: number): Layer[] => [
  { kind: 'residual', inputs: dim, outputs: dim },
  { kind: 'attention', dim },
  { kind: 'residual', inputs: dim, outputs: dim },
];

/** Width of the decoder. */
const decoderDim = (c: VAEConfig): number => c.dec_dim ?? c.dim;
/** Channels of a cell that the first layer takes and the last one gives. */
const cellChannels = (c: VAEConfig): number => c.channels * (c.patch_size ?? 1) ** 2;

const residuals = (count: number, inputs: number, outputs: number): Layer[] =>
  Array.from({ length: count }, (_, j): Layer => ({ kind: 'residual', inputs: j ? outputs : inputs, outputs }));

/** `encoder.downsamples`: each level's residual blocks, then the halving; a level is a stage of its own in Wan2.2. */
function downsamples(c: VAEConfig): Layer[] {
  return c.dim_mult.flatMap((mult, i): Layer[] => {
    const outputs = c.dim * mult;
    const last = i === c.dim_mult.length - 1;
    const time = c.temperal_downsample[i] ?? false;
    const layers: Layer[] = [
      ...residuals(c.num_res_blocks, c.dim * (i ? c.dim_mult[i - 1]! : 1), outputs),
      ...(last ? [] : [{ kind: 'down', dim: outputs, time } as const]),
    ];
    const shortcut = { outputs, time: time ? 2 : 1, space: last ? 1 : 2 };
    return c.is_residual ? [{ kind: 'stage', name: 'downsamples', layers, shortcut }] : layers;
  });
}

/** `decoder.upsamples`: the levels in reverse, one residual block more each; in Wan2.1 every doubling also halves the channels. */
function upsamples(c: VAEConfig): Layer[] {
  const widths = [...c.dim_mult].reverse().map((mult) => decoderDim(c) * mult);
  const times = [...c.temperal_downsample].reverse();
  return widths.flatMap((dim, i): Layer[] => {
    const last = i === widths.length - 1;
    const time = times[i] ?? false;
    const before = i ? widths[i - 1]! / (c.is_residual ? 1 : 2) : dim;
    const layers: Layer[] = [
      ...residuals(c.num_res_blocks + 1, before, dim),
      ...(last ? [] : [{ kind: 'up', dim, outputs: c.is_residual ? dim : dim / 2, time } as const]),
    ];
    const shortcut = { outputs: dim, time: time ? 2 : 1, space: 2 };
    return c.is_residual ? [{ kind: 'stage', name: 'upsamples', layers, ...(!last && { shortcut }) }] : layers;
  });
}

/** Every parameter with its shape and PyTorch's default initialisation; attention starts as the identity. */
export function vaeSpecs(c: VAEConfig): Specs {
  const list = (prefix: string, layers: readonly Layer[]): Specs =>
    Object.assign({}, ...layers.map((l, i) => under(`${prefix}.${i}`, layerSpecs(l)))) as Specs;
  const head = (inputs: number, outputs: number): Specs => ({
    ...under('head.0', gainSpecs(inputs)),
    ...under('head.2', convSpecs(inputs, outputs, [3, 3, 3])),
  });
  const [deepest, first] = [c.dim * c.dim_mult.at(-1)!, decoderDim(c) * c.dim_mult.at(-1)!];
  return {
    ...under('encoder', {
      ...under('conv1', convSpecs(cellChannels(c), c.dim, [3, 3, 3])),
      ...list('downsamples', downsamples(c)),
      ...list('middle', middle(deepest)),
      ...head(deepest, 2 * c.z_dim),
    }),
    ...under('conv1', convSpecs(2 * c.z_dim, 2 * c.z_dim, [1, 1, 1])),
    ...under('conv2', convSpecs(c.z_dim, c.z_dim, [1, 1, 1])),
    ...under('decoder', {
      ...under('conv1', convSpecs(c.z_dim, first, [3, 3, 3])),
      ...list('middle', middle(first)),
      ...list('upsamples', upsamples(c)),
      ...head(decoderDim(c) * c.dim_mult[0]!, cellChannels(c)),
    }),
  };
}

/** Name → shape of the checkpoint. */
export const vaeShapes = (config: VAEConfig): Record<string, readonly number[]> => shapesOf(vaeSpecs(config));
export const initVAE = (config: VAEConfig, seed: number): HostParams => materialise(vaeSpecs(config), seed);

function run(
  s: Scope,
  name: string,
  layers: readonly Layer[],
  x: Tensor,
  { cache, probe }: Required<VAEOptions>,
): Tensor {
  return layers.reduce((h, l, i) => {
    const y = layer(s.scope(name).scope(i), l, h, cache, probe);
    probe(`${s.prefix}.${name}.${i}`, y);
    return y;
  }, x);
}

const head = (s: Scope, x: Tensor, cache: Cache): Tensor =>
  causalConv(s, 'head.2', silu(channelNorm(x, s.get('head.0.gamma'))), cache);

/**
 * Video [B, channels, T, H, W] in [-1, 1] → the latent's mean and log variance [B, z_dim, T', H', W'], not normalised.
 * Only the first 1 + s k frames count, s k where the chunk is not the first; Wan drops the rest without a word.
 */
export function encode(
  params: Params | Scope,
  config: VAEConfig,
  video: Tensor,
  { cache = new Cache(), probe = () => {} }: VAEOptions = {},
): { mean: Tensor; logvar: Tensor } {
  const s = Scope.of(params);
  const [strideT, strideH, strideW] = vaeStride(config);
  const [, channels, frames, height, width] = video.shape as [number, number, number, number, number];
  if (channels !== config.channels)
    fail('vae', `video ${printShapes(video.shape)} has ${channels} channels, expected ${config.channels}`);
  if (height % strideH || width % strideW)
    fail('vae', `height and width must be multiples of ${strideH}, got ${printShapes(video.shape)}`);
  const used = frames - ((frames - (cache.before ? 0 : 1)) % strideT);
  const e = s.scope('encoder');
  let x = causalConv(e, 'conv1', fold(video.slice(2, 0, used), config.patch_size ?? 1), cache);
  probe('encoder.conv1', x);
  x = run(e, 'downsamples', downsamples(config), x, { cache, probe });
  x = run(e, 'middle', middle(config.dim * config.dim_mult.at(-1)!), x, { cache, probe });
  x = head(e, x, cache);
  probe('enc_raw', x);
  const [mean, logvar] = causalConv(s, 'conv1', x, cache).split(1, 2) as [Tensor, Tensor];
  return { mean, logvar };
}

/** Latent [B, z_dim, T', H', W'], not normalised → video [B, channels, T, H, W], not clamped. */
export function decode(
  params: Params | Scope,
  config: VAEConfig,
  z: Tensor,
  { cache = new Cache(), probe = () => {} }: VAEOptions = {},
): Tensor {
  const s = Scope.of(params);
  if (z.shape[1] !== config.z_dim)
    fail('vae', `latent ${printShapes(z.shape)} has ${z.shape[1]} channels, expected ${config.z_dim}`);
  const d = s.scope('decoder');
  let x = causalConv(d, 'conv1', causalConv(s, 'conv2', z, cache), cache);
  probe('decoder.conv1', x);
  x = run(d, 'middle', middle(decoderDim(config) * config.dim_mult.at(-1)!), x, { cache, probe });
  x = run(d, 'upsamples', upsamples(config), x, { cache, probe });
  return unfold(head(d, x, cache), config.patch_size ?? 1);
}

/** Statistics of each latent channel [z_dim], as inputs of `normalise` and `denormalise`. */
export interface LatentStats<T = HostTensor> {
  mean: T;
  std: T;
}

export const latentStats = (c: VAEConfig): LatentStats => ({
  mean: host(c.latent_mean, [c.z_dim]),
  std: host(c.latent_std, [c.z_dim]),
});

const perChannel = (x: Tensor): Tensor => x.reshape([1, -1, 1, 1, 1]);

/** Latents as the DiT knows them: every channel with mean 0 and variance 1. */
export const normalise = (mean: Tensor, stats: LatentStats<Tensor>): Tensor =>
  mean.sub(perChannel(stats.mean)).div(perChannel(stats.std));
export const denormalise = (z: Tensor, stats: LatentStats<Tensor>): Tensor =>
  z.mul(perChannel(stats.std)).add(perChannel(stats.mean));

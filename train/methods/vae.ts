/** The causal VAE: reconstruction plus a small KL to N(0, I). Latent mean and deviation are measured after training. */
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { constant, normal } from '../../engine/frontend/functional.ts';
import { vjp } from '../../engine/frontend/autodiff.ts';
import type { VAEConfig } from '../../model/config.ts';
import { decode, encode } from '../../model/wan/vae.ts';
import type { Params } from '../../model/params.ts';
import { update, type AdamConfig, type Rates, type Trained } from '../loop/optim.ts';
import { criticised } from './critic.ts';
import { weighted } from './losses.ts';

interface VaeWeights {
  l1: number;
  mse: number;
  kl: number;
  edges?: number | undefined;
}

/** Mean |∂e/∂x| + mean |∂e/∂y|: from pixel to pixel, so that an error's fine detail weighs as much as its broad one. */
const edgesOf = (error: Tensor): Tensor =>
  [-1, -2]
    .map((axis) =>
      error
        .slice(axis, 1)
        .sub(error.slice(axis, 0, -1))
        .abs()
        .mean(),
    )
    .reduce((sum, part) => sum.add(part));

/**
 * L = l1 mean|e| + mse mean e² + edges (mean|∂e/∂x| + mean|∂e/∂y|) + kl mean ½(μ² + σ² - 1 - log σ²), with z = μ + σ ε, e = x̂ - x.
 * @returns `made`: x̂
 * @param video [B,C,T,H,W] in [-1, 1]
 */
export function vaeLoss(net: Params, config: VAEConfig, weights: VaeWeights, video: Tensor, key: Tensor) {
  const { mean, logvar } = encode(net, config, video);
  const z = mean.add(logvar.mul(0.5).exp().mul(normal(key, mean.shape)));
  const made = decode(net, config, z);
  const error = made.sub(video);
  const mse = error.square().mean();
  const kl = mean.square().add(logvar.exp()).sub(1).sub(logvar).mul(0.5).mean();
  const loss = weighted(error.abs().mean(), weights.l1)
    .add(weighted(mse, weights.mse))
    .add(weighted(edgesOf(error), weights.edges ?? 0))
    .add(weighted(kl, weights.kl));
  return { loss, mse, kl, made };
}

/** `key` is u32[2]; `critic` weighs the critic's opinion, whose weights stand beside the VAE's then. */
interface VaeInputs<X = Tensor> extends Rates<X> {
  key: X;
  critic?: X;
}

/** One update of the VAE, and of its critic. */
export function vaeStep(config: VAEConfig, weights: VaeWeights, adam: AdamConfig) {
  return (s: Trained, video: Tensor, at: VaeInputs) => {
    const { loss, mse, kl, made } = vaeLoss(s.params, config, weights, video, at.key);
    const opinion = at.critic && criticised(s.params, made, video);
    const whole = opinion ? loss.add(opinion.deceived.mul(at.critic!)).add(opinion.seen) : loss;
    const { state, norm, skipped } = update(s, vjp(whole, constant(1), s.params), adam, at);
    return { ...state, metrics: { loss, mse, kl, ...(opinion && { gap: opinion.gap }), norm, skipped } };
  };
}

/** Running mean and deviation of each latent channel, in f64 on the host. */
export class LatentStatistics {
  private count = 0;
  private readonly sum: Float64Array;
  private readonly squares: Float64Array;

  constructor(channels: number) {
    this.sum = new Float64Array(channels);
    this.squares = new Float64Array(channels);
  }

  /** @param latents [B,C,F,H,W], flat */
  add(latents: ArrayLike<number>, shape: readonly number[]): void {
    const channels = this.sum.length;
    const inner = shape.slice(2).reduce((a, b) => a * b, 1);
    for (let i = 0; i < latents.length; i++) {
      const c = Math.floor(i / inner) % channels;
      this.sum[c]! += latents[i]!;
      this.squares[c]! += latents[i]! ** 2;
    }
    this.count += latents.length / channels;
  }

  result(): { mean: number[]; std: number[] } {
    const mean = Array.from(this.sum, (s) => s / this.count);
    const std = Array.from(this.squares, (s, c) => Math.sqrt(Math.max(s / this.count - mean[c]! ** 2, 1e-12)));
    return { mean, std };
  }
}

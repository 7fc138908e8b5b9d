/** First weights of a VAE from which it learns fine detail soon: a map of each cell by itself, nearly linear and nearly without noise. */
import type { VAEConfig } from '../config.ts';
import type { HostParams } from '../params.ts';
import { initVAE } from './vae.ts';

/** What another place than a convolution's own weighs beside PyTorch's default, and what the own place makes up for it. */
const [OTHERS, OWN] = [0.2, 1.7];
/** Log variance of the latent at the start: its noise hides nothing. */
const QUIET = -6;

/**
 * As `initVAE`, but a convolution looks mainly at its own place in the newest frame, a residual block adds nothing yet, and the latent's
 * noise is small. From PyTorch's defaults a VAE stays for thousands of updates at the mean of each cell: neighbours are mixed in before
 * they can be told apart, and a latent that is mostly noise is not worth a gradient.
 */
export function localVAE(config: VAEConfig, seed: number): HostParams {
  const params = initVAE(config, seed);
  for (const [name, { shape, data }] of Object.entries(params)) {
    const [kh = 1, kw = 1] = shape.slice(-2);
    const taps = shape.slice(2).reduce((a, b) => a * b, 1);
    if (/residual\.6\.(weight|bias)$/.test(name)) data.fill(0);
    else if (name === 'conv1.bias') data.fill(QUIET, config.z_dim);
    else if (name.endsWith('.weight') && taps > 1) {
      const own = taps - kh * kw + (kh >> 1) * kw + (kw >> 1);
      for (let i = 0; i < data.length; i++) data[i]! *= i % taps === own ? OWN * Math.sqrt(taps) : OTHERS;
    }
  }
  return params;
}

/**
 * The DiT's operands: f16 or f32, as asked for or as the adapter is fast in. Residuals, norms and all sums stay f32 either way.
 *
 * The text and image encoders and the VAE stay f32: they are a small part of the arithmetic, and the hidden layer of T5's feed-forward
 * passes 65504, where f16 ends (huggingface/transformers#5651).
 */
import type { HostTensor } from '../../engine/frontend/tree.ts';
import type { Caps } from '../../kernels/kernel.ts';

export const PRECISIONS = ['f32', 'f16'] as const;
export type Precision = (typeof PRECISIONS)[number];

/**
 * What was asked for, else f16 where the adapter has matrix units of its own that want
 * it (Apple's are as fast in f32), never on a CPU driver.
 * @throws where f16 is asked for and the adapter lacks it
 */
export function precisionOn({ tier, f16, units = [] }: Caps, asked?: Precision): Precision {
  if (asked === 'f16' && !f16) throw new Error('[precision] this adapter has no f16 (shader-f16): use f32');
  const wanted = units.some((u) => u.operands === 'f16' && !u.emulated);
  return asked ?? (f16 && tier !== 'scalar' && wanted ? 'f16' : 'f32');
}

/** @throws where a sampled latent holds infinities or NaN: an operand above 65504 is infinite in f16 */
export function checkFinite(
  { data }: HostTensor,
  { precision, prompt, outOfRange }: { precision: Precision; prompt: string; outOfRange?: string | undefined },
): void {
  const bad = (data as Float32Array).reduce((n, v) => n + Number(!Number.isFinite(v)), 0);
  if (!bad) return;
  const remedy =
    precision === 'f16'
      ? `values do not fit into f16${outOfRange ? `, first: ${outOfRange}` : ''}; use --precision f32`
      : 'check the weights and LoRAs';
  throw new Error(`[sample] ${bad} of ${data.length} numbers of the latent of "${prompt}" are not finite: ${remedy}`);
}

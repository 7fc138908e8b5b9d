/** Captions and first frames as the networks take them, and training batches out of the shards. */
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { numel } from '../../kernels/kernel.ts';
import { hasBeside, holdsFirst, readsImages, vaeStride, type DiTConfig, type VAEConfig } from '../../model/config.ts';
import { semanticLengths, type HeadConfig } from '../../model/heads.ts';
import { IMAGE_PATCH } from '../../model/imagetokens.ts';
import { embedderOf, type Language } from '../../model/text.ts';
import { ditTables, tokenGrid } from '../../model/wan/tables.ts';
import { FLARE_WORDS } from '../data/flare/outfits.ts';
import type { Batch as Records, Shards } from '../data/shards.ts';
import type { ClipShape } from '../data/frames.ts';
import type { Batch, Condition } from './networks.ts';
import { Stream } from '../loop/rng.ts';
import type { Course, Settings } from '../presets/index.ts';
import type { Numbers } from './stage.ts';

/** The numbers of a preset as the models' configs. */
export const vaeConfigOf = (p: Course): VAEConfig => ({
  ...p.vae,
  latent_mean: Array<number>(p.vae.z_dim).fill(0),
  latent_std: Array<number>(p.vae.z_dim).fill(1),
});

export const ditConfigOf = (p: Course): DiTConfig => ({
  ...p.dit,
  ...p.text,
  eps: 1e-6,
  in_dim: hasBeside(p.dit) ? 2 * p.vae.z_dim + vaeStride(vaeConfigOf(p))[0] : p.vae.z_dim,
  out_dim: p.vae.z_dim,
  clip_dim: p.dit.clip_dim ?? p.vae.channels * IMAGE_PATCH ** 2,
});

/** The discriminator's head on a network. @param latent [C, F, h, w] */
export function headOf({ head, taps }: Settings['equilibrium'], dit: DiTConfig, latent: readonly number[]): HeadConfig {
  const { kind, dim, head_dim, queries } = head;
  return {
    kind,
    dim,
    head_dim,
    taps: taps.length,
    queries: queries === 'one' ? 1 : taps.length,
    input_dim: dit.dim,
    clip_dim: readsImages(dit) ? dit.clip_dim : 0,
    text_dim: dit.text_dim,
    grid: tokenGrid(dit, latent),
    checkpoint: dit.checkpoint !== false,
  };
}

export const headConfigOf = (p: Course): HeadConfig => headOf(p.equilibrium, ditConfigOf(p), latentShape(p));

/** A preset's settings with the networks that they are for. */
export const numbersOf = (p: Course): Numbers => ({ ...p, config: ditConfigOf(p), head: headConfigOf(p) });

/** [channels, frames, height, width]. */
export function videoShape({ vae, data }: Course): ClipShape {
  const { width, height } = data.set === 'videos' ? data : { width: data.size, height: data.size };
  return [vae.channels, data.frames, height, width];
}

/** What its captions are made of. */
export const languageOf = ({ data: { set } }: Course): Language =>
  set === 'emoji' ? 'any' : set === 'flare' ? FLARE_WORDS : 'digits';

/** [C, F, h, w] of its latent. */
export function latentShape(p: Course): ClipShape {
  const [time, down, across] = vaeStride(vaeConfigOf(p));
  const [, frames, height, width] = videoShape(p);
  return [p.vae.z_dim, 1 + (frames - 1) / time, height / down, width / across];
}

export interface Conditioner {
  /**
   * Text-to-video leaves frame and latent out.
   * @param frame [B,channels,height,width]
   * @param latent [B,C,F,h,w] of (first frame, zero frames), normalised
   */
  condition: (captions: readonly string[], frame?: HostTensor, latent?: HostTensor) => Condition<HostTensor>;
  /** Records as the networks take them. */
  told: (records: Records) => Batch<HostTensor>;
  batch: (shards: Shards, seed: number, step: number, size: number, role: string) => Batch<HostTensor>;
}

/** Makes conditions for the networks of a preset. */
export function conditioner(p: Course): Conditioner {
  const dit = ditConfigOf(p);
  const embed = embedderOf(languageOf(p), p.text.text_dim, p.text.text_len);
  const tables = ditTables(dit, [tokenGrid(dit, latentShape(p))]);
  const [image, beside, holds] = [readsImages(dit), hasBeside(dit), holdsFirst(dit)];
  const [, , height, width] = videoShape(p);
  const imageTokens = image ? (height / IMAGE_PATCH) * (width / IMAGE_PATCH) : 0;
  /** What is told of the given frames by latents of clips, all of which have them. */
  const given = (latent: HostTensor | undefined): Pick<Condition<HostTensor>, 'latent' | 'first' | 'held'> =>
    latent && holds
      ? { first: firstOf(latent), held: host(new Float32Array(latent.shape[0]!).fill(1), [latent.shape[0]!]) }
      : beside && latent
        ? { latent }
        : {};
  const condition: Conditioner['condition'] = (captions, frame, latent) => {
    const { context, lengths } = embed(captions);
    return {
      text: context,
      lengths: semanticLengths(headConfigOf(p), imageTokens, lengths),
      ...(image && { frame }),
      ...given(latent),
      tables,
    };
  };
  const told: Conditioner['told'] = ({ latent, imageLatent, firstFrame, captions, embedded }) => {
    const seen = holds ? latent : imageLatent;
    if (!embedded) return { x0: latent, c: condition(captions, firstFrame, seen) };
    const { text, lengths, imageTokens: tokens } = embedded;
    return {
      x0: latent,
      c: {
        text,
        lengths: semanticLengths(headConfigOf(p), tokens?.shape[1] ?? 0, lengths),
        ...(tokens && { pictures: tokens }),
        ...given(seen),
        tables,
      },
    };
  };
  const batch: Conditioner['batch'] = (shards, seed, step, size, role) => {
    const { x0, c } = told(shards.batch(seed, step, size, role));
    if (!c.held) return { x0, c };
    const coin = new Stream(seed, step, `${role}.held`);
    const held = Float32Array.from({ length: size }, () => Number(coin.uniform() < HELD));
    return { x0, c: { ...c, held: host(held, [size]) } };
  };
  return { condition, told, batch };
}

/** Of the clips that a network for text and image is trained on, those whose first frame it is given (METHOD §1.19). */
const HELD = 0.5;

/** The first frame of [B,C,F,h,w]. */
function firstOf({ data, shape }: HostTensor): HostTensor {
  const [clips, channels, frames, height, width] = shape as [number, number, number, number, number];
  const plane = height * width;
  const out = new Float32Array(clips * channels * plane);
  for (let i = 0; i < clips * channels; i++)
    out.set((data as Float32Array).subarray(i * frames * plane, (i * frames + 1) * plane), i * plane);
  return host(out, [clips, channels, 1, height, width]);
}

/** Rows of equal shape as one batch [B, ...shape]. */
export function stackRows(rows: readonly Float32Array[], shape: readonly number[]): HostTensor {
  const size = numel(shape);
  const data = new Float32Array(rows.length * size);
  rows.forEach((row, i) => data.set(row, i * size));
  return host(data, [rows.length, ...shape]);
}

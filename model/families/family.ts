/** What a family of video models is beside its networks: how its folders look, and what is usual for its clips. */
import type { DiTConfig, VAEConfig } from '../config.ts';
import type { Sampling } from '../pipeline/diffuse.ts';
import type { Size } from '../pipeline/size.ts';

/** A released checkpoint: the numbers of its config.json, and the size that it was trained for, in pixels. */
export interface Release extends Size {
  readonly dit: DiTConfig;
}

export interface Family {
  /** As one calls it: `Wan2.1`. */
  readonly title: string;
  readonly released: Readonly<Record<string, Release>>;
  /** Of all its releases. */
  readonly vae: VAEConfig;
  /** How the names of its VAE's file begin: in the family's own releases, and as ComfyUI packs it. */
  readonly vaeFiles: readonly string[];
  /** Two networks, each for a range of noise: their folders in the family's own layout, that for high noise first. */
  readonly experts?: {
    readonly folders: readonly [string, string];
    /** The low-noise one answers below this share of the 1000 timesteps. */
    boundary(dit: DiTConfig): number;
  };
  /** Whether such a network, with another beside it or alone, is one of the family's. */
  owns(dit: DiTConfig, two: boolean): boolean;
  readonly fps: number;
  readonly frames: number;
  readonly size: Size;
  /** What guidance leads away from unless something is given. */
  negative(dit: DiTConfig): string;
  /** As its generate script samples; without the low-noise expert's boundary and the folder's own shift. */
  sampling(dit: DiTConfig, size: Size): Omit<Sampling, 'low'> & { lowGuidance?: number };
  /** The size of `area`'s area in the form of `image`, in multiples of `step`. */
  readonly sizeLike: (image: Size, area: Size, step: Size) => Size;
  /** How a first frame of another form becomes the clip's. */
  readonly fit: 'squash' | 'cover';
}

/**
 * The negative prompt of Wan's own configs (wan/configs/shared_config.py of Wan2.1 and Wan2.2, Apache-2.0): what Wan was tuned to avoid.
 */
export const NEGATIVE =
  '色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，丑陋的，残缺的，多余的手指，' +
  '画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走';

/** Numbers that all of Wan's transformers share. */
export const SHARED = { patch_size: [1, 2, 2], text_len: 512, text_dim: 4096, freq_dim: 256 };
export const LARGE = { dim: 5120, ffn_dim: 13824, num_heads: 40, num_layers: 40 };

const floor = (length: number, by: number): number => Math.max(1, Math.floor(length / by)) * by;

/** Each edge rounded down by itself. */
export const eachDown: Family['sizeLike'] = (image, { width, height }, step) => ({
  height: floor(Math.sqrt((width * height * image.height) / image.width), step.height),
  width: floor(Math.sqrt((width * height * image.width) / image.height), step.width),
});

/** One edge rounded down and the other from it, or the other way round: whichever form is nearer, the latter where both are. */
export const nearest: Family['sizeLike'] = (image, { width, height }, step) => {
  const [area, form] = [width * height, image.width / image.height];
  const across = Math.sqrt(area * form);
  const byWidth = { width: floor(across, step.width), height: floor(area / floor(across, step.width), step.height) };
  const down = floor(area / across, step.height);
  const byHeight = { width: floor(area / down, step.width), height: down };
  const off = (s: Size): number => Math.max(form / (s.width / s.height), s.width / s.height / form);
  return off(byWidth) < off(byHeight) ? byWidth : byHeight;
};

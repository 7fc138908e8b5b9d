/** Which sizes of a clip a model can make, and how its first frame's form becomes one of them. */
import { givenFrames, vaeStride, type DiTConfig, type VAEConfig } from '../config.ts';

/** Pixels. */
export interface Size {
  readonly width: number;
  readonly height: number;
}

/** Height and width must be multiples of these: 16 x 16 for Wan. */
function steps(dit: DiTConfig, vae: VAEConfig): Size {
  const [, strideH, strideW] = vaeStride(vae);
  return { width: strideW * dit.patch_size[2], height: strideH * dit.patch_size[1] };
}

/** `832x480`, or `832*480` as Wan's script has it. @throws one line */
export function parseSize(text: string): Size {
  const [, width, height] = /^(\d+)[x*](\d+)$/.exec(text) ?? [];
  if (!width || !height) throw new Error(`[size] must be WIDTHxHEIGHT, as 832x480, got "${text}"`);
  return { width: Number(width), height: Number(height) };
}

/** @throws one line when a model cannot make clips of this size */
export function checkClip(dit: DiTConfig, vae: VAEConfig, { width, height }: Size, frames: number): void {
  const step = steps(dit, vae);
  const [time] = vaeStride(vae);
  if (!width || !height || width % step.width || height % step.height) {
    const near = (n: number, by: number) => Math.max(1, Math.round(n / by)) * by;
    throw new Error(
      `[size] ${width}x${height}: width must be a multiple of ${step.width} and height of ${step.height}; the nearest is ${near(width, step.width)}x${near(height, step.height)}`,
    );
  }
  if (!Number.isInteger(frames) || frames < 1 || (frames - 1) % time) {
    const below = Math.max(0, Math.floor((frames - 1) / time) || 0) * time + 1;
    throw new Error(
      `[size] frames must be 1 more than a multiple of ${time}, as ${below} or ${below + time}, got ${frames}`,
    );
  }
  if (frames < givenFrames(dit))
    throw new Error(
      `[size] between a first and a last frame there must be others: frames must be ${1 + time} or more, got ${frames}`,
    );
}

/** The size that keeps the area of `size` and the form of `image`, rounded down to what the model can make: Wan's rule for image-to-video. */
export function sizeLike(dit: DiTConfig, vae: VAEConfig, image: Size, size: Size): Size {
  const step = steps(dit, vae);
  const area = size.width * size.height;
  const fit = (length: number, by: number) => Math.max(1, Math.floor(length / by)) * by;
  return {
    height: fit(Math.sqrt((area * image.height) / image.width), step.height),
    width: fit(Math.sqrt((area * image.width) / image.height), step.width),
  };
}

/** [C, F, h, w] of the latent of a clip. */
export function latentShape(
  vae: VAEConfig,
  { width, height }: Size,
  frames: number,
): readonly [number, number, number, number] {
  const [time, strideH, strideW] = vaeStride(vae);
  return [vae.z_dim, 1 + (frames - 1) / time, height / strideH, width / strideW];
}

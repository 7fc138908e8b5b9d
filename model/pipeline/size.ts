/** Which sizes of a clip a model can make, and how its first frame's form becomes one of them. */
import { eachDown } from '../families/family.ts';
import { givenFrames, vaeStride, type DiTConfig, type VAEConfig } from '../config.ts';

/** Pixels. */
export interface Size {
  readonly width: number;
  readonly height: number;
}

/** Height and width must be multiples of these: 16 x 16 for most of Wan's, 32 x 32 for TI2V. */
function steps(dit: DiTConfig, vae: VAEConfig): Size {
  const [, strideH, strideW] = vaeStride(vae);
  return { width: strideW * dit.patch_size[2], height: strideH * dit.patch_size[1] };
}

const [EDGE, FRAMES, TOKENS] = [16_384, 16_385, 2 ** 18];

/** What is beyond every model and machine, before anything is planned. @param tokens of the clip's latent @throws one line */
export function checkExtent({ width, height }: Size, frames: number, tokens: number): void {
  const asked = `${width}x${height}, ${frames} frames`;
  if (Math.max(width, height) > EDGE) throw new Error(`[size] ${asked}: width and height are at most ${EDGE}`);
  if (frames > FRAMES) throw new Error(`[size] ${asked}: frames are at most ${FRAMES}`);
  if (tokens > TOKENS)
    throw new Error(
      `[size] ${asked} are ${tokens} tokens, at most ${TOKENS} are meant (832x480, 81 frames are 32760): a smaller size or fewer frames`,
    );
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
  const [, f, h, w] = latentShape(vae, { width, height }, frames);
  checkExtent({ width, height }, frames, (f * h * w) / dit.patch_size.reduce((a, b) => a * b, 1));
  if (frames < givenFrames(dit))
    throw new Error(
      `[size] between a first and a last frame there must be others: frames must be ${1 + time} or more, got ${frames}`,
    );
}

/**
 * The size of `area`'s area and the form of `image` that the model can make, by its
 * family's rule: each edge rounded down unless it has one.
 */
export const sizeLike = (
  { dit, vae, sizeLike: rule = eachDown }: { dit: DiTConfig; vae: VAEConfig; sizeLike?: typeof eachDown | undefined },
  image: Size,
  area: Size,
): Size => rule(image, area, steps(dit, vae));

/** [C, F, h, w] of the latent of a clip. */
export function latentShape(
  vae: VAEConfig,
  { width, height }: Size,
  frames: number,
): readonly [number, number, number, number] {
  const [time, strideH, strideW] = vaeStride(vae);
  return [vae.z_dim, 1 + (frames - 1) / time, height / strideH, width / strideW];
}

/**
 * Measures on pixels: PSNR, flicker, motion energy, drift of colour and brightness. A clip is [channels, frames, height, width] in [-1, 1].
 */

/** Extents of a clip: [channels, frames, height, width]. */
export type ClipShape = readonly [number, number, number, number];

/** Frame t of a clip, [channels, height, width]. */
export function frameOf(video: Float32Array, [channels, frames, height, width]: ClipShape, t: number): Float32Array {
  const plane = height * width;
  const out = new Float32Array(channels * plane);
  for (let c = 0; c < channels; c++)
    out.set(video.subarray((c * frames + t) * plane, (c * frames + t + 1) * plane), c * plane);
  return out;
}

const CEILING = 100; // dB; stands for equal frames, so that means over clips stay finite

/** Peak signal-to-noise ratio in dB for a data range of 2, at most 100. */
export function psnr(a: Float32Array, b: Float32Array): number {
  if (a.length !== b.length) throw new Error(`[psnr] sizes differ: ${a.length} and ${b.length}`);
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i]! - b[i]!) ** 2;
  return Math.min(CEILING, 10 * Math.log10((4 * a.length) / sum));
}

/** PSNR of the generated frame 0 to the frame it was conditioned on, dB. */
export const firstFramePsnr = (video: Float32Array, shape: ClipShape, condition: Float32Array): number =>
  psnr(frameOf(video, shape, 0), condition);

/** Mean absolute difference of consecutive frames, in units of the [-1, 1] range: what moves or flickers, and how strongly. */
export function motionEnergy(video: Float32Array, [channels, frames, height, width]: ClipShape): number {
  const plane = height * width;
  let sum = 0;
  for (let c = 0; c < channels; c++) {
    for (let i = c * frames * plane; i < ((c + 1) * frames - 1) * plane; i++)
      sum += Math.abs(video[i + plane]! - video[i]!);
  }
  return sum / (channels * (frames - 1) * plane);
}

/** VBench's temporal flickering, (255 - mean |difference of consecutive frames|) / 255 on 0…255 values: 1 is perfectly still. */
export const flicker = (video: Float32Array, shape: ClipShape): number => 1 - motionEnergy(video, shape) / 2;

/**
 * How far colour and brightness wander from frame 0. `mean`: mean over channels and later frames of |channel mean - that of frame 0|,
 * in units of the [-1, 1] range. `contrast`: mean ratio of a later frame's standard deviation to frame 0's.
 */
export function drift(
  video: Float32Array,
  [channels, frames, height, width]: ClipShape,
): { mean: number; contrast: number } {
  const plane = height * width;
  const moments = (c: number, t: number): [number, number] => {
    let sum = 0;
    let squares = 0;
    for (let i = (c * frames + t) * plane, end = i + plane; i < end; i++) {
      sum += video[i]!;
      squares += video[i]! ** 2;
    }
    const mean = sum / plane;
    return [mean, Math.sqrt(Math.max(0, squares / plane - mean * mean))];
  };
  let mean = 0;
  let contrast = 0;
  for (let c = 0; c < channels; c++) {
    const [first, spread] = moments(c, 0);
    for (let t = 1; t < frames; t++) {
      const [m, s] = moments(c, t);
      mean += Math.abs(m - first);
      contrast += s / Math.max(spread, 1e-6);
    }
  }
  const n = channels * (frames - 1);
  return { mean: mean / n, contrast: contrast / n };
}

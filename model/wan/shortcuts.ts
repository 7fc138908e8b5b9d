/** What Wan2.2's VAE does without weights: pixels as channels, and the shortcuts past its stages. Reference: wan/modules/vae2_2.py. */
import type { Tensor } from '../../engine/frontend/tensor.ts';

type Five = [number, number, number, number, number];

/** How a shortcut changes its input: to so many channels, and by 1 or 2 in time and in height and width. */
export interface Shortcut {
  readonly outputs: number;
  readonly time: number;
  readonly space: number;
}

/** [B,C,T,H,W] → [B, C·size·size, T, H/size, W/size]; the channels run (channel, column, row). */
export function fold(x: Tensor, size: number): Tensor {
  if (size === 1) return x;
  const [b, c, t, h, w] = x.shape as Five;
  return x
    .reshape([b, c, t, h / size, size, w / size, size])
    .permute([0, 1, 6, 4, 2, 3, 5])
    .reshape([b, c * size * size, t, h / size, w / size]);
}

/** The inverse of `fold`. */
export function unfold(x: Tensor, size: number): Tensor {
  if (size === 1) return x;
  const [b, c, t, h, w] = x.shape as Five;
  return x
    .reshape([b, c / (size * size), size, size, t, h, w])
    .permute([0, 1, 4, 5, 3, 6, 2])
    .reshape([b, c / (size * size), t, h * size, w * size]);
}

/**
 * Cells of (time, space, space) become channels, (channel, frame, row, column), and runs of these their means. Frames that a clip's
 * first cell lacks are zeros in front.
 */
export function shrink(x: Tensor, { outputs, time, space }: Shortcut): Tensor {
  const lacks = (time - (x.shape[2]! % time)) % time;
  const whole = lacks ? x.pad([0, 0, lacks, 0, 0], [0, 0, 0, 0, 0]) : x;
  const [b, c, t, h, w] = whole.shape as Five;
  return whole
    .reshape([b, c, t / time, time, h / space, space, w / space, space])
    .permute([0, 1, 3, 5, 7, 2, 4, 6])
    .reshape([b, outputs, -1, t / time, h / space, w / space])
    .mean([2]);
}

/**
 * Channels, each as often as it takes, become cells of (time, space, space).
 * @param first the clip begins here: its first cell is one frame
 */
export function repeat(x: Tensor, { outputs, time, space }: Shortcut, first: boolean): Tensor {
  const [b, c, t, h, w] = x.shape as Five;
  const times = (outputs * time * space * space) / c;
  const grown = x
    .unsqueeze(2)
    .expand([b, c, times, t, h, w])
    .reshape([b, outputs, time, space, space, t, h, w])
    .permute([0, 1, 5, 2, 6, 3, 7, 4])
    .reshape([b, outputs, t * time, h * space, w * space]);
  return first && time > 1 ? grown.slice(2, time - 1) : grown;
}

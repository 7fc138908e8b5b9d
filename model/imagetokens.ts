/** The first frame as a row of patches, in CLIP's place. */
import { fail, printShapes } from '../engine/host/errors.ts';
import type { Tensor } from '../engine/frontend/tensor.ts';

export const IMAGE_PATCH = 8;

/** frame [B,C,H,W] → [B, (H/8)(W/8), 64 C], row by row, each patch flattened as (c, y, x). */
export function imageTokens(frame: Tensor): Tensor {
  const [b, c, h, w] = frame.shape as [number, number, number, number];
  if (h % IMAGE_PATCH || w % IMAGE_PATCH)
    fail('imageTokens', `height and width must be multiples of ${IMAGE_PATCH}, got ${printShapes(frame.shape)}`);
  const rows = h / IMAGE_PATCH,
    columns = w / IMAGE_PATCH;
  return frame
    .reshape([b, c, rows, IMAGE_PATCH, columns, IMAGE_PATCH])
    .permute([0, 2, 4, 1, 3, 5])
    .reshape([b, rows * columns, c * IMAGE_PATCH ** 2]);
}

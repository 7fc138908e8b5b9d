/** Latents to rows of patches and back. */
import type { Triple } from '../../engine/frontend/graph.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';

/** [B,C,F,H,W] → [B, tokens, C·pt·ph·pw], each patch flattened as (c, pt, ph, pw): the order of the patch embedding's weight. */
export function patchify(x: Tensor, [pt, ph, pw]: Triple): Tensor {
  const [b, c, f, h, w] = x.shape as [number, number, number, number, number];
  return x
    .reshape([b, c, f / pt, pt, h / ph, ph, w / pw, pw])
    .permute([0, 2, 4, 6, 1, 3, 5, 7])
    .reshape([b, (f / pt) * (h / ph) * (w / pw), c * pt * ph * pw]);
}

/** [B, tokens, pt·ph·pw·C], each patch flattened as (pt, ph, pw, c), the order of the head → [B,C,F,H,W]. */
export function unpatchify(x: Tensor, [f, h, w]: Triple, [pt, ph, pw]: Triple): Tensor {
  const b = x.shape[0]!;
  const c = x.shape[2]! / (pt * ph * pw);
  return x
    .reshape([b, f, h, w, pt, ph, pw, c])
    .permute([0, 7, 1, 4, 2, 5, 3, 6])
    .reshape([b, c, f * pt, h * ph, w * pw]);
}

/** PyTorch's image resizing as two matrix products, so that its gradient is theirs. */
import * as F from '../../engine/functional.ts';
import type { Tensor } from '../../engine/tensor.ts';
import type { Attrs } from './format.ts';

/** Cubic convolution at distance `d`, |d| ≤ 2 (Keys 1981). */
function cubic(d: Tensor, a: number): Tensor {
  const near = d.mul(a + 2).sub(a + 3).mul(d).mul(d).add(1);
  const far = d.mul(a).sub(5 * a).mul(d).add(8 * a).mul(d).sub(4 * a);
  return F.where(d.le(1), near, far);
}

/** Weight of each source [out, in] for each result, without antialias and with align_corners off. */
function weights(from: number, to: number, { mode, a }: Attrs): Tensor {
  const source = F.iota([to, from], 1);
  const center = F.iota([to, from], 0).add(0.5).mul(from / to);
  if (mode === 'nearest-exact') return source.eq(center.floor());
  const at = center.sub(0.5);
  if (mode === 'bilinear') return F.relu(F.clamp(at, 0, from - 1).sub(source).abs().neg().add(1));
  const first = at.floor();
  return [-1, 0, 1, 2]
    .map((tap) => cubic(at.sub(first.add(tap)).abs(), a).mul(source.eq(F.clamp(first.add(tap), 0, from - 1))))
    .reduce((sum, w) => sum.add(w));
}

/** x [N,C,H,W] to `size` [H', W'], or `scale` times its size; modes nearest-exact, bilinear, bicubic. */
export function resample(x: Tensor, attrs: Attrs): Tensor {
  const [h, w] = x.shape.slice(2) as [number, number];
  const [toH, toW] = attrs['size'] ?? [h * attrs['scale'][0], w * attrs['scale'][1]];
  const wide = x.matmul(weights(w, toW, attrs), { transB: true });
  return wide.transpose().matmul(weights(h, toH, attrs), { transB: true }).transpose();
}

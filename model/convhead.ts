/** The convolutional discriminator head: FastGen's plainest for video DiTs, which the paper's ablation finds the weakest (METHOD §1.8). */
import { conv3d, groupNorm } from '../engine/frontend/functional.ts';
import { fail } from '../engine/host/errors.ts';
import type { Tensor } from '../engine/frontend/tensor.ts';
import type { HeadConfig } from './heads.ts';
import { kaiming, linearSpecs, normal, normSpecs, under, type Scope, type Specs } from './params.ts';

const KERNEL = [2, 4, 4] as const;
const STRIDE = [2, 2, 2] as const;
const GROUPS = 8;
const SLOPE = 0.2;

export function convHeadSpecs(c: HeadConfig): Specs {
  if (c.dim % GROUPS) fail('head', `a conv head's dim ${c.dim} must be a multiple of ${GROUPS}`);
  if (c.grid.some((n, i) => n < KERNEL[i]!))
    fail('head', `a conv head needs a grid of ${KERNEL.join('x')} tokens or more, got ${c.grid.join('x')}`);
  const fanIn = c.dim * KERNEL.reduce((a, b) => a * b, 1);
  const tap: Specs = {
    ...under('norm', normSpecs(c.input_dim)),
    ...under('proj', linearSpecs(c.input_dim, c.dim)),
    'conv.weight': { shape: [c.dim, c.dim, ...KERNEL], init: kaiming(fanIn) },
    'conv.bias': { shape: [c.dim], init: kaiming(fanIn) },
    ...under('group_norm', normSpecs(c.dim)),
    ...under('logit', linearSpecs(c.dim, 1, normal(0.02))),
  };
  return Object.assign({}, ...Array.from({ length: c.taps }, (_, l) => under(`taps.${l}`, tap))) as Specs;
}

/** taps [B, N, input_dim] → logits [B]: the mean over places and taps. */
export function convHead(s: Scope, c: HeadConfig, taps: readonly Tensor[]): Tensor {
  const logits = taps.map((tokens, l) => {
    const tap = s.scope('taps').scope(l);
    const h = tap.linear('proj', tap.layerNorm('norm', tokens, 1e-6));
    const video = h.reshape([h.shape[0]!, ...c.grid, c.dim]).permute([0, 4, 1, 2, 3]);
    const y = groupNorm(
      conv3d(video, tap.get('conv.weight'), tap.get('conv.bias'), { stride: STRIDE }),
      GROUPS,
      tap.get('group_norm.weight'),
      tap.get('group_norm.bias'),
    );
    const leaky = y.max(y.mul(SLOPE));
    // A 1x1 convolution and the mean over places commute.
    return tap.linear('logit', leaky.mean([2, 3, 4])).reshape([-1]);
  });
  return logits.reduce((a, b) => a.add(b)).div(taps.length);
}

/** The reference's losses and optimizer sequences as functions over our tensors. */
import * as F from '../../engine/frontend/functional.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import type { Attrs } from './format.ts';
import { Skip } from './executor.ts';
import { along, type GoldenOp, type Named } from './optable.ts';

type Pointwise = (d: Tensor, attrs: Attrs) => Tensor;
/** The reference's `reduction`, the mean unless given. */
function summarised(each: Tensor, { reduction = 'mean' }: Attrs): Tensor {
  if (!['none', 'sum', 'mean'].includes(reduction)) throw new Skip(`the reduction ${reduction}`);
  return reduction === 'none' ? each : reduction === 'sum' ? each.sum() : each.mean();
}
const reduced =
  (f: Pointwise): GoldenOp =>
  ({ p, t }, attrs) =>
    summarised(f(p!.sub(t!), attrs), attrs);
const huber: Pointwise = (d, { delta }) =>
  F.where(
    d.abs().le(delta),
    d.square().mul(0.5),
    d
      .abs()
      .sub(0.5 * delta)
      .mul(delta),
  );

/** Values of w, m, v after each step, as `w0_step1`, …, `m0`, `v0`. With beta1 = 0 the first moment is the last gradient. */
function adamW(t: Named, { lr, weight_decay: weightDecay, beta1, beta2, eps, steps }: Attrs): Named {
  const out: Named = {};
  for (let i = 0; t[`w${i}`]; i++) {
    let p = t[`w${i}`]!,
      m = F.zeros(p.shape),
      v = F.zeros(p.shape);
    for (let step = 1; step <= steps; step++) {
      const grad = t[`grad${i}_step${step}`];
      if (!grad) throw new Skip(`adamw has no gradient of w${i} at step ${step} of ${steps}`);
      const next = F.adamW(
        p,
        grad,
        { m, v },
        { lr: F.constant(lr), beta1, beta2, eps, weightDecay, step: F.constant(step) },
      );
      [p, m, v] = [next.p, next.m ?? grad, next.v];
      out[`w${i}_step${step}`] = p;
    }
    out[`m${i}`] = m;
    out[`v${i}`] = v;
  }
  return out;
}

function ema(t: Named, { decay, steps }: Attrs): Named {
  const out: Named = {};
  let average = t['ema0']!;
  for (let step = 1; step <= steps; step++) out[`ema${step}`] = average = F.ema(average, t[`w${step}`]!, decay);
  return out;
}

function clip(t: Named, { max_norm: max }: Attrs): Named {
  const { grads, norm } = F.clipByGlobalNorm(t, max);
  return { ...grads, total_norm: norm };
}

export const LOSSES: Record<string, GoldenOp> = {
  loss_mse: reduced((d) => d.square()),
  loss_l1: reduced((d) => d.abs()),
  loss_huber: reduced(huber),
  loss_smooth_l1: reduced((d, { beta }) => huber(d, { delta: beta }).div(beta)),
  loss_pseudo_huber: reduced((d, { c }) =>
    d
      .square()
      .add(c * c)
      .sqrt()
      .sub(c),
  ),
  loss_hinge_d: ({ real, fake }) =>
    F.relu(real!.neg().add(1))
      .mean()
      .add(F.relu(fake!.add(1)).mean()),
  loss_hinge_g: ({ fake }) => fake!.mean().neg(),
  loss_gan_softplus_d: ({ real, fake }) => F.softplus(real!.neg()).mean().add(F.softplus(fake!).mean()),
  loss_gan_softplus_g: ({ fake }) => F.softplus(fake!.neg()).mean(),
  loss_cross_entropy: ({ logits, t }, attrs) => {
    const chosen = F.iota(logits!.shape, 1).eq(t!.cast('f32').unsqueeze(1));
    return summarised(
      along(logits!, 1, (x) => x.logSoftmax())
        .mul(chosen)
        .sum([1])
        .neg(),
      attrs,
    );
  },
  adamw: adamW,
  ema,
  clip_grad_norm: clip,
};

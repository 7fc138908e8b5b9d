/** MeanFlow in float64: the derivative along the flow, a flow whose average is known, and the gradient. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { vjp } from '../../engine/frontend/autodiff.ts';
import { constant, normal } from '../../engine/frontend/functional.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import type { HostParams } from '../../model/params.ts';
import { noise, T } from '../../train/methods/flow.ts';
import { alongFlow, meanFlowLoss, type MeanFlowConfig } from '../../train/methods/meanflow.ts';
import { guidedVelocity, velocity } from '../../train/methods/networks.ts';
import { key } from '../../train/loop/rng.ts';
import { batch, directional, dit, draw, latent, onHost, preset, weights } from './onhost.ts';

const scalar = (x: number) => host([x], []);
const p: MeanFlowConfig = { dit, student: preset.student, guidance: 2, floor: 1e-3 };

/** σ of two samples with sinusoids in float64, or their derivatives by σ. */
const sinusoids = (sigmas: readonly number[], slope = false): HostTensor => {
  const half = dit.freq_dim / 2;
  const row = (sigma: number): number[] => {
    const rates = Array.from({ length: half }, (_, i) => T * 10000 ** (-i / half));
    const [cos, sin] = [rates.map((r) => Math.cos(r * sigma)), rates.map((r) => Math.sin(r * sigma))];
    return slope ? [...sin.map((s, i) => -s * rates[i]!), ...cos.map((c, i) => c * rates[i]!)] : [...cos, ...sin];
  };
  return host(Float64Array.from(sigmas.flatMap(row)), [sigmas.length, dit.freq_dim]);
};
const timesOf = (sigmas: readonly number[]) => ({
  sigma: host(Float64Array.from(sigmas), [sigmas.length]),
  emb: sinusoids(sigmas),
});
const SIGMAS = [0.4, 0.9];
const inputs = (step: number, sigmas = SIGMAS) => ({
  key: key(1, 0, 'meanflow'),
  t: timesOf(sigmas),
  above: timesOf(sigmas.map((s) => Math.min(1, s + step))),
  below: timesOf(sigmas.map((s) => s - step)),
  lr: scalar(1),
  count: scalar(1),
});

test('the difference is the derivative along the flow: ∂u/∂x v + ∂u/∂σ, by the vector-Jacobian product', () => {
  const [x, v, w] = [draw(latent, 'x'), draw(latent, 'v'), draw(latent, 'w')];
  const slope = sinusoids(SIGMAS, true);
  const [difference, exact] = onHost(
    [weights(1), batch(), inputs(1e-5), x, v, w, slope],
    (net, b, at, xs, vs, ws, d) => {
      const u = velocity(net, dit, xs, at.t, b.c);
      const g = vjp(u, ws, { x: xs, emb: at.t.emb });
      return [
        alongFlow((z, t) => velocity(net, dit, z, t, b.c), at, xs, vs)
          .mul(ws)
          .sum(),
        g.x.mul(vs).sum().add(g.emb.mul(d).sum()),
      ];
    },
  );
  assert.ok(Math.abs(difference!.data[0]! / exact!.data[0]! - 1) < 1e-4, `${difference!.data[0]} ${exact!.data[0]}`);
});

/** A network that says the same velocity everywhere. */
const flat = (level: number): HostParams =>
  Object.fromEntries(
    Object.entries(weights(2)).map(([name, t]) =>
      name.startsWith('head.head')
        ? [
            name,
            host(
              t.data.map(() => (name.endsWith('bias') ? level : 0)),
              t.shape,
            ),
          ]
        : [name, t],
    ),
  );

test('of a flow of one velocity the average is that velocity, at the ends too; another is wrong by the square of what it is off', () => {
  for (const sigmas of [SIGMAS, [1, 1]]) {
    const of = (level: number) =>
      onHost([flat(0.5), flat(level), batch(), inputs(1e-3, sigmas)], (real, own, b, at) =>
        meanFlowLoss(p, real, own, b, at),
      );
    assert.is(of(0.5).error.data[0], 0);
    const { loss, error, derivative } = of(0.8);
    assert.ok(Math.abs(error.data[0]! - 0.09) < 1e-6 && derivative.data[0] === 0);
    assert.ok(Math.abs(loss.data[0]! - 0.09 / (0.09 + p.floor)) < 1e-5);
  }
});

test('a step descends the weighted square error of a fixed target: finite differences along a direction', () => {
  const at = inputs(1e-3);
  const [real, own] = [weights(3), weights(4)];
  const { loss, grads } = onHost([real, own, batch(), at], (teacher, net, b, a) => {
    const l = meanFlowLoss(p, teacher, net, b, a).loss;
    return { loss: l, grads: vjp(l, constant(1), net) };
  });
  assert.ok(loss.data[0]! > 0 && loss.data[0]! < 1);
  const { x, target, weight } = onHost([real, own, batch(), at], (teacher, net, b, a) => {
    const xt = noise(b.x0, normal(a.key, b.x0.shape), a.t.sigma);
    const v = guidedVelocity(teacher, dit, xt, a.t, { c: b.c, guidance: p.guidance });
    const fixed = v.sub(
      alongFlow((z, t) => velocity(net, dit, z, t, b.c), a, xt, v).mul(a.t.sigma.reshape([2, 1, 1, 1, 1])),
    );
    const error = velocity(net, dit, xt, a.t, b.c).sub(fixed).square().mean([1, 2, 3, 4], true);
    return { x: xt, target: fixed, weight: error.add(p.floor) };
  });
  const { slope, along } = directional(
    own,
    grads as Record<string, HostTensor>,
    (moved) =>
      onHost([moved, batch(), at, x, target, weight], (net, b, a, xt, fixed, w) =>
        velocity(net, dit, xt, a.t, b.c).sub(fixed).square().mean([1, 2, 3, 4], true).div(w).mean(),
      ).data[0]!,
  );
  assert.ok(Math.abs(slope / along - 1) < 1e-4, `${slope} ${along}`);
});

test.run();

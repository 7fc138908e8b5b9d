/** Phase II against closed forms: STR1, hinge, C-SDS, and the two gradients that meet at x0. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { vjp } from '../../engine/autodiff.ts';
import { constant, mse, normal, stopGradient } from '../../engine/functional.ts';
import { host } from '../../engine/tree.ts';
import { head, initHead } from '../../model/heads.ts';
import { headConfigOf } from '../../train/conditions.ts';
import { csdsGradient, generatorGradients, hinge, perturbation, str1Loss, type EquilibriumConfig } from '../../train/equilibrium.ts';
import { noise, toX0 } from '../../train/flow.ts';
import { features, guidedX0, pictures, predictX0, timeAt } from '../../train/networks.ts';
import { key } from '../../train/rng.ts';
import { batch, close, dit, draw, latent, onHost, preset, weights } from './onhost.ts';

/** E (w · e)² of the perturbation, as STR1 of the linear D(x) = w · x measures it over `samples` perturbations. */
function str1OfLinear(spatial: number, temporal: number, samples = 6000): { measured: number; w: Float32Array; shape: number[] } {
  const shape = [samples, 2, 2, 2, 3];
  const w = draw([1, ...shape.slice(1)], 'linear');
  const p = { weight: 1, spatial, temporal, on: 'both' as const };
  const measured = onHost([w, key(1, 0, 'str1')], (weight, k) => {
    const e = perturbation(k, shape, p);
    const D = (x: typeof e) => x.mul(weight).sum([1, 2, 3, 4]);
    return str1Loss(D(e), D(e.mul(0)), p);
  });
  return { measured: measured.data[0]!, w: w.data as Float32Array, shape };
}

test('STR1 of a linear D is |w|² when the perturbation is drawn for each element', () => {
  const { measured, w } = str1OfLinear(0.01, 0);
  const exact = w.reduce((s, x) => s + x * x, 0);
  assert.ok(Math.abs(measured / exact - 1) < 0.05, `${measured} ${exact}`);
});

test('drawn for each frame, it is the sum over frames of (Σ w)²: whole-frame shifts add up', () => {
  const { measured, w } = str1OfLinear(0, 0.1);
  let exact = 0;
  for (let frame = 0; frame < 4; frame++) exact += w.slice(frame * 6, frame * 6 + 6).reduce((a, b) => a + b, 0) ** 2;
  assert.ok(Math.abs(measured / exact - 1) < 0.05, `${measured} ${exact}`);
});

test('hinge: zero past the margins, linear inside', () => {
  const of = (real: number[], fake: number[]) => onHost([host(real, [real.length]), host(fake, [fake.length])], hinge).data[0];
  assert.is(of([1, 2], [-1, -3]), 0);
  assert.is(of([0, 3], [0, -2]), 1);
});

test('C-SDS: the gradient of λ mean (x0 - sg xr)² is 2 λ σ (v - (ε - x0)) / numel', () => {
  const got = onHost([draw(latent, 'x0'), draw(latent, 'eps'), draw(latent, 'v'), host([0.3, 0.7], [2])], (x0, eps, v, sigma) => {
    const xr = stopGradient(toX0(noise(x0, eps, sigma), v, sigma));
    const weight = sigma.reshape([-1, 1, 1, 1, 1]).mul(20 / x0.shape.reduce((a, b) => a * b, 1));
    return { direct: csdsGradient(x0, xr, 10), loss: vjp(mse(x0, xr).mul(10), constant(1), x0), velocity: v.sub(eps.sub(x0)).mul(weight) };
  });
  assert.ok(close(got.direct, got.loss) < 1e-12);
  assert.ok(close(got.direct, got.velocity) < 1e-12);
});

test('the split gradients are those of -mean D + λ C-SDS with a constant backbone', () => {
  const p: EquilibriumConfig = { dit, head: headConfigOf(preset), taps: preset.phase2.taps, lambda: 10, guidance: 2, str1: preset.phase2.str1 };
  const time = (a: number, b: number) => timeAt(dit, host([a, b], [2]));
  const at = { key: key(1, 0, 'g'), noiseKey: key(1, 0, 'pair'), end: time(1, 1), t: time(0.3, 0.6), score: time(0.8, 0.5), lr: host([1], []), count: host([1], []) };
  const all = () => [weights(1), weights(2), weights(3), initHead(p.head, 4), batch(), at] as const;
  // Two traces, so that the same draws come from the same streams.
  const { grads, metrics } = onHost([...all()], (generator, ema, real, psi, b, inputs) => generatorGradients(p, generator, ema, psi, real, b, inputs));
  const joint = onHost([...all()], (generator, ema, real, psi, { x0: x, c }, inputs) => {
    const pair = normal(inputs.noiseKey, x.shape);
    const x0 = predictX0(generator, dit, normal(inputs.key, x.shape), inputs.end, c);
    const taps = features(ema, dit, noise(x0, pair, inputs.t.sigma), inputs.t, c, p.taps);
    const D = head(psi, p.head, taps, { imageTokens: pictures(c.frame), context: c.text, lengths: c.lengths });
    const xr = guidedX0(real, dit, noise(x0, normal(inputs.key, x.shape), inputs.score.sigma), inputs.score, c, 2);
    return vjp(mse(x0, stopGradient(xr)).mul(10).sub(D.mean()), constant(1), generator);
  });
  for (const [name, g] of Object.entries(joint)) assert.ok(close(grads[name]!, g) < 1e-8, name);
  assert.ok(metrics.gD.data[0]! > 0 && metrics.gS.data[0]! > 0);
});

test.run();

/** Phase I against closed forms: Gaussian scores, the loss whose gradient is seeded, adapters at zero, the guard against NaN. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { vjp } from '../../engine/frontend/autodiff.ts';
import { constant, mse, normal, stopGradient } from '../../engine/frontend/functional.ts';
import { host, mapTree, type HostTensor } from '../../engine/frontend/tree.ts';
import { initLora, withLora } from '../../model/lora.ts';
import type { HostParams, Params } from '../../model/params.ts';
import { ditShapes } from '../../model/wan/dit.ts';
import { numbersOf } from '../../train/methods/conditions.ts';
import { cosine as angle, health } from '../../train/methods/diagnostics.ts';
import { noise } from '../../train/methods/flow.ts';
import { guidedX0, predictX0, timeAt, velocity, type Batch } from '../../train/methods/networks.ts';
import { cosine, emaDecay, update, warm } from '../../train/loop/optim.ts';
import { primingConfigOf, primingStep, vsdGradient, type PrimingInputs } from '../../train/methods/priming.ts';
import { key } from '../../train/loop/rng.ts';
import { batch, close, directional, dit, draw, latent, onHost, preset, weights } from './onhost.ts';

const t = timeAt(dit, host([0.4, 0.8], [2]));

test('with Gaussian data and Gaussian samples G is the difference of the analytic scores', () => {
  // Data N(m, a²), samples N(n, a²) in every element: E[x0 | x_σ] = m + k (x_σ - (1 - σ) m), k = a² (1 - σ) / ((1 - σ)² a² + σ²).
  const [m, n, a, sigma] = [0.5, -0.3, 0.7, 0.6];
  const variance = (1 - sigma) ** 2 * a ** 2 + sigma ** 2;
  const k = (a ** 2 * (1 - sigma)) / variance;
  const x0 = draw(latent, 'sample');
  const got = onHost([x0, draw(latent, 'xt')], (sample, xt) => {
    const posterior = (mean: number) =>
      xt
        .sub((1 - sigma) * mean)
        .mul(k)
        .add(mean);
    const score = (mean: number) => xt.sub((1 - sigma) * mean).mul(-1 / variance);
    const real = posterior(m);
    const w = sample.sub(real).abs().mean([1, 2, 3, 4], true);
    return {
      G: vsdGradient(sample, real, posterior(n), 1e-2).mul(w),
      scores: score(m)
        .sub(score(n))
        .mul(-(sigma ** 2) / (1 - sigma)),
    };
  });
  assert.ok(close(got.G, got.scores) < 1e-12); // -(s_real - s_fake), up to the weight of the x0 form
  assert.ok(Math.abs(got.G.data[0]! - ((n - m) * sigma ** 2) / variance) < 1e-12);
});

test('seeding the backward pass with G / numel is the gradient of ½ mean (x0 - sg(x0 - G))²', () => {
  const { seeded, loss } = onHost([draw(latent, 'w'), draw(latent, 'real'), draw(latent, 'fake')], (w, real, fake) => {
    const x0 = w.mul(2).tanh();
    const G = stopGradient(vsdGradient(stopGradient(x0), real, fake, 1e-2));
    const half = x0
      .sub(stopGradient(x0.sub(G)))
      .square()
      .mean()
      .mul(0.5);
    return { seeded: vjp(x0, G.div(w.shape.reduce((a, b) => a * b, 1)), w), loss: vjp(half, constant(1), w) };
  });
  assert.ok(close(seeded, loss) < 1e-12);
});

test('the normaliser has a floor, and what is not finite becomes 0', () => {
  const shape = [1, 1, 1, 1, 4];
  const same = host([1, 1, 1, 1], shape);
  const { data } = onHost([same, same, host([2, Infinity, NaN, 1], shape)], (x0, real, fake) =>
    vsdGradient(x0, real, fake, 0.5),
  );
  assert.equal(Array.from(data), [2, 0, 0, 0]);
});

test('a zero adapter is the base, so the first G is the guidance alone: -(g - 1)(c - u) in x0', () => {
  const lora = initLora(ditShapes(dit), 4, 3);
  const got = onHost([weights(1), lora, draw(latent, 'x'), t, batch().c], (net, adapter, x, time, c) => {
    const fake = predictX0(withLora(net, adapter, 2), dit, x, time, c);
    const u = predictX0(net, dit, x, time, { ...c, text: c.text.mul(0) });
    const base = predictX0(net, dit, x, time, c);
    return {
      fake,
      base,
      push: fake.sub(guidedX0(net, dit, x, time, { c, guidance: 2.5 })),
      cfg: base.sub(u).mul(-1.5),
    };
  });
  assert.is(close(got.fake, got.base), 0);
  assert.ok(close(got.push, got.cfg) < 1e-9);
});

test('only the adapter gets a gradient, and it is not zero', () => {
  const lora = initLora(ditShapes(dit), 4, 3);
  const grads = onHost([weights(1), lora, draw(latent, 'x'), t, batch().c], (net, adapter, x, time, c) =>
    vjp(
      velocity(withLora(net, adapter, 2), dit, x, time, c)
        .square()
        .mean(),
      constant(1),
      adapter,
    ),
  );
  assert.equal(Object.keys(grads).sort(), Object.keys(lora).sort());
  const ups = Object.entries(grads).filter(([name]) => name.endsWith('lora_B.weight'));
  assert.ok(ups.length > 0 && ups.every(([, g]) => g.data.some((x) => x !== 0)));
});

test('a generator step descends ½ mean (x0 - sg(x0 - G))²: finite differences along a direction, in float64', () => {
  const p = primingConfigOf(numbersOf(preset));
  const [net, real, lora] = [weights(1), weights(2), initLora(ditShapes(dit), 4, 3)];
  const scalar = (x: number) => host([x], []);
  const at = { key: key(1, 0, 'g'), t: timeAt(dit, host([0.95, 1], [2])), score: t, lr: scalar(1), count: scalar(1) };
  const zero = mapTree((w: HostTensor) => host(new Float32Array(w.data.length), w.shape), net);
  // lr 1, β 0 and a huge ε: the step is the gradient itself, up to that ε.
  const eps = 1e8;
  const step = onHost(
    [{ params: net, v: zero }, { teacher: real, fake: lora }, batch(), at],
    primingStep(p, { lr: 1, beta1: 0, beta2: 0.5, eps, weightDecay: 0, clip: 1e9 }),
  );
  const grads = mapTree(
    (was: HostTensor, now: HostTensor) =>
      host(
        Float64Array.from(was.data, (x, i) => (x - now.data[i]!) * eps),
        was.shape,
      ),
    net,
    step.params,
  );
  // The target x0 - G is a constant: it is made at the weights as they are.
  const parts = (generator: Params, { x0: x, c }: Batch, inputs: PrimingInputs, teacher: Params, adapter: Params) => {
    const xin = noise(x, normal(inputs.key, x.shape), inputs.t.sigma);
    const x0 = predictX0(generator, dit, xin, inputs.t, c);
    const xt = noise(x0, normal(inputs.key, x.shape), inputs.score.sigma);
    const G = vsdGradient(
      x0,
      guidedX0(teacher, dit, xt, inputs.score, { c, guidance: p.guidance }),
      predictX0(withLora(teacher, adapter, 1), dit, xt, inputs.score, c),
      p.wmin,
    );
    return { x0, target: x0.sub(G) };
  };
  const { target } = onHost([net, batch(), at, real, lora], parts);
  const loss = (moved: HostParams) =>
    onHost([moved, batch(), at, real, lora, target], (generator, b, inputs, teacher, adapter, fixed) =>
      mse(parts(generator, b, inputs, teacher, adapter).x0, fixed).mul(0.5),
    ).data[0]!;
  const { slope, along } = directional(net, grads, loss);
  assert.ok(Math.abs(slope / along - 1) < 1e-4, `${slope} ${along}`);
});

const adam = { lr: 0.1, beta1: 0, beta2: 0.99, eps: 1e-8, weightDecay: 0, clip: 1 };

test('a non-finite gradient leaves weights, moments and average as they were, and is counted', () => {
  const step = (bad: number) => {
    const p = host([1, 2], [2]);
    return onHost(
      [
        { params: { a: p, b: p }, v: { a: p, b: p }, ema: { a: p, b: p } },
        { a: host([0.3, bad], [2]), b: host([0.1, 0.2], [2]) },
      ],
      (s, g) => update(s, g, adam, { lr: constant(0.1), count: constant(1), decay: constant(0.9) }),
    );
  };
  for (const bad of [NaN, Infinity]) {
    const { state, skipped } = step(bad);
    assert.is(skipped.data[0], 1);
    for (const tree of [state.params, state.v, state.ema!])
      for (const x of Object.values(tree)) assert.equal(Array.from(x.data), [1, 2]);
  }
  const { state, skipped } = step(0.4);
  assert.is(skipped.data[0], 0);
  for (const tree of [state.params, state.v, state.ema!])
    for (const x of Object.values(tree)) assert.not.equal(Array.from(x.data), [1, 2]);
});

test('schedules: warm-up, cosine to zero, averages that forget the start; the angle of two tensors', () => {
  assert.equal(
    [0, 1, 2, 9].map((n) => warm(2, n, 4)),
    [0.5, 1, 1.5, 2],
  );
  assert.is(cosine(1, 0, 10, 100), 0.1);
  assert.is(cosine(1, 10, 10, 100), 1);
  assert.ok(Math.abs(cosine(1, 55, 10, 100) - 0.5) < 1e-12 && cosine(1, 99, 10, 100) < 1e-3);
  assert.equal(
    [0, 8, 10000].map((n) => emaDecay(0.99, n)),
    [0.1, 0.5, 0.99],
  );
  assert.ok(Math.abs(onHost([host([1, 1], [2]), host([1, 0], [2])], angle).data[0]! - Math.SQRT1_2) < 1e-12);
});

test('health: contrast, motion and first frame beside the real ones', () => {
  const still = [
    [1, -1],
    [1, -1],
    [3, -3],
  ]; // three frames of two cells
  const video = (frames: number[][]) => host(frames.flat(), [1, 1, frames.length, 1, 2]);
  const judge = (made: number[][], real: number[][]) => onHost([video(made), video(real)], (m, r) => health(m, r, r));
  const got = judge(
    still.map((f) => f.map((v) => 2 * v)),
    still,
  );
  assert.equal(
    [got['deviation']!, got['motion']!].map((t) => Number(t.data[0]!.toFixed(12))),
    [2, 2],
  );
  assert.is(got['first']!.data[0], 1);
  assert.is(
    judge(
      still.map(() => [1, -1]),
      still,
    )['motion']!.data[0],
    0,
  );
  assert.not.ok('motion' in judge([[1, 2]], [[3, 4]]), 'a still does not move');
  assert.not.ok(
    'first' in onHost([video(still), video(still)], (m, r) => health(m, r, undefined)),
    'text alone gives no frame',
  );
});

test.run();

/** Adversarial losses and STR1 against closed forms. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { vjp } from '../../engine/frontend/autodiff.ts';
import { constant, normal } from '../../engine/frontend/functional.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { vaeConfig } from '../../model/config.ts';
import { decode, encode, initVAE } from '../../model/wan/vae.ts';
import { criticised, initCritic } from '../../train/methods/critic.ts';
import { ADVERSARIAL, perturbation, str1Loss, type Str1 } from '../../train/methods/losses.ts';
import { vaeLoss } from '../../train/methods/vae.ts';
import { key } from '../../train/loop/rng.ts';
import { draw, onHost } from './onhost.ts';

/** STR1 of the linear D(x) = w · x, as `samples` perturbations measure it, over its w. */
function str1OfLinear(
  spatial: number,
  temporal: number,
  drawn: Str1['drawn'],
  samples = 6000,
): { measured: number; w: Float32Array } {
  const shape = [samples, 2, 2, 2, 3];
  const w = draw([1, ...shape.slice(1)], 'linear');
  const p: Str1 = { weight: 1, spatial, temporal, on: 'both', drawn };
  const measured = onHost([w, key(1, 0, 'str1')], (weight, k) => {
    const e = perturbation(k, shape, p);
    const D = (x: typeof e) => x.mul(weight).sum([1, 2, 3, 4]);
    return str1Loss(D(e), D(e.mul(0)), p);
  });
  return { measured: measured.data[0]!, w: w.data as Float32Array };
}

test("the VAE's loss weighs the error's steps from pixel to pixel", () => {
  const config = vaeConfig({
    dim: 4,
    z_dim: 3,
    dim_mult: [1, 1],
    num_res_blocks: 1,
    temperal_downsample: [true],
    channels: 1,
  });
  const [video, weights] = [draw([1, 1, 3, 4, 4], 'video'), { l1: 1, mse: 0, kl: 0 }];
  const loss = (edges?: number) =>
    onHost(
      [initVAE(config, 1), video, key(1, 0, 'vae')],
      (net, x, k) => vaeLoss(net, config, { ...weights, edges }, x, k).loss,
    ).data[0]!;
  const error = onHost([initVAE(config, 1), video, key(1, 0, 'vae')], (net, x, k) => {
    const { mean, logvar } = encode(net, config, x);
    return decode(net, config, mean.add(logvar.mul(0.5).exp().mul(normal(k, mean.shape)))).sub(x);
  });
  const e = error.data;
  const steps = (along: (i: number) => boolean, by: number) => {
    const all = [...e.keys()].filter(along).map((i) => Math.abs(e[i + by]! - e[i]!));
    return all.reduce((a, b) => a + b) / all.length;
  };
  const edges = steps((i) => i % 4 < 3, 1) + steps((i) => i % 16 < 12, 4);
  const got = loss(2) - loss();
  assert.ok(Math.abs(got - 2 * edges) < 1e-9, `${got} ${2 * edges}`);
});

test('the critic of the VAE: what deceives it moves the reconstruction alone, what it sees moves the critic alone', () => {
  const [net, made, video] = [initCritic(3, 1), draw([1, 3, 2, 6, 6], 'made'), draw([1, 3, 2, 6, 6], 'video')];
  const moved = onHost([net, made, video], (n, x, real) => {
    const { deceived, seen } = criticised(n, x, real);
    const of = (loss: typeof seen) => vjp(loss, constant(1), { n, x });
    return { deceived: of(deceived), seen: of(seen) };
  });
  const isMoved = (t: HostTensor) => t.data.some((v) => v !== 0);
  assert.ok(isMoved(moved.deceived.x) && !isMoved(moved.seen.x));
  assert.ok(Object.keys(net).every((name) => name.endsWith('3.bias') || isMoved(moved.seen.n[name]!)));
  assert.ok(!Object.values(moved.deceived.n).some(isMoved));
});

test('STR1 of a linear D is |w|² when every element is drawn for itself, of one perturbation or of both', () => {
  for (const temporal of [0, 0.1]) {
    const { measured, w } = str1OfLinear(0.01, temporal, 'element');
    const exact = w.reduce((s, x) => s + x * x, 0);
    assert.ok(Math.abs(measured / exact - 1) < 0.05, `${measured} ${exact}`);
  }
});

test('drawn for each frame, it is the sum over frames of (Σ w)²: whole-frame shifts add up', () => {
  const { measured, w } = str1OfLinear(0, 0.1, 'frame');
  let exact = 0;
  for (let frame = 0; frame < 4; frame++) exact += w.slice(frame * 6, frame * 6 + 6).reduce((a, b) => a + b, 0) ** 2;
  assert.ok(Math.abs(measured / exact - 1) < 0.05, `${measured} ${exact}`);
});

test('hinge: zero past the margins, linear inside; the generator climbs D', () => {
  const of = (real: number[], fake: number[]) =>
    onHost([host(real, [real.length]), host(fake, [fake.length])], ADVERSARIAL.hinge.discriminator).data[0];
  assert.is(of([1, 2], [-1, -3]), 0);
  assert.is(of([0, 3], [0, -2]), 1);
  assert.is(onHost([host([1, 3], [2])], (fake) => ADVERSARIAL.hinge.generator(fake, () => fake)).data[0], -2);
});

test("logistic: the gradients are those of a classifier; the generator's does not vanish where D is sure", () => {
  const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));
  const [real, fake] = [
    [0.3, -2],
    [-30, 1.5],
  ];
  const grads = onHost([host(real, [2]), host(fake, [2])], (r, f) => ({
    D: vjp(ADVERSARIAL.logistic.discriminator(r, f), constant(1), [r, f]),
    G: vjp(
      ADVERSARIAL.logistic.generator(f, () => r),
      constant(1),
      f,
    ),
  }));
  const near = (got: ArrayLike<number>, expected: number[]) =>
    expected.forEach((x, i) => assert.ok(Math.abs(got[i]! - Math.fround(x) / 2) < 1e-7, `${got[i]} ${x / 2}`));
  near(
    grads.D[0]!.data,
    real.map((x) => -sigmoid(-x)),
  );
  near(grads.D[1]!.data, fake.map(sigmoid));
  near(
    grads.G.data,
    fake.map((x) => -sigmoid(-x)),
  );
});

test('relativistic: only differences within a pair count, and the two losses mirror each other', () => {
  const { D, shifted, G } = onHost([host([0.5, 2], [2]), host([-1, 3], [2])], (real, fake) => ({
    D: ADVERSARIAL.relativistic.discriminator(real, fake),
    shifted: ADVERSARIAL.relativistic.discriminator(real.add(7), fake.add(7)),
    G: ADVERSARIAL.relativistic.generator(real, () => fake),
  }));
  const exact = (Math.log1p(Math.exp(-1.5)) + Math.log1p(Math.exp(1))) / 2;
  for (const x of [D, shifted, G]) assert.ok(Math.abs(x.data[0]! - exact) < 1e-7);
});

test.run();

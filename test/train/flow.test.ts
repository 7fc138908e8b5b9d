/** The algebra of rectified flow, the laws of its times, and guidance, against closed forms. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { host } from '../../engine/frontend/tree.ts';
import { givenFrames } from '../../model/config.ts';
import { withMask } from '../../model/pipeline/given.ts';
import { shiftSigma } from '../../model/schedulers/index.ts';
import { dit as network } from '../../model/wan/dit.ts';
import { drawTimes, noise, toX0, velocityOf } from '../../train/methods/flow.ts';
import { guidedVelocity, timeAt, velocity } from '../../train/methods/networks.ts';
import { batch, close, dit, draw, latent, onHost, weights } from './onhost.ts';

test('x0 comes back from x at any time and the true velocity', () => {
  const back = onHost([draw(latent, 'x0'), draw(latent, 'eps'), host([0.3, 1], [2])], (x0, eps, sigma) =>
    toX0(noise(x0, eps, sigma), velocityOf(x0, eps), sigma),
  );
  assert.ok(close(back, draw(latent, 'x0')) < 1e-12);
});

test('noise at σ = 1 is ε and at 0 is x0', () => {
  const ends = onHost([draw(latent, 'x0'), draw(latent, 'eps'), host([1, 0], [2])], noise);
  const half = ends.data.length / 2;
  assert.equal(Array.from(ends.data.subarray(0, half)), Array.from(draw(latent, 'eps').data.subarray(0, half)));
  assert.equal(Array.from(ends.data.subarray(half)), Array.from(draw(latent, 'x0').data.subarray(half)));
});

test('shifts keep the ends, compose and invert', () => {
  for (const sigma of [0, 0.1, 0.5, 0.9, 1]) {
    assert.ok(Math.abs(shiftSigma(sigma, 1) - sigma) < 1e-15);
    assert.ok(Math.abs(shiftSigma(shiftSigma(sigma, 5), 1 / 5) - sigma) < 1e-15);
    assert.ok(Math.abs(shiftSigma(shiftSigma(sigma, 2), 3) - shiftSigma(sigma, 6)) < 1e-15);
  }
  assert.equal(
    [0, 1].map((s) => shiftSigma(s, 8)),
    [0, 1],
  );
  // METHOD §1.13: the levels of four steps.
  assert.equal(
    [1, 0.75, 0.5, 0.25].map((s) => Number(shiftSigma(s, 5).toFixed(4))),
    [1, 0.9375, 0.8333, 0.625],
  );
});

test('times follow their laws and depend on (seed, step, role) alone', () => {
  const n = 4000;
  const sorted = (law: Parameters<typeof drawTimes>[0]) =>
    Array.from(drawTimes(law, n, 1, 2, 'test').data).sort((a, b) => a - b);
  const normal = sorted({ law: 'logit-normal', mean: 0, std: 1, shift: 3 });
  assert.ok(Math.abs(normal[n / 2]! - shiftSigma(0.5, 3)) < 0.02); // the median moves with the shift
  const uniform = sorted({ law: 'uniform', shift: 5, lo: 0.02, hi: 0.98 });
  assert.ok(
    uniform[0]! >= 0.02 - 1e-7 &&
      uniform.at(-1)! <= 0.98 + 1e-7 &&
      Math.abs(uniform[n / 2]! - shiftSigma(0.5, 5)) < 0.02,
  );
  const end = sorted({ law: 'endpoint', from: 0.9, pure: 0.5 });
  assert.ok(end[0]! >= 0.9 - 1e-7 && Math.abs(end.filter((s) => s === 1).length / n - 0.5) < 0.03);
  const law = { law: 'uniform', shift: 1, lo: 0, hi: 1 } as const;
  assert.equal(drawTimes(law, 8, 1, 2, 'a'), drawTimes(law, 8, 1, 2, 'a'));
  assert.not.equal(drawTimes(law, 8, 1, 2, 'a'), drawTimes(law, 8, 1, 2, 'b'));
  assert.not.equal(drawTimes(law, 8, 1, 2, 'a'), drawTimes(law, 8, 1, 3, 'a'));
});

test('guidance: one forward of both branches is u + g (c - u), the other notation is g = w + 1, and g = 1 is the condition alone', () => {
  const t = timeAt(dit, host([0.4, 0.8], [2]));
  const both = onHost([weights(1), draw(latent, 'x'), t, batch().c], (net, x, time, c) => {
    const u = velocity(net, dit, x, time, { ...c, text: c.text.mul(0) });
    const v = velocity(net, dit, x, time, c);
    return {
      joint: guidedVelocity(net, dit, x, time, { c, guidance: 3 }),
      apart: v.add(v.sub(u).mul(2)),
      one: guidedVelocity(net, dit, x, time, { c, guidance: 1 }),
      v,
      u,
    };
  });
  assert.ok(close(both.joint, both.apart) < 1e-12);
  assert.is(close(both.one, both.v), 0);
  assert.ok(close(both.u, both.v) > 1e-4, 'the text matters');
});

test('a network is told the same frames in training as in sampling: the first, or the first and the last', () => {
  for (const [model_type, tokens, stride] of [
    ['i2v', 3, 4],
    ['i2v', 3, 2],
    ['flf2v', 514, 4],
  ] as const) {
    const config = { ...dit, model_type, in_dim: 2 * dit.out_dim + stride };
    const c = { ...batch().c, pictures: draw([2, tokens, config.clip_dim], 'pictures') };
    const y = withMask(c.latent!, stride, givenFrames(config));
    const { trained, sampled } = onHost(
      [weights(1, config), draw(latent, 'x'), timeAt(config, host([0.4, 0.8], [2])), c, y],
      (net, x, t, told, beside) => ({
        trained: velocity(net, config, x, t, told),
        sampled: network(net, config, {
          x,
          tEmb: t.emb,
          context: told.text,
          imageTokens: told.pictures,
          y: beside,
          tables: told.tables,
        }).v as Tensor,
      }),
    );
    assert.is(close(trained, sampled), 0, model_type);
  }
});

test.run();

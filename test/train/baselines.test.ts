/** Baselines against closed forms: what consistency distillation has as its fixed point, DMD2 without its GAN, APT as settings. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { vjp } from '../../engine/frontend/autodiff.ts';
import { constant, normal } from '../../engine/frontend/functional.ts';
import { host, mapTree, type HostTensor } from '../../engine/frontend/tree.ts';
import type { HostParams } from '../../model/params.ts';
import { apt } from '../../train/methods/apt.ts';
import { consistencyLoss, type ConsistencyConfig } from '../../train/methods/consistency.ts';
import { dmd2ConfigOf, dmd2FakeStep, dmd2GeneratorStep, initFake } from '../../train/methods/dmd2.ts';
import { numbersOf } from '../../train/methods/conditions.ts';
import { timeAt, velocity } from '../../train/methods/networks.ts';
import { checkPreset } from '../../train/presets/index.ts';
import { fakeStep, primingConfigOf, primingStep } from '../../train/methods/priming.ts';
import { key } from '../../train/loop/rng.ts';
import { batch, close, dit, onHost, preset, weights } from './onhost.ts';

const scalar = (x: number) => host([x], []);
const rates = { lr: scalar(1e-3), count: scalar(1), decay: scalar(0.9) };
const time = (a: number, b: number) => timeAt(dit, host([a, b], [2]));

test('consistency: a step of the unguided teacher to σ = 0 is its own x0, so that the teacher has no loss there; guidance is what is left', () => {
  const at = { ...rates, key: key(1, 0, 'consistency'), t: time(0.6, 1), next: time(0, 0) };
  const p = (guidance: number): ConsistencyConfig => ({ dit, student: preset.student, guidance });
  const of = (config: ConsistencyConfig) =>
    onHost([weights(1), weights(2), batch(), at], (net, average, b, a) => {
      const loss = consistencyLoss(config, { teacher: net, own: net, average }, b, a);
      return { loss, grads: vjp(loss, constant(1), net) };
    });
  assert.ok(of(p(1)).loss.data[0]! < 1e-24);
  assert.ok(Object.values(of(p(1)).grads).every((g) => g.data.every((x) => Math.abs(x) < 1e-12)));
  // At σ = 1 x_t is the noise itself, whatever the latent: what guidance adds is σ (g - 1)(c - u).
  const end = { ...at, t: time(1, 1) };
  const guided = onHost([weights(1), batch(), end], (net, b, a) => {
    const eps = normal(a.key, b.x0.shape);
    const push = velocity(net, dit, eps, a.t, b.c)
      .sub(velocity(net, dit, eps, a.t, { ...b.c, text: b.c.text.mul(0) }))
      .mul(2);
    return push.square().mean();
  });
  const loss = onHost([weights(1), batch(), end], (net, b, a) =>
    consistencyLoss(p(3), { teacher: net, own: net, average: net }, b, a),
  );
  assert.ok(Math.abs(loss.data[0]! / guided.data[0]! - 1) < 1e-9 && loss.data[0]! > 0);
});

test('consistency: at one and the same level generator and average meet, and the average is a constant', () => {
  const at = { ...rates, key: key(1, 0, 'consistency'), t: time(0.6, 0.9), next: time(0.6, 0.9) };
  const p: ConsistencyConfig = { dit, student: preset.student, guidance: 2 };
  const { loss, grads } = onHost([weights(1), weights(2), batch(), at], (net, real, b, a) => {
    const l = consistencyLoss(p, { teacher: real, own: net, average: net }, b, a);
    return { loss: l, grads: vjp(l, constant(1), net) };
  });
  assert.is(loss.data[0], 0);
  assert.ok(Object.values(grads).every((g) => g.data.every((x) => x === 0)));
});

test('DMD2 without its GAN is phase I, bit by bit; with it, generator, fake model and classifier move otherwise', () => {
  const phase = primingConfigOf(numbersOf(preset));
  const p = (generator: number, fake: number) => ({ ...dmd2ConfigOf(numbersOf(preset)), weights: { generator, fake } });
  const at = { ...rates, key: key(1, 0, 'dmd2'), t: time(0.95, 1), score: time(0.4, 0.7) };
  const state = (params: HostParams) => ({
    params,
    v: mapTree((t: HostTensor) => host(new Float32Array(t.data.length), t.shape), params),
  });
  const adam = preset.priming.fake.adam;
  const fake = initFake(p(0, 0), weights(3), 1);
  const lora = Object.fromEntries(Object.entries(fake).filter(([name]) => !name.startsWith('classifier.')));

  const teacher = weights(3);
  const expected = onHost([state(weights(1)), { teacher, fake: lora }, batch(), at], primingStep(phase, adam)).params;
  const moved = (weight: number) =>
    onHost([state(weights(1)), { teacher, fake }, batch(), at], dmd2GeneratorStep(p(weight, 0), adam)).params;
  const name = 'blocks.0.ffn.0.weight';
  assert.is(close(moved(0)[name]!, expected[name]!), 0);
  assert.ok(close(moved(10)[name]!, expected[name]!) > 0);

  const frozen = { teacher, generator: weights(1) };
  const followed = onHost([state(lora), frozen, batch(), at], fakeStep(phase, adam)).params;
  const joint = (weight: number) => onHost([state(fake), frozen, batch(), at], dmd2FakeStep(p(0, weight), adam)).params;
  const up = 'blocks.0.ffn.0.lora_B.weight';
  assert.is(close(joint(0)[up]!, followed[up]!), 0);
  assert.is(close(joint(0)['classifier.taps.0.proj.weight']!, fake['classifier.taps.0.proj.weight']!), 0);
  assert.ok(close(joint(1)['classifier.taps.0.proj.weight']!, fake['classifier.taps.0.proj.weight']!) > 0);
});

test('APT is a preset, and leaves phase I alone', () => {
  const p = checkPreset(apt.change(preset));
  assert.equal(p.priming, preset.priming);
  assert.equal(
    [p.equilibrium.backbone, p.equilibrium.sees, p.equilibrium.loss, p.equilibrium.lambda, p.equilibrium.str1.on],
    ['full', 'clean', 'logistic', 0, 'real'],
  );
});

test.run();

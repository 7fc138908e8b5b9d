/**
 * Phase II against closed forms: C-SDS, the two gradients that meet at x0, finite differences, and what each switch may and may not move.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { vjp } from '../../engine/frontend/autodiff.ts';
import { constant, mse, normal, stopGradient } from '../../engine/frontend/functional.ts';
import { host, mapTree, type HostTensor } from '../../engine/frontend/tree.ts';
import { open } from '../../engine/runtime/device.ts';
import { numel } from '../../kernels/kernel.ts';
import { head, initHead } from '../../model/heads.ts';
import type { HostParams } from '../../model/params.ts';
import { numbersOf } from '../../train/methods/conditions.ts';
import {
  equilibriumConfigOf,
  csdsGradient,
  discriminatorStep,
  followStep,
  generatorGradients,
  generatorStep,
  initDiscriminator,
  judgeStep,
  type EquilibriumConfig,
} from '../../train/methods/equilibrium.ts';
import { noise, toX0 } from '../../train/methods/flow.ts';
import { features, guidedX0, ownFrom, predictX0, semantics, timeAt } from '../../train/methods/networks.ts';
import { loadPreset } from '../../train/presets/index.ts';
import { key } from '../../train/loop/rng.ts';
import { batch, close, directional, dit, draw, latent, onHost, weights } from './onhost.ts';

const time = (a: number, b: number) => timeAt(dit, host([a, b], [2]));
const scalar = (x: number) => host([x], []);
const at = {
  key: key(1, 0, 'g'),
  noiseKey: key(1, 0, 'pair'),
  end: time(1, 1),
  t: time(0.3, 0.6),
  score: time(0.8, 0.5),
  lr: scalar(1),
  count: scalar(1),
  decay: scalar(0.9),
};
const config = (sets: readonly string[] = []): EquilibriumConfig =>
  equilibriumConfigOf(numbersOf(loadPreset('digits-test', sets)));

test('C-SDS: the gradient of λ mean (x0 - sg xr)² is 2 λ σ (v - (ε - x0)) / numel', () => {
  const got = onHost(
    [draw(latent, 'x0'), draw(latent, 'eps'), draw(latent, 'v'), host([0.3, 0.7], [2])],
    (x0, eps, v, sigma) => {
      const xr = stopGradient(toX0(noise(x0, eps, sigma), v, sigma));
      const weight = sigma.reshape([-1, 1, 1, 1, 1]).mul(20 / x0.shape.reduce((a, b) => a * b, 1));
      return {
        direct: csdsGradient(x0, xr, 10),
        loss: vjp(mse(x0, xr).mul(10), constant(1), x0),
        velocity: v.sub(eps.sub(x0)).mul(weight),
      };
    },
  );
  assert.ok(close(got.direct, got.loss) < 1e-12);
  assert.ok(close(got.direct, got.velocity) < 1e-12);
});

test('the split gradients are those of -mean D + λ C-SDS with a constant backbone', () => {
  const p = config(['equilibrium.guidance=2']);
  const all = () => [weights(1), weights(2), weights(3), initHead(p.head, 4), batch(), at] as const;
  // Two traces, so that the same draws come from the same streams.
  const { grads, metrics } = onHost([...all()], (generator, ema, real, discriminator, b, inputs) =>
    generatorGradients(p, { generator, ema, discriminator, teacher: real }, b, inputs),
  );
  const joint = onHost([...all()], (generator, ema, real, discriminator, { x0: x, c }, inputs) => {
    const pair = normal(inputs.noiseKey, x.shape);
    const x0 = predictX0(generator, dit, normal(inputs.key, x.shape), inputs.end, c);
    const D = head(
      discriminator,
      p.head,
      features(ema, dit, noise(x0, pair, inputs.t.sigma), inputs.t, { c, taps: p.taps }),
      semantics(c),
    );
    const again = noise(x0, normal(inputs.key, x.shape), inputs.score.sigma);
    const xr = guidedX0(real, dit, again, inputs.score, { c, guidance: 2 });
    return vjp(mse(x0, stopGradient(xr)).mul(10).sub(D.mean()), constant(1), generator);
  });
  for (const [name, g] of Object.entries(joint)) assert.ok(close(grads[name]!, g) < 1e-8, name);
  assert.ok(metrics['gD']!.data[0]! > 0 && metrics['gS']!.data[0]! > 0);
});

test('without C-SDS the generator follows D: its gradient is the finite difference of -mean D along a direction', () => {
  const p = config(['equilibrium.lambda=0']);
  const [net, ema, discriminator] = [weights(1), weights(2), initHead(p.head, 4)];
  const networks = { generator: net, ema, discriminator, teacher: weights(3) };
  const { grads, metrics } = onHost([networks, batch(), at], (...a) => generatorGradients(p, ...a));
  assert.not.ok('gS' in metrics, 'nothing of C-SDS is computed');
  const D = (moved: HostParams) =>
    onHost([moved, ema, discriminator, batch(), at], (generator, average, head_, { x0: x, c }, inputs) => {
      const pair = normal(inputs.noiseKey, x.shape);
      const x0 = predictX0(generator, dit, normal(inputs.key, x.shape), inputs.end, c);
      return head(
        head_,
        p.head,
        features(average, dit, noise(x0, pair, inputs.t.sigma), inputs.t, { c, taps: p.taps }),
        semantics(c),
      ).mean();
    }).data[0]!;
  const { slope, along } = directional(net, grads, (moved) => -D(moved));
  assert.ok(Math.abs(slope / along - 1) < 1e-5, `${slope} ${along}`);
});

test('the adversarial term has its weight: the gradient is affine in it, and at 0 C-SDS alone is left', () => {
  const gradients = (weight: number) => {
    const p = config([`equilibrium.adversarial=${weight}`]);
    const networks = {
      generator: weights(1),
      ema: weights(2),
      discriminator: initHead(p.head, 4),
      teacher: weights(3),
    };
    return onHost([networks, batch(), at], (...a) => generatorGradients(p, ...a));
  };
  const [none, one, two] = [gradients(0), gradients(1), gradients(2)];
  assert.is(none.metrics['gD']!.data[0], 0);
  assert.is(none.metrics['gS']!.data[0], one.metrics['gS']!.data[0]);
  const flat = ({ grads }: typeof one) => {
    const all = Object.values(grads).flatMap((g) => [...g.data]);
    return host(all, [all.length]);
  };
  const [a, b] = [flat(none), flat(two)];
  const middle = host(
    Array.from(a.data, (x, i) => (x + b.data[i]!) / 2),
    a.shape,
  );
  assert.ok(close(flat(one), middle) < 1e-6);
  assert.ok(close(flat(one), a) > 1e-3);
});

test('the backbone: a copy of its own learns with the head, any other is a constant, and the generator never moves it', () => {
  const discriminator = (sets: string[]) => {
    const p = config(sets);
    const discriminator = initDiscriminator(p, weights(3), 4);
    const zero = Object.fromEntries(
      Object.entries(discriminator).map(([name, t]) => [name, host(new Float32Array(t.data.length), t.shape)]),
    );
    const adam = { lr: 1, beta1: 0, beta2: 0.99, eps: 1e-8, weightDecay: 0, clip: 1 };
    const networks = { generator: weights(1), ema: weights(2), teacher: weights(3) };
    const { v } = onHost([{ params: discriminator, v: zero }, networks, batch(), at], discriminatorStep(p, adam));
    const moved = Object.entries(v)
      .filter(([, t]) => t.data.some((x) => x > 0))
      .map(([name]) => name);
    const { grads } = onHost([{ ...networks, discriminator }, batch(), at], (...a) => generatorGradients(p, ...a));
    return { moved, backbone: moved.filter((name) => name.startsWith('backbone.')).length, grads };
  };
  const own = discriminator(['equilibrium.backbone=full', 'equilibrium.lambda=0']);
  assert.ok(own.backbone > 20 && own.moved.length > own.backbone);
  const others = ['ema', 'live', 'frozen'].map((backbone) =>
    discriminator([`equilibrium.backbone=${backbone}`, 'equilibrium.lambda=0']),
  );
  for (const { backbone, moved } of others) assert.ok(backbone === 0 && moved.length > 5);
  const name = 'blocks.1.ffn.0.weight';
  const [ema, live, frozen] = others.map((o) => o.grads[name]!) as [HostTensor, HostTensor, HostTensor];
  assert.ok(close(ema, live) > 1e-3 && close(ema, frozen) > 1e-3);
  // The full copy starts as the teacher, so that its first gradient is the frozen one's.
  assert.is(close(own.grads[name]!, frozen), 0);
});

test('adapters: at zero the network is the teacher, and the gradient of B is scale · dW Aᵀ', () => {
  const full = config();
  const lora = config(['student.mode=lora', 'student.rank=2', 'student.alpha=3']);
  const teacher = weights(3);
  const own = ownFrom(lora.student, dit, teacher, 1);
  const discriminator = initHead(full.head, 4);
  const gradients = (p: EquilibriumConfig, generator: HostParams) =>
    onHost([{ generator, ema: generator, discriminator, teacher }, batch(), at], (...a) => generatorGradients(p, ...a))
      .grads;
  const [dW, dAB] = [gradients(full, teacher), gradients(lora, own)];
  assert.equal(Object.keys(dAB).sort(), Object.keys(own).sort());
  const linear = 'blocks.0.cross_attn.q';
  const expected = onHost([dW[`${linear}.weight`]!, own[`${linear}.lora_A.weight`]!], (g, A) =>
    g.matmul(A, { transB: true }).mul(1.5),
  );
  assert.ok(close(dAB[`${linear}.lora_B.weight`]!, expected) < 1e-9);
  assert.ok(dAB[`${linear}.lora_A.weight`]!.data.every((x) => x === 0));
});

for (const sets of [
  ['equilibrium.loss=logistic', 'equilibrium.head.kind=cross', 'equilibrium.str1.weight=0'],
  ['equilibrium.loss=relativistic', 'equilibrium.head.kind=conv', 'equilibrium.str1.on=real'],
  ['equilibrium.sees=clean', 'equilibrium.str1.drawn=element'],
  ['dit.model_type=t2v'],
]) {
  test(`a step of both with ${sets.join(', ')} moves discriminator and generator`, () => {
    const q = loadPreset('digits-test', sets);
    const p = equilibriumConfigOf(numbersOf(q));
    const net = (seed: number) => weights(seed, p.dit);
    const discriminator = initDiscriminator(p, net(3), 4);
    const state = (params: HostParams) => ({ params, v: params, ema: params });
    const b = batch(q);
    const teacher = net(3);
    const D = onHost(
      [state(discriminator), { generator: net(1), ema: net(2), teacher }, b, at],
      discriminatorStep(p, q.equilibrium.head.adam),
    );
    const G = onHost(
      [state(net(1)), { discriminator, teacher }, b, at],
      generatorStep(p, q.equilibrium.generator.adam),
    );
    for (const [step, before] of [
      [D, discriminator],
      [G, net(1)],
    ] as const) {
      for (const [name, x] of Object.entries(step.metrics))
        assert.ok(Number.isFinite(x.data[0]!), `${name} ${x.data[0]}`);
      assert.ok(Object.entries(before).some(([name, t]) => close(step.params[name]!, t) > 0));
    }
    assert.is(D.metrics.str1.data[0]! > 0, p.str1.weight > 0);
  });
}

test('STR1 on f16 operands: value and gradient within 2 % of those in f32', async () => {
  const device = await open();
  if (!device.caps.f16) return;
  const p = config();
  const { adam } = loadPreset('digits-test').equilibrium.head;
  const discriminator = initHead(p.head, 4);
  const still = mapTree(({ shape }: HostTensor) => host(new Float32Array(numel(shape)), shape), discriminator);
  const measured = async (operands: 'f16' | 'f32') => {
    const step = device.compile(discriminatorStep(p, adam), { operands });
    const networks = { generator: weights(1), ema: weights(2), teacher: weights(3) };
    const { metrics } = await step({ params: discriminator, v: still }, networks, batch(), at);
    return [(await metrics.str1.read())[0]!, (await metrics.headNorm.read())[0]!];
  };
  const [want, got] = [await measured('f32'), await measured('f16')];
  want.forEach((x, i) => assert.ok(x > 0 && Math.abs(got[i]! / x - 1) < 0.02, `${got[i]} for ${x}`));
  device.close();
});

test('samples one after the other and a generator step in two programs make the same updates', () => {
  const [whole, apart] = [config(), config(['equilibrium.apart=true', 'dit.checkpoint=lean', 'dit.ffn_parts=2'])];
  const adam = { lr: 1, beta1: 0, beta2: 0.99, eps: 1e-8, weightDecay: 0, clip: 1 };
  const zero = (params: HostParams): HostParams =>
    Object.fromEntries(
      Object.entries(params).map(([name, t]) => [name, host(new Float32Array(t.data.length), t.shape)]),
    );
  const discriminator = initHead(whole.head, 4);
  const networks = { generator: weights(1), ema: weights(2), teacher: weights(3) };
  const { generator, ema, teacher } = networks;
  const heads = [whole, apart].map(
    (p) =>
      onHost([{ params: discriminator, v: zero(discriminator) }, networks, batch(), at], discriminatorStep(p, adam)).v,
  );
  for (const [name, v] of Object.entries(heads[0]!))
    assert.ok(v.data.every((x) => x < 1e-20) || close(heads[1]![name]!, v) < 1e-8, `head ${name}`); // the logit's bias gets nothing while real and fake are both inside the hinge

  const student = { params: generator, v: zero(generator), ema };
  const { metrics, ...together } = onHost(
    [student, { discriminator, teacher }, batch(), at],
    generatorStep(whole, adam),
  );
  const judged = onHost([{ params: {}, v: {} }, { ...networks, discriminator }, batch(), at], judgeStep(apart));
  const followed = onHost([student, teacher, judged.params.cotangent, batch(), at], followStep(apart, adam));
  for (const part of ['v', 'ema'] as const)
    for (const [name, t] of Object.entries(together[part]!))
      assert.ok(close(followed[part]![name]!, t) < 1e-8, `${part} ${name}`);
  assert.equal(Object.keys({ ...judged.metrics, ...followed.metrics }).sort(), Object.keys(metrics).sort());
});

test.run();

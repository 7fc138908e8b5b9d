/**
 * DMD2 (Yin et al., NeurIPS 2024): score distillation and a GAN at once, with a classifier on the fake model's features (METHOD §1.12).
 *
 *   generator    VSD + w_g mean log(1 + e^-D(x̂_t))
 *   fake model   flow matching on x̂0 + w_d (mean log(1 + e^-D(x_t)) + mean log(1 + e^D(x̂_t))), classifier and fake model in one update
 *
 * Times, rates and updates are phase I's; the classifier is FastGen's convolutional one, on phase II's taps.
 */
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { concat, constant, normal, stopGradient } from '../../engine/frontend/functional.ts';
import { vjp } from '../../engine/frontend/autodiff.ts';
import type { HostTensor } from '../../engine/frontend/tree.ts';
import { numel } from '../../kernels/kernel.ts';
import { head, headShapes, initHead, type HeadConfig } from '../../model/heads.ts';
import { noise } from './flow.ts';
import { ADVERSARIAL, weighted } from './losses.ts';
import {
  assemble,
  features,
  ownFrom,
  ownShapes,
  scored,
  semantics,
  stackConditions,
  stackTimes,
  type Condition,
  type Networks,
  type Time,
} from './networks.ts';
import { update, type AdamConfig } from '../loop/optim.ts';
import { pairStage } from './pair.ts';
import { distil, fakeLoss, fakeStep, generate, primingConfigOf, primingStep, type PrimingConfig } from './priming.ts';
import type { Method, Numbers } from './stage.ts';

interface Dmd2Config extends PrimingConfig {
  head: HeadConfig;
  taps: readonly number[];
  /** Weights of the adversarial terms. */
  weights: { generator: number; fake: number };
}

/** Where the classifier's weights stand among the fake model's. */
const CLASSIFIER = 'classifier.';
const named = <T>(classifier: Readonly<Record<string, T>>): Record<string, T> =>
  Object.fromEntries(Object.entries(classifier).map(([name, t]) => [CLASSIFIER + name, t]));

/** First weights of the fake model with its classifier. */
export const initFake = <T>(
  p: Dmd2Config,
  teacher: Readonly<Record<string, T>>,
  seed: number,
): Record<string, T | HostTensor> => ({ ...ownFrom(p.fake, p.dit, teacher, seed), ...named(initHead(p.head, seed)) });

/** The classifier's logits [B] on the fake model's features. */
function logits(p: Dmd2Config, networks: Networks<'teacher' | 'fake'>, z: Tensor, t: Time, c: Condition): Tensor {
  const classifier = Object.fromEntries(
    Object.entries(networks.fake)
      .filter(([name]) => name.startsWith(CLASSIFIER))
      .map(([name, x]) => [name.slice(CLASSIFIER.length), x]),
  );
  const tokens = features(assemble(p.fake, scored(networks), networks.fake), p.dit, z, t, { c, taps: p.taps });
  return head(classifier, p.head, tokens, semantics(c));
}

/** One update of the fake model `s` and its classifier. */
export function dmd2FakeStep(p: Dmd2Config, adam: AdamConfig): ReturnType<typeof fakeStep> {
  return (s, { generator, ...teachers }, batch, at) => {
    const networks = { ...teachers, fake: s.params };
    const { x0: x, c } = batch;
    const x0 = stopGradient(generate(p, { teacher: teachers.teacher, generator }, batch, at));
    const eps = normal(at.key, x.shape);
    const loss = fakeLoss(p, networks, { x0, eps }, c, at.score);
    const both = concat([noise(x, eps, at.score.sigma), noise(x0, eps, at.score.sigma)], 0);
    const D = logits(p, networks, both, stackTimes([at.score, at.score]), stackConditions([c, c]));
    const adversarial = ADVERSARIAL.logistic.discriminator(...(D.split(0, 2) as [Tensor, Tensor]));
    const { state, norm, skipped } = update(
      s,
      vjp(loss.add(weighted(adversarial, p.weights.fake)), constant(1), s.params),
      adam,
      at,
    );
    return { ...state, metrics: { fakeLoss: loss, D: adversarial, fakeNorm: norm, fakeSkipped: skipped } };
  };
}

/** One update of the generator `s`. The classifier and its backbone are constants. */
export function dmd2GeneratorStep(p: Dmd2Config, adam: AdamConfig): ReturnType<typeof primingStep> {
  return (s, networks, batch, at) => {
    const x0 = generate(p, { teacher: networks.teacher, generator: s.params }, batch, at);
    const seen = stopGradient(x0);
    const { G, metrics } = distil(p, networks, seen, batch, at);
    const eps = normal(at.key, seen.shape);
    const D = (z: Tensor) => logits(p, networks, noise(z, eps, at.score.sigma), at.score, batch.c);
    const adversarial = ADVERSARIAL.logistic.generator(D(seen), () => D(batch.x0));
    const gD = vjp(adversarial, constant(p.weights.generator), seen);
    const { state, norm, skipped } = update(s, vjp(x0, G.div(numel(x0.shape)).add(gD), s.params), adam, at);
    return { ...state, metrics: { ...metrics, adversarial, norm, skipped } };
  };
}

export const dmd2ConfigOf = (s: Numbers): Dmd2Config => ({
  ...primingConfigOf(s),
  head: { ...s.head, kind: 'conv' },
  taps: s.equilibrium.taps,
  weights: s.baselines.dmd2,
});

export const dmd2 = {
  title: 'DMD2: score distillation and a GAN at once',
  paper: 'arXiv 2405.14867',
  section: '§1.12',
  stages: [
    pairStage(
      'dmd2',
      ({ priming, equilibrium: { head: classifier, taps }, baselines: { dmd2: weights } }) => ({
        priming,
        head: classifier,
        taps,
        dmd2: weights,
      }),
      (s) => {
        const { fake, generator } = s.priming;
        const config = dmd2ConfigOf(s);
        return {
          fake: (teacher, seed) => initFake(config, teacher, seed),
          shapes: { ...ownShapes(fake, s.config), ...named(headShapes(config.head)) },
          fakeStep: dmd2FakeStep(config, fake.adam),
          generatorStep: dmd2GeneratorStep(config, generator.adam),
        };
      },
    ),
  ],
} as const satisfies Method;

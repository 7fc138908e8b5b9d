/** Judges samplers on clips they never saw: held-out conditions for reports, spare training clips for choosing a checkpoint. */
import type { Sampling } from '../../model/pipeline/diffuse.ts';
import { conditions, digits, type DigitClip } from '../data/digits.ts';
import { digitsOf } from '../data/sets.ts';
import type { ClassifierWeights } from '../metrics/classifier.ts';
import { evaluateClips, featuresOf, type Evaluation, type FeatureSet } from '../metrics/evaluate.ts';
import { frameOf } from '../data/frames.ts';
import { videoShape } from '../methods/conditions.ts';
import type { Metrics } from '../loop/pending.ts';
import type { Preset } from '../presets/index.ts';
import type { Request, SampleOptions, Sampler, Samples, Weights } from '../methods/sample.ts';

/** What decides, and the numbers behind it. */
export type Score = { score: number } & Metrics;

/** What chooses among the averages of a phase: it samples its conditions. */
export interface Chooser<R extends { seed: number } = Request> {
  choose(sampler: Sampler<R>, net: Weights, settings: Sampling, options?: SampleOptions): Promise<Score>;
}

/** A fixed set of conditions of `digits` with the real clips' features. */
export class Judge implements Chooser {
  readonly clips: readonly DigitClip[];
  readonly preset: Preset;
  private readonly classifier: ClassifierWeights;
  private readonly real: FeatureSet;

  constructor(preset: Preset, classifier: ClassifierWeights, clips: readonly DigitClip[]) {
    this.preset = preset;
    this.classifier = classifier;
    this.clips = clips;
    this.real = featuresOf(
      clips.map((c) => c.video),
      videoShape(preset),
      classifier,
    );
  }

  /** The held-out conditions that reports are made on. */
  static heldOut(p: Preset, classifier: ClassifierWeights, count = p.data.heldOutClips): Judge {
    return new Judge(p, classifier, conditions(p.seed, count, digitsOf(p)));
  }

  /** Training-split clips past those in the shards: to choose a checkpoint without looking at the held-out split. */
  static validation(p: Preset, classifier: ClassifierWeights): Judge {
    const { clip } = digits('train', p.seed, digitsOf(p));
    return new Judge(
      p,
      classifier,
      Array.from({ length: p.best.clips }, (_, i) => clip(p.data.trainClips + i)),
    );
  }

  requests(): Request[] {
    return this.clips.map((clip, seed) => ({
      caption: clip.caption,
      frame: frameOf(clip.video, videoShape(this.preset), 0),
      seed,
    }));
  }

  /** Any videos made from the conditions, in order. */
  evaluate(videos: readonly Float32Array[]): Evaluation {
    return evaluateClips(videos, this.clips, videoShape(this.preset), this.classifier, this.real);
  }

  /** Samples every condition and judges the clips. */
  async judge(
    sampler: Sampler,
    net: Weights,
    settings: Sampling,
    options?: SampleOptions,
  ): Promise<{ evaluation: Evaluation; samples: Samples }> {
    const samples = await sampler.sample(net, this.requests(), settings, options);
    return { evaluation: this.evaluate(samples.videos), samples };
  }

  async choose(sampler: Sampler, net: Weights, settings: Sampling, options?: SampleOptions): Promise<Score> {
    const { evaluation } = await this.judge(sampler, net, settings, options);
    const { byFrame: _, ...numbers } = evaluation;
    return { ...numbers, score: this.score(evaluation) };
  }

  /**
   * The proxy that chooses the best EMA: frames with the right digit × clips with the right direction - frechetWeight × Fréchet
   * distance, minus 1 when the motion energy is below `minMotion` of the real clips'.
   */
  score(e: Evaluation): number {
    const { minMotion, frechetWeight } = this.preset.best;
    return e.frameAccuracy * e.directionAccuracy - frechetWeight * e.frechet - (e.motionRatio < minMotion ? 1 : 0);
  }
}

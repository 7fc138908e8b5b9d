/** What every judge of a preset's clips has in common: it samples fixed conditions, and says what came of them. */
import type { Sampling } from '../../model/pipeline/diffuse.ts';
import { frameOf } from '../data/frames.ts';
import type { Clip } from '../data/sets.ts';
import type { Metrics } from '../loop/pending.ts';
import { videoShape } from '../methods/conditions.ts';
import type { Request, Sampled, SampleOptions, Sampler, Samples } from '../methods/sample.ts';
import type { Preset } from '../presets/index.ts';

/** What decides, and the numbers behind it. */
export type Score = { score: number } & Metrics;

/** What chooses among the averages of a phase: it samples its conditions. */
export interface Chooser<R extends { seed: number } = Request> {
  choose(sampler: Sampler<R>, net: Sampled, settings: Sampling, options?: SampleOptions): Promise<Score>;
}

/** @typeParam E what it says of a set of clips */
export abstract class ClipJudge<C extends Clip, E> implements Chooser {
  readonly clips: readonly C[];
  readonly preset: Preset;

  constructor(preset: Preset, clips: readonly C[]) {
    this.preset = preset;
    this.clips = clips;
  }

  /** Any videos made from the conditions, in order. */
  abstract evaluate(videos: readonly Float32Array[]): E;
  /** The proxy that chooses the best average. */
  abstract score(e: E): number;
  /** What is kept beside it. */
  protected abstract numbers(e: E): Metrics;
  /** What a table of students shows of it, by heading. */
  protected abstract measures(e: E): Metrics;
  /** How `score` is made, in words. */
  abstract readonly scored: string;

  requests(): Request[] {
    return this.clips.map((clip, seed) => ({
      caption: clip.caption,
      frame: frameOf(clip.video, videoShape(this.preset), 0),
      seed,
    }));
  }

  /** Samples every condition and judges the clips. */
  async judge(
    sampler: Sampler,
    net: Sampled,
    settings: Sampling,
    options?: SampleOptions,
  ): Promise<{ evaluation: E; samples: Samples }> {
    const samples = await sampler.sample(net, this.requests(), settings, options);
    return { evaluation: this.evaluate(samples.videos), samples };
  }

  /** As `judge`, by the headings of a table. */
  async measure(
    sampler: Sampler,
    net: Sampled,
    settings: Sampling,
    options?: SampleOptions,
  ): Promise<{ score: number; measures: Metrics }> {
    const { evaluation } = await this.judge(sampler, net, settings, options);
    return { score: this.score(evaluation), measures: this.measures(evaluation) };
  }

  async choose(sampler: Sampler, net: Sampled, settings: Sampling, options?: SampleOptions): Promise<Score> {
    const { videos } = await sampler.sample(net, this.requests(), settings, options);
    const evaluation = this.evaluate(videos);
    return { ...this.numbers(evaluation), score: this.score(evaluation) };
  }
}

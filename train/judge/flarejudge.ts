/** Judges samplers of `flare` on outfits they never saw, or on spare training clips for choosing a checkpoint. */
import { dirname } from 'node:path';
import { exists } from '../../engine/host/files.ts';
import type { Sampling } from '../../model/pipeline/diffuse.ts';
import { flare, type FlareClip } from '../data/flare/clips.ts';
import { flareOf, type Split } from '../data/sets.ts';
import type { Metrics } from '../loop/pending.ts';
import { videoShape } from '../methods/conditions.ts';
import type { SampleOptions, Sampler, Samples, Weights } from '../methods/sample.ts';
import { evaluateFlare, lookAt, type FlareEvaluation, type FlareLook } from '../metrics/evaluateflare.ts';
import { flareReader } from '../metrics/flarereader.ts';
import { loadReader, type ReaderWeights } from '../metrics/reader.ts';
import { spread } from '../metrics/spread.ts';
import type { Preset } from '../presets/index.ts';
import { ClipJudge } from './clipjudge.ts';

/** Conditions that are sampled from several seeds, and from how many. */
const APART = { conditions: 16, seeds: 4 };

/** With the distance between samples of one condition from other seeds; real clips have one each. */
export type FlareReport = FlareEvaluation & { spread?: number };

/** A fixed set of conditions of `flare` with what is seen in the real clips. */
export class FlareJudge extends ClipJudge<FlareClip, FlareReport> {
  override readonly scored =
    'a third each of what is read rightly, sharpness (the smaller of it and its inverse) and recall, - 0.01 Fréchet';
  private readonly weights: ReaderWeights;
  private readonly real: FlareLook;

  private constructor(preset: Preset, weights: ReaderWeights, clips: readonly FlareClip[]) {
    super(preset, clips);
    this.weights = weights;
    this.real = lookAt(
      clips.map((c) => c.video),
      videoShape(preset),
      weights,
    );
  }

  private static async open(
    p: Preset,
    path: string,
    split: Split,
    [from, count]: [number, number],
  ): Promise<FlareJudge> {
    const settings = flareOf(p);
    if (!(await exists(path)))
      throw new Error(
        `[classifier] ${path} is missing, which judges these clips: vpae train classifier --preset ${p.name} --run ${dirname(path)}`,
      );
    const weights = await loadReader(path, flareReader(settings.size));
    const { clip } = flare(split, p.seed, settings);
    return new FlareJudge(
      p,
      weights,
      Array.from({ length: count }, (_, i) => clip(from + i)),
    );
  }

  /** The held-out conditions that reports are made on. @param path of the classifier. @throws one line when it is missing */
  static heldOut(p: Preset, path: string, count = p.data.heldOutClips): Promise<FlareJudge> {
    return FlareJudge.open(p, path, 'heldout', [0, count]);
  }

  /** Training-split clips past those in the shards. */
  static validation(p: Preset, path: string): Promise<FlareJudge> {
    return FlareJudge.open(p, path, 'train', [p.data.trainClips, p.best.clips]);
  }

  evaluate(videos: readonly Float32Array[]): FlareReport {
    return evaluateFlare(videos, this.clips, {
      shape: videoShape(this.preset),
      weights: this.weights,
      real: this.real,
    });
  }

  /** Samples some conditions from several seeds too. */
  override async judge(
    sampler: Sampler,
    net: Weights,
    settings: Sampling,
    options?: SampleOptions,
  ): Promise<{ evaluation: FlareReport; samples: Samples }> {
    const { evaluation, samples } = await super.judge(sampler, net, settings, options);
    const some = this.requests().slice(0, APART.conditions);
    const requests = some.flatMap((request, i) =>
      Array.from({ length: APART.seeds }, (_, k) => ({ ...request, seed: this.clips.length + i * APART.seeds + k })),
    );
    const { videos } = await sampler.sample(net, requests, settings, { ...options, onProgress: undefined });
    const groups = some.map((_, i) => videos.slice(i * APART.seeds, (i + 1) * APART.seeds));
    return { evaluation: { ...evaluation, spread: spread(groups) }, samples };
  }

  protected numbers(e: FlareReport): Metrics {
    return { ...e };
  }

  protected measures(e: FlareReport): Metrics {
    return {
      'read rightly': e.accuracy,
      action: e.actionAccuracy,
      sharpness: e.sharpness,
      Fréchet: e.frechet,
      texture: e.texture,
      precision: e.precision,
      recall: e.recall,
      spread: e.spread!,
      motion: e.motionRatio,
      flicker: e.flicker,
      'first frame, dB': e.firstFramePsnr,
    };
  }

  /**
   * What is read rightly, how sharp (too sharp counts as too soft does) and how varied, a third each, - frechetWeight × Fréchet distance,
   * minus 1 when motion is below `minMotion` of the real clips'.
   */
  score({ accuracy, sharpness, recall, frechet, motionRatio }: FlareReport): number {
    const { minMotion, frechetWeight } = this.preset.best;
    const sharp = Math.min(sharpness, 1 / sharpness);
    return (accuracy + sharp + recall) / 3 - frechetWeight * frechet - (motionRatio < minMotion ? 1 : 0);
  }
}

/** Judges samplers of `digits` on clips they never saw: held-out conditions for reports, spare training clips for choosing a checkpoint. */
import { conditions, digits, type DigitClip } from '../data/digits.ts';
import { digitsOf } from '../data/sets.ts';
import type { ClassifierWeights } from '../metrics/classifier.ts';
import { evaluateClips, featuresOf, type Evaluation, type FeatureSet } from '../metrics/evaluate.ts';
import { videoShape } from '../methods/conditions.ts';
import type { Metrics } from '../loop/pending.ts';
import type { Preset } from '../presets/index.ts';
import { ClipJudge } from './clipjudge.ts';

export type { Chooser, Score } from './clipjudge.ts';

/** A fixed set of conditions of `digits` with the real clips' features. */
export class Judge extends ClipJudge<DigitClip, Evaluation> {
  override readonly scored = 'frames with the right digit × clips with the right direction - 0.01 Fréchet';
  private readonly classifier: ClassifierWeights;
  private readonly real: FeatureSet;

  constructor(preset: Preset, classifier: ClassifierWeights, clips: readonly DigitClip[]) {
    super(preset, clips);
    this.classifier = classifier;
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

  /** Any videos made from the conditions, in order. */
  evaluate(videos: readonly Float32Array[]): Evaluation {
    return evaluateClips(videos, this.clips, videoShape(this.preset), this.classifier, this.real);
  }

  protected numbers(e: Evaluation): Metrics {
    const { byFrame: _, ...numbers } = e;
    return numbers;
  }

  protected measures(e: Evaluation): Metrics {
    return {
      'right digit': e.digitAccuracy,
      'in the last frame': e.byFrame.digit.at(-1)!,
      'right direction': e.directionAccuracy,
      motion: e.motionRatio,
      'first frame, dB': e.firstFramePsnr,
      Fréchet: e.frechet,
    };
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

/**
 * Judges samplers on a data set without a classifier of its own: motion, first frame,
 * and how far the frames' thumbnails lie from the real ones'.
 */
import type { Sampling } from '../../model/pipeline/diffuse.ts';
import { footageOf, frameAt } from '../vbench/footage.ts';
import { CLIP_FPS } from '../vbench/clips.ts';
import { thumbnails } from '../vbench/proxies.ts';
import { videoShape } from '../methods/conditions.ts';
import { clipsOf } from '../data/sets.ts';
import type { Chooser, Score } from './eval.ts';
import { flicker, frameOf, motionEnergy, psnr } from '../data/frames.ts';
import { frechet } from '../metrics/frechet.ts';
import type { Course, Preset } from '../presets/index.ts';
import { batchOf, type Request, type Sampled, type Sampler } from '../methods/sample.ts';

/** What is remembered of a clip. */
interface Look {
  /** Every frame as 8x8 px in 0…1, rows of 192. */ thumbnails: readonly number[];
  motion: number;
  flicker: number;
  /** Of text alone there is none. */ first?: Float32Array;
}

/** One clip at a time is in memory where they are sampled so. */
export class PixelJudge<R extends { seed: number }> implements Chooser<R> {
  private readonly course: Course;
  private readonly requests: readonly R[];
  private readonly clip: (i: number) => Promise<Float32Array>;
  private real: Promise<Look[]> | undefined;

  /** @param clip the real clip of a request, [channels,T,H,W] in [-1,1] */
  constructor(course: Course, requests: readonly R[], clip: (i: number) => Promise<Float32Array>) {
    [this.course, this.requests, this.clip] = [course, requests, clip];
  }

  /** Training-split clips past those in the shards. */
  static validation(p: Preset): PixelJudge<Request> {
    const clip = clipsOf(p, 'train');
    const clips = Array.from({ length: p.best.clips }, (_, i) => clip(p.data.trainClips + i));
    return new PixelJudge(
      p,
      clips.map(({ caption, video }, seed) => ({ caption, frame: frameOf(video, videoShape(p), 0), seed })),
      (i) => Promise.resolve(clips[i]!.video),
    );
  }

  private async look(video: Float32Array): Promise<Look> {
    const shape = videoShape(this.course);
    const footage = footageOf(video, shape, CLIP_FPS);
    const rows = await thumbnails.see(
      footage.frames.map((_, t) => frameAt(footage, t)),
      'video',
    );
    return {
      thumbnails: rows.flatMap((row) => Array.from(row, (x) => x / 255)),
      motion: motionEnergy(video, shape),
      flicker: flicker(video, shape),
      ...(this.course.dit.model_type !== 't2v' && { first: frameOf(video, shape, 0) }),
    };
  }

  private async lookAtReal(): Promise<Look[]> {
    const looks: Look[] = [];
    for (let i = 0; i < this.requests.length; i++) looks.push(await this.look(await this.clip(i)));
    return looks;
  }

  /**
   * The score is the first frame's PSNR in units of 100 dB (nothing for text alone) - frechetWeight × Fréchet distance, minus 1 when motion
   * is below `minMotion` of the real clips'. It needs no labels, and no network of its own.
   */
  async choose(sampler: Sampler<R>, net: Sampled, settings: Sampling): Promise<Score> {
    const { minMotion, frechetWeight } = this.course.best;
    const real = await (this.real ??= this.lookAtReal());
    const made: Look[] = [];
    const size = batchOf(this.course);
    for (let i = 0; i < this.requests.length; i += size) {
      const { videos } = await sampler.sample(net, this.requests.slice(i, i + size), settings);
      for (const video of videos) made.push(await this.look(video));
    }
    const mean = (of: (look: Look, i: number) => number, all = made) =>
      all.reduce((s, look, i) => s + of(look, i), 0) / all.length;
    const rows = (all: readonly Look[]) => Float32Array.from(all.flatMap((l) => l.thumbnails));
    const frames = videoShape(this.course)[1] * real.length;
    const numbers = {
      motionRatio: mean((l) => l.motion) / mean((l) => l.motion, real),
      ...(real[0]!.first && { firstFramePsnr: mean((l, i) => psnr(l.first!, real[i]!.first!)) }),
      flicker: mean((l) => l.flicker),
      frechet: frechet(rows(made), rows(real), rows(real).length / frames),
    };
    return {
      ...numbers,
      score:
        (numbers.firstFramePsnr ?? 0) / 100 -
        frechetWeight * numbers.frechet -
        (numbers.motionRatio < minMotion ? 1 : 0),
    };
  }
}

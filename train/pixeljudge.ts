/** Judges samplers on a data set without a classifier of its own: motion, first frame, and how far the frames' thumbnails lie from the real ones'. */
import type { Sampling } from '../model/pipeline/diffuse.ts';
import { footageOf, frameAt } from './vbench/footage.ts';
import { CLIP_FPS } from './vbench/clips.ts';
import { thumbnails } from './vbench/proxies.ts';
import { videoShape } from './conditions.ts';
import { clipsOf, type Clip } from './data/sets.ts';
import type { Chooser } from './eval.ts';
import type { Metrics } from './loop.ts';
import { firstFramePsnr, flicker, frameOf, motionEnergy } from './metrics/frames.ts';
import { frechet } from './metrics/frechet.ts';
import type { Preset } from './presets/index.ts';
import type { Sampler, Weights } from './sample.ts';

export class PixelJudge implements Chooser {
  private readonly preset: Preset;
  private readonly clips: readonly Clip[];
  private real: Promise<Float32Array> | undefined;

  constructor(preset: Preset, clips: readonly Clip[]) {
    this.preset = preset;
    this.clips = clips;
  }

  /** Training-split clips past those in the shards. */
  static validation(p: Preset): PixelJudge {
    const clip = clipsOf(p, 'train');
    return new PixelJudge(p, Array.from({ length: p.best.clips }, (_, i) => clip(p.data.trainClips + i)));
  }

  /** Every frame as 8x8 px in 0…1, rows of 192. */
  private async thumbnails(videos: readonly Float32Array[]): Promise<Float32Array> {
    const rows: number[] = [];
    for (const video of videos) {
      const footage = footageOf(video, videoShape(this.preset), CLIP_FPS);
      for (const row of await thumbnails.see(footage.frames.map((_, t) => frameAt(footage, t)), 'video')) for (let k = 0; k < row.length; k++) rows.push(row[k]! / 255);
    }
    return Float32Array.from(rows);
  }

  /** The score is the first frame's PSNR in units of 100 dB (nothing for text alone) - frechetWeight × Fréchet distance, minus 1 when motion is below `minMotion` of the real clips'. */
  async choose(sampler: Sampler, net: Weights, settings: Sampling): Promise<{ score: number } & Metrics> {
    const shape = videoShape(this.preset);
    const { minMotion, frechetWeight } = this.preset.best;
    const { videos } = await sampler.sample(net, this.clips.map(({ caption, video }, seed) => ({ caption, frame: frameOf(video, shape, 0), seed })), settings);
    const real = await (this.real ??= this.thumbnails(this.clips.map((c) => c.video)));
    const mean = (of: (video: Float32Array, i: number) => number, all: readonly Float32Array[] = videos) => all.reduce((s, v, i) => s + of(v, i), 0) / all.length;
    const motion = (v: Float32Array) => motionEnergy(v, shape);
    const numbers = {
      motionRatio: mean(motion) / mean(motion, this.clips.map((c) => c.video)),
      ...(this.preset.dit.model_type === 'i2v' && { firstFramePsnr: mean((v, i) => firstFramePsnr(v, shape, frameOf(this.clips[i]!.video, shape, 0))) }),
      flicker: mean((v) => flicker(v, shape)),
      frechet: frechet(await this.thumbnails(videos), real, real.length / (this.clips.length * shape[1])),
    };
    return { ...numbers, score: (numbers.firstFramePsnr ?? 0) / 100 - frechetWeight * numbers.frechet - (numbers.motionRatio < minMotion ? 1 : 0) };
  }
}

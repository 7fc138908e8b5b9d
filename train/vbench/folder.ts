/**
 * What a set of videos is worth without knowing who made them: VBench's dimensions, pixels,
 * and, beside reference videos, the distance of their features.
 */
import { drift, firstFramePsnr, motionEnergy, type ClipShape, frameOf, psnr } from '../data/frames.ts';
import { diversity, frechet } from '../metrics/frechet.ts';
import { precisionRecall } from '../metrics/manifold.ts';
import { frameAt, type Footage, type Frame } from './footage.ts';
import type { Feature } from './formulas.ts';
import { measure, type Eye, type Instruments, type Measured, type Take } from './measure.ts';

/** Means over videos; units of [-1, 1] as `metrics/frames.ts` has them. */
export interface FolderReport extends Measured {
  motionEnergy: number;
  brightnessDrift: number;
  contrast: number;
  /** Mean distance between two videos in what the features are of. */
  diversity: number;
  features: { of: string; proxy: boolean };
  /** PSNR of each frame to the given picture, dB, over the videos that have one of their size; frame 0 is the first. */
  psnrByFrame?: number[];
  reference?: { videos: number; frechet: number; precision: number; recall: number; motionRatio: number };
}

type Takes = Iterable<Take> | AsyncIterable<Take>;

/** Everything that is read once a video. */
class Gathered {
  readonly frames: number[][] = [];
  readonly videos: number[][] = [];
  readonly motion: number[] = [];
  readonly drift: number[] = [];
  readonly contrast: number[] = [];
  readonly psnr: number[][] = [];

  /** Passes videos on, and keeps what is small of each. */
  async *of(takes: Takes, eye: Eye): AsyncGenerator<Take> {
    for await (const take of takes) {
      const { footage, image } = take;
      const shape: ClipShape = [3, footage.frames.length, footage.height, footage.width];
      const clip = clipOf(footage);
      const rows = (
        await eye.see(
          footage.frames.map((_, t) => frameAt(footage, t)),
          'video',
        )
      ).map((f: Feature) => Array.from(f));
      this.frames.push(...rows);
      this.videos.push(rows[0]!.map((_, k) => rows.reduce((s, r) => s + r[k]!, 0) / rows.length));
      this.motion.push(motionEnergy(clip, shape));
      const wander = drift(clip, shape);
      this.drift.push(wander.mean);
      this.contrast.push(wander.contrast);
      if (image && image.width === footage.width && image.height === footage.height) {
        const still = clipOf({ ...image, frames: [image.data], fps: 1 });
        this.psnr.push(
          footage.frames.map((_, t) => (t ? psnr(frameOf(clip, shape, t), still) : firstFramePsnr(clip, shape, still))),
        );
      }
      yield take;
    }
  }
}

/** Bytes → a clip [3, frames, height, width] in [-1, 1]. */
function clipOf({ width, height, frames }: Footage | (Frame & { frames: Uint8Array[]; fps: number })): Float32Array {
  const plane = width * height;
  const out = new Float32Array(3 * frames.length * plane);
  frames.forEach((data, t) => {
    for (let i = 0; i < 3 * plane; i++)
      out[((i % 3) * frames.length + t) * plane + Math.floor(i / 3)] = data[i]! / 127.5 - 1;
  });
  return out;
}

const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
const flat = (rows: readonly (readonly number[])[]): Float32Array => Float32Array.from(rows.flat());

/** Looks at a video once, however often it is asked: a network's look is what costs. */
function remembering(eye: Eye): Eye {
  const known = new WeakMap<Uint8Array, Promise<Feature[]>>(); // by the first frame
  return {
    ...eye,
    see(frames, what) {
      const first = frames[0]!.data;
      const rows = known.get(first) ?? eye.see(frames, what);
      known.set(first, rows);
      return rows;
    },
  };
}

/** @param reference real videos to compare with; read once, after the others */
export async function judgeFolder(
  takes: Takes,
  instruments: Instruments & { subject_consistency: Eye },
  reference?: Takes,
): Promise<FolderReport> {
  const eye = remembering(instruments.subject_consistency);
  const made = new Gathered();
  const measured = await measure(made.of(takes, eye), { ...instruments, subject_consistency: eye });
  if (!measured.videos) throw new Error('[eval] there is no video to judge');
  const dim = made.videos[0]!.length;
  const shortest = Math.min(...made.psnr.map((p) => p.length));
  const report: FolderReport = {
    ...measured,
    motionEnergy: mean(made.motion),
    brightnessDrift: mean(made.drift),
    contrast: mean(made.contrast),
    diversity: diversity(flat(made.videos), dim),
    features: { of: eye.name, proxy: eye.proxy },
    ...(made.psnr.length && {
      psnrByFrame: Array.from({ length: shortest }, (_, t) => mean(made.psnr.map((p) => p[t]!))),
    }),
  };
  if (!reference) return report;
  const real = new Gathered();
  let videos = 0;
  for await (const _ of real.of(reference, eye)) videos++;
  if (videos < 2) throw new Error(`[eval] ${videos} reference videos: two or more are needed`);
  report.reference = {
    videos,
    frechet: frechet(flat(made.frames), flat(real.frames), dim),
    ...precisionRecall(flat(made.videos), flat(real.videos), dim),
    motionRatio: report.motionEnergy / mean(real.motion),
  };
  return report;
}

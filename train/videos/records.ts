/** Records of real videos as a sampler takes them: their embeddings are the condition, and the checkpoint's VAE makes clips of latents. */
import type { Device } from '../../engine/runtime/device.ts';
import type { NDArray } from '../../engine/runtime/ndarray.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { freeAll, type VideoModel } from '../../model/pipeline/generate.ts';
import { StreamingVAE } from '../../model/wan/vaestream.ts';
import { conditioner, latentShape, videoShape } from '../methods/conditions.ts';
import type { Shards } from '../data/shards.ts';
import type { Condition } from '../methods/networks.ts';
import type { Course } from '../presets/index.ts';
import type { Ends } from '../methods/sample.ts';

/** A record by its number, to be made anew. */
export interface Remake {
  record: number;
  seed: number;
}

/** Edge in pixels of the tiles that clips are decoded in: little memory beside what training holds. */
export const TILE = 256;

/** Clips that a run's pictures show, in each of three rows: real, by the teacher, by the student. */
export const PREVIEWED = 2;

/** The decoder is on the device while it decodes, and no longer. */
export class RecordEnds implements Ends<Remake> {
  private readonly device: Device;
  private readonly course: Course;
  private readonly model: VideoModel;
  private readonly shards: Shards;

  constructor(device: Device, course: Course, model: VideoModel, shards: Shards) {
    [this.device, this.course, this.model, this.shards] = [device, course, model, shards];
  }

  condition(group: readonly Remake[]): Promise<Condition<HostTensor>> {
    return Promise.resolve(conditioner(this.course).told(this.shards.records(group.map((r) => r.record))).c);
  }

  async decode(latent: NDArray): Promise<Float32Array[]> {
    return this.clips(host(await latent.read(), latent.shape));
  }

  /** What the VAE makes of a record's own latent: the best that a student could do. */
  async clip(record: number): Promise<Float32Array> {
    return (await this.clips(this.shards.records([record]).latent))[0]!;
  }

  /** [B,C,F,h,w] → [channels,T,H,W] each. */
  private async clips(latents: HostTensor): Promise<Float32Array[]> {
    const { device, model, course } = this;
    const weights = await model.loadVAE(device, 'decoder', () => {});
    const vae = new StreamingVAE(device, model.vae, weights);
    const size = latents.data.length / latents.shape[0]!;
    const clips: Float32Array[] = [];
    try {
      for (let i = 0; i < latents.shape[0]!; i++)
        clips.push(
          await wholeClip(
            vae,
            host(latents.data.slice(i * size, (i + 1) * size), latentShape(course)),
            videoShape(course),
          ),
        );
      return clips;
    } finally {
      vae.free();
      freeAll(weights);
    }
  }
}

async function wholeClip(
  vae: StreamingVAE,
  latent: HostTensor,
  [channels, frames, height, width]: readonly [number, number, number, number],
): Promise<Float32Array> {
  const plane = height * width;
  const clip = new Float32Array(channels * frames * plane);
  let at = 0;
  for await (const { data, shape } of vae.decode(latent, { tile: TILE })) {
    const length = shape[1]! * plane;
    for (let c = 0; c < channels; c++) clip.set(data.subarray(c * length, (c + 1) * length), c * frames * plane + at);
    at += length;
  }
  return clip;
}

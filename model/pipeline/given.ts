/**
 * What a DiT is told of the frames it is given: the first of a clip, or the first and the last.
 * Wan: image2video.py, first_last_frame2video.py, textimage2video.py.
 */
import type { Device } from '../../engine/runtime/device.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { resize, resizeTables, type ResizeTables } from '../clip/resize.ts';
import { givenFrames, holdsFirst, vaeStride } from '../config.ts';
import { StreamingVAE } from '../wan/vaestream.ts';
import type { Job, Progress, VideoModel } from './generate.ts';

/** As `DiffusionInput` has it. */
export interface Given {
  /** [1, I, clip_dim] of the frames, one behind the other. */
  imageTokens?: HostTensor;
  /** Mask and image latent, [1, in_dim - C, F, h, w]. */
  beside?: HostTensor;
  /** The first frame's own latent, [1, C, 1, h, w], where the DiT holds it in the sample. */
  first?: HostTensor;
}

/** Every job's frames as its DiT takes them; jobs of the same pictures share what is made of them. */
export async function encodeGiven(
  device: Device,
  model: VideoModel,
  jobs: readonly Job[],
  tile: number | undefined,
  progress: Progress,
): Promise<Given[]> {
  const pictures = [...new Set(jobs.flatMap((j) => j.pictures))];
  if (!pictures.length) return jobs.map(() => ({}));
  const tokens =
    model.encodeImages &&
    (await encodePictures(
      device,
      model,
      jobs.map((j) => j.pictures),
      progress,
    ));
  const scale = device.compile((x: Tensor, tables: ResizeTables<Tensor>) => resize(x, tables), { name: 'resize' });
  const encoder = await model.loadVAE(device, 'encoder', progress);
  const vae = new StreamingVAE(device, model.vae, encoder);
  const holds = holdsFirst(model.dit);
  const nameOf = (j: Job) =>
    `${j.pictures.map((p) => pictures.indexOf(p)).join()} ${j.size.width} ${j.size.height} ${j.frames}`;
  const latents = new Map<string, Given>();
  try {
    for (const job of jobs.filter((j) => j.pictures.length)) {
      if (latents.has(nameOf(job))) continue;
      const {
        size: { width, height },
      } = job;
      const frames = holds ? 1 : job.frames;
      const given: HostTensor[] = [];
      for (const picture of job.pictures) {
        const [channels, h, w] = picture.shape as [number, number, number];
        given.push(
          host(await (await scale(picture, resizeTables([h, w], [height, width]))).read(), [channels, height, width]),
        );
      }
      const { data, shape } = await vae.encode([frames, height, width], withZeros(given, frames), {
        tile,
        onProgress: (done, total) => progress('image', 'chunks', done, total),
      });
      const latent = host(data, [1, ...shape]);
      latents.set(
        nameOf(job),
        holds ? { first: latent } : { beside: withMask(latent, vaeStride(model.vae)[0], givenFrames(model.dit)) },
      );
    }
    return jobs.map((j, i) => ({
      ...latents.get(nameOf(j)),
      ...(tokens && j.pictures.length && { imageTokens: { ...tokens[i]!, shape: [1, ...tokens[i]!.shape] } }),
    }));
  } finally {
    vae.free();
    for (const t of Object.values(encoder)) t.free();
    await scale.free();
  }
}

/** Each clip's pictures → [I, clip_dim], one behind the other; a picture that comes twice is encoded once. */
export async function encodePictures(
  device: Device,
  model: VideoModel,
  clips: readonly (readonly HostTensor[])[],
  progress: Progress,
): Promise<HostTensor[]> {
  const pictures = [...new Set(clips.flat())];
  const tokens = await model.encodeImages!(device, pictures, progress);
  return clips.map((clip) => {
    const own = clip.map((p) => tokens[pictures.indexOf(p)]!);
    const [rows, width] = own[0]!.shape as [number, number];
    const data = new Float32Array(own.length * rows * width);
    own.forEach((t, i) => data.set(t.data, i * rows * width));
    return host(data, [own.length * rows, width]);
  });
}

/** A clip of `frames` with the given ones, [channels, H, W] each, at its start and its end and zeros between, as an encoder asks for it. */
export function withZeros(given: readonly HostTensor[], frames: number): (at: number, count: number) => HostTensor {
  const [channels, height, width] = given[0]!.shape as [number, number, number];
  const plane = height * width;
  return (at, count) => {
    const data = new Float32Array(channels * count * plane);
    for (const [i, { data: pixels }] of given.entries()) {
      const t = (i === 0 ? 0 : frames - 1) - at;
      if (t < 0 || t >= count) continue;
      for (let c = 0; c < channels; c++) data.set(pixels.subarray(c * plane, (c + 1) * plane), (c * count + t) * plane);
    }
    return host(data, [channels, count, height, width]);
  };
}

/**
 * [B,C,F,h,w] → [B,stride + C,F,h,w]: one mask channel for each frame that a latent frame stands for, 1 where
 * that frame is given. The first latent frame stands for one frame in all channels.
 * @param given 1: the first frame; 2: the last too
 */
export function withMask(latent: HostTensor, stride: number, given: number): HostTensor {
  const [b, c, f, h, w] = latent.shape as [number, number, number, number, number];
  const [plane, channel, clip] = [h * w, f * h * w, c * f * h * w];
  const data = new Float32Array(b * (stride * channel + clip));
  for (let n = 0; n < b; n++) {
    const from = n * (stride * channel + clip);
    for (let m = 0; m < stride; m++) data.fill(1, from + m * channel, from + m * channel + plane);
    if (given > 1) data.fill(1, from + stride * channel - plane, from + stride * channel);
    data.set(latent.data.subarray(n * clip, (n + 1) * clip), from + stride * channel);
  }
  return host(data, [b, stride + c, f, h, w]);
}

/**
 * What a run's folder shows of itself: the same few conditions, from the same noise,
 * every so many steps; the real clips stand in the first row.
 */
import type { Device } from '../../engine/runtime/device.ts';
import type { NDArray } from '../../engine/runtime/ndarray.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import type { Params } from '../../model/params.ts';
import type { Sampling } from '../../model/pipeline/diffuse.ts';
import { decode, encode } from '../../model/wan/vae.ts';
import type { State } from '../loop/checkpoint.ts';
import { stackRows, vaeConfigOf, videoShape } from '../methods/conditions.ts';
import { clipsOf, type Clip } from '../data/sets.ts';
import type { Job } from '../loop/loop.ts';
import { frameOf, type ClipShape } from '../data/frames.ts';
import type { Course, Preset } from '../presets/index.ts';
import type { Request, Sampled, Sampler } from '../methods/sample.ts';

/** Draws rows of clips [channels, frames, height, width] as an animated WebP. */
export type Draw = (rows: readonly (readonly Float32Array[])[], shape: ClipShape) => Promise<Uint8Array>;

const CLIPS = 6;

/** Training-split clips past those that are trained on. */
function shown(p: Preset): Clip[] {
  const clip = clipsOf(p, 'train');
  return Array.from({ length: CLIPS }, (_, i) => clip(p.data.trainClips + i));
}

/** Which clips are shown, and how they come about. */
interface Previews<R extends { seed: number }> {
  course: Course;
  draw: Draw;
  sampler: Sampler<R>;
  /** Their seeds are the noise. */
  requests: readonly R[];
  /** Rows that stay as they are: the real clips, and what they are compared with. */
  above: () => Promise<readonly (readonly Float32Array[])[]>;
}

/** A preset's own clips. */
export function presetPreviews(p: Preset, draw: Draw, sampler: Sampler): Previews<Request> {
  const clips = shown(p);
  const requests = clips.map(({ caption, video }, seed) => ({
    caption,
    frame: frameOf(video, videoShape(p), 0),
    seed,
  }));
  return { course: p, draw, sampler, requests, above: () => Promise.resolve([clips.map((c) => c.video)]) };
}

/** One row a sampling, under those that stay. @param net what of the state samples */
export const samplePreviews = <R extends { seed: number }>(
  { course: p, draw, sampler, requests, above }: Previews<R>,
  net: (state: State) => Sampled,
  samplings: readonly Sampling[],
): Job['samples'] => ({
  every: p.run.sampleEvery,
  async draw(state: State) {
    const rows = [...(await above())];
    for (const s of samplings) rows.push((await sampler.sample(net(state), requests, s)).videos);
    return draw(rows, videoShape(p));
  },
});

/** One row: what the VAE makes of the clips. Holds a compiled program until `free`. */
export function reconstructions(device: Device, p: Preset, draw: Draw): Job['samples'] & { free(): Promise<void> } {
  const shape = videoShape(p);
  const clips = shown(p).map((c) => c.video);
  const config = vaeConfigOf(p);
  const program = device.compile((net: Params, video: Tensor) => decode(net, config, encode(net, config, video).mean), {
    name: 'reconstruct',
  });
  return {
    every: p.run.sampleEvery,
    async draw(state: State) {
      const rows: Float32Array[] = [];
      for (const clip of clips) {
        const made = await program(state['vae']!.params as Record<string, NDArray>, stackRows([clip], shape));
        rows.push((await made.read()) as Float32Array);
        made.free();
      }
      return draw([clips, rows], shape);
    },
    free: () => program.free(),
  };
}

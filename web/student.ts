/** The bundled student in a page: its files are fetched once, and every clip is one evaluation of its network. */
import type { Device } from '../engine/runtime/device.ts';
import type { NDArray } from '../engine/runtime/ndarray.ts';
import { toDevice } from '../train/loop/checkpoint.ts';
import { checkPair, loadDiT, loadVAE } from '../train/loop/models.ts';
import { videoShape } from '../train/methods/conditions.ts';
import { Codec, endsOf, Sampler, samplerOf, type Request } from '../train/methods/sample.ts';
import type { ClipShape } from '../train/data/frames.ts';

export interface Clip {
  /** [channels, frames, height, width] in [-1, 1]. */
  readonly video: Float32Array;
  readonly shape: ClipShape;
  /** Of the evaluation alone: without compiling, encoding and decoding. */
  readonly seconds: number;
}

/** Fetches a file once, told of bytes as they come; the address of what was fetched. */
async function fetched(url: string, onBytes: (bytes: number) => void): Promise<string> {
  const response = await fetch(url);
  if (!response.ok || !response.body) throw new Error(`${url}: the server answers ${response.status}`);
  const counted = response.body.pipeThrough(
    new TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>>({
      transform(chunk, controller) {
        onBytes(chunk.length);
        controller.enqueue(chunk);
      },
    }),
  );
  return URL.createObjectURL(await new Response(counted).blob());
}

/** Fetches and opens the student of a folder. The answer makes a clip of a request. @param onBytes told of bytes so far */
export async function openStudent(
  device: Device,
  folder: string,
  onBytes: (bytes: number) => void,
): Promise<(request: Request) => Promise<Clip>> {
  let bytes = 0;
  const add = (more: number): void => onBytes((bytes += more));
  const [vaeFile, netFile] = await Promise.all([
    fetched(`${folder}/vae.safetensors`, add),
    fetched(`${folder}/student.safetensors`, add),
  ]);
  const [vae, net] = [await loadVAE(vaeFile), await loadDiT(netFile)];
  for (const file of [vaeFile, netFile]) URL.revokeObjectURL(file);
  checkPair(vae, net);
  const { preset } = net.about;
  const sampler = new Sampler(device, preset, endsOf(preset, new Codec(device, vae.config, vae.params)));
  const weights = toDevice(device, net.params) as Record<string, NDArray>;
  return async (request) => {
    const { videos, seconds } = await sampler.sample(weights, [request], samplerOf(net));
    return { video: videos[0]!, shape: videoShape(preset), seconds };
  };
}

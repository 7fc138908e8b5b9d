/** The networks of a run or of the bundle as the sampling pipeline takes them: words for a text encoder, patches for an image encoder. */
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { readsImages } from '../../model/config.ts';
import { embedderOf } from '../../model/text.ts';
import { networkOf } from '../../model/pipeline/forward.ts';
import { halfOf, type VideoModel } from '../../model/pipeline/generate.ts';
import type { Sampling } from '../../model/pipeline/diffuse.ts';
import { toDevice } from '../loop/checkpoint.ts';
import { languageOf } from '../methods/conditions.ts';
import { checkPair, loadDiT, loadVAE, type Kind } from '../loop/models.ts';
import { pictures } from '../methods/networks.ts';
import type { Preset } from '../presets/index.ts';
import { loadLow, samplerOf } from '../methods/sample.ts';

interface TrainedModel {
  model: VideoModel;
  kind: Kind;
  preset: Preset;
  /** How it is meant to be sampled. */
  sampling: Sampling;
}

/** @throws one line: the files are not what they should be, or not made for each other */
export async function openTrained(vaePath: string, netPath: string): Promise<TrainedModel> {
  const net = await loadDiT(netPath);
  const vae = await loadVAE(vaePath);
  checkPair(vae, net);
  const { preset } = net.about;
  const low = await loadLow(net);
  if (low) checkPair(vae, low);
  const { text_dim: textDim, text_len: textLen } = net.config;
  const embed = embedderOf(languageOf(preset), textDim, textLen);
  const model: VideoModel = {
    dit: net.config,
    vae: vae.config,
    encodeText: (_device, texts) =>
      Promise.resolve(texts.map((text) => host(embed([text]).context.data, [textLen, textDim]))),
    loadDiT: (device, _progress, expert) =>
      Promise.resolve(networkOf(toDevice(device, (expert === 'low' && low ? low : net).params))),
    loadVAE: (device, half) => Promise.resolve(toDevice(device, halfOf(vae.params, half))),
    ...(readsImages(net.config) &&
      ({
        async encodeImages(device, images) {
          const tokens = device.compile(pictures, { name: 'picture tokens' });
          const all: HostTensor[] = [];
          for (const image of images) {
            const t = await tokens({ ...image, shape: [1, ...image.shape] });
            all.push(host(await t.read(), t.shape.slice(1)));
          }
          await tokens.free();
          return all;
        },
      } satisfies Partial<VideoModel>)),
  };
  return { model, kind: net.kind, preset, sampling: samplerOf(net) };
}

/** A model file, sampled: clips for requests, and a report on the held-out conditions. */
import type { Device } from '../../engine/runtime/device.ts';
import type { NDArray } from '../../engine/runtime/ndarray.ts';
import type { Sampling } from '../../model/pipeline/diffuse.ts';
import { freeTree, toDevice } from '../loop/checkpoint.ts';
import type { ClipJudge } from './clipjudge.ts';
import type { Clip } from '../data/sets.ts';
import { checkPair, loadDiT, loadVAE, type Kind } from '../loop/models.ts';
import type { Preset } from '../presets/index.ts';
import {
  Codec,
  endsOf,
  loadLow,
  Sampler,
  samplerOf,
  type Request,
  type Sampled,
  type Samples,
} from '../methods/sample.ts';

export interface Infer {
  device: Device;
  /** Model files. */
  vae: string;
  model: string;
  /** Sampling steps, instead of those the model is meant for. */
  steps?: number | undefined;
  signal?: AbortSignal | undefined;
  onProgress?: ((done: number, count: number) => void) | undefined;
}

interface Ready {
  preset: Preset;
  kind: Kind;
  settings: Sampling;
  sampler: Sampler;
  net: Sampled;
}

/** Opens the models, runs `body`, and gives their memory back. */
async function withModel<R>(w: Infer, body: (ready: Ready) => Promise<R>): Promise<R> {
  const vae = await loadVAE(w.vae);
  const model = await loadDiT(w.model);
  checkPair(vae, model);
  const { preset } = model.about;
  const usual = samplerOf(model);
  const settings = { ...usual, steps: w.steps ?? usual.steps };
  const codec = new Codec(w.device, vae.config, vae.params);
  const sampler = new Sampler(w.device, preset, endsOf(preset, codec));
  const low = await loadLow(model);
  if (low) checkPair(vae, low);
  const placed = ({ params }: typeof model) => toDevice(w.device, params) as Record<string, NDArray>;
  const net = low ? { high: placed(model), low: placed(low) } : placed(model);
  try {
    return await body({ preset, kind: model.kind, settings, sampler, net });
  } finally {
    await sampler.close();
    await codec.close();
    freeTree(net);
  }
}

/** Clips for requests, as the model is meant to be sampled: a teacher by its preset, a student in the steps it was trained for. */
export function sampleClips(w: Infer & { requests: readonly Request[] }): Promise<Samples> {
  return withModel(w, ({ sampler, net, settings }) => sampler.sample(net, w.requests, settings, w));
}

export interface Report<C extends Clip = Clip, E = unknown> {
  kind: Kind;
  settings: Sampling;
  samples: Samples;
  evaluation: E;
  /** The real clips of the same conditions, judged the same way. */
  real: E;
  judge: ClipJudge<C, E>;
}

/** Samples held-out conditions and judges the clips beside the real ones. @param w.judge opens what judges a preset's clips */
export function evaluate<C extends Clip, E>(
  w: Infer & { judge: (p: Preset) => Promise<ClipJudge<C, E>> },
): Promise<Report<C, E>> {
  return withModel(w, async ({ sampler, net, settings, preset, kind }) => {
    const judge = await w.judge(preset);
    const { evaluation, samples } = await judge.judge(sampler, net, settings, w);
    return { kind, settings, samples, evaluation, real: judge.evaluate(judge.clips.map((c) => c.video)), judge };
  });
}

/** The sampling commands: clips from a model file, and a report of it on the held-out conditions. */
import type { Device } from '../engine/device.ts';
import type { NDArray } from '../engine/ndarray.ts';
import { freeTree, toDevice } from './checkpoint.ts';
import { Judge } from './eval.ts';
import { loadClassifier } from './metrics/classifier.ts';
import type { Evaluation } from './metrics/evaluate.ts';
import { checkPair, loadDiT, loadVAE, type Kind } from './models.ts';
import { checkPreset, type Preset } from './presets/index.ts';
import { Codec, Sampler, studentSampler, teacherSampler, type Request, type SamplerSettings, type Samples } from './sample.ts';

export interface Infer {
  device: Device;
  /** Model files. */
  vae: string;
  model: string;
  /** Sampling steps; by default those a student was trained for, the preset's for a teacher. */
  steps?: number | undefined;
  /** Guidance of a teacher. */
  guidance?: number | undefined;
  /** Clips at a time. */
  batch?: number | undefined;
  signal?: AbortSignal | undefined;
  onProgress?: ((done: number, count: number) => void) | undefined;
}

interface Ready { preset: Preset; kind: Kind; settings: SamplerSettings; sampler: Sampler; net: Record<string, NDArray> }

/** Opens the models, runs `body`, and gives their memory back. */
async function withModel<R>(w: Infer, frames: number | undefined, body: (ready: Ready) => Promise<R>): Promise<R> {
  const vae = await loadVAE(w.vae);
  const model = await loadDiT(w.model);
  checkPair(vae, model);
  const made = model.about.preset;
  const preset = frames === undefined ? made : checkPreset({ ...made, data: { ...made.data, frames } });
  const usual = model.kind === 'teacher' ? teacherSampler(preset) : studentSampler(preset.student.steps);
  const settings = { ...usual, steps: w.steps ?? usual.steps, guidance: w.guidance ?? usual.guidance };
  if (model.kind === 'student' && settings.guidance !== 1) throw new Error('[sample] a student is never guided (guidance is distilled into it): leave the guidance scale out');
  const codec = new Codec(w.device, vae.config, vae.params);
  const sampler = new Sampler(w.device, preset, codec);
  const net = toDevice(w.device, model.params) as Record<string, NDArray>;
  try {
    return await body({ preset, kind: model.kind, settings, sampler, net });
  } finally {
    await sampler.close();
    await codec.close();
    freeTree(net);
  }
}

/** Clips for requests. @param frames other than the model was trained on: 1 + a multiple of 4 */
export function sampleClips(w: Infer & { requests: readonly Request[]; frames?: number | undefined }): Promise<Samples & { preset: Preset; settings: SamplerSettings }> {
  return withModel(w, w.frames, async ({ sampler, net, settings, preset }) => ({ ...await sampler.sample(net, w.requests, settings, w), preset, settings }));
}

export interface Report {
  kind: Kind;
  settings: SamplerSettings;
  samples: Samples;
  evaluation: Evaluation;
  /** The real clips of the same conditions, judged the same way. */
  real: Evaluation;
  judge: Judge;
}

/** Samples `count` held-out conditions and judges the clips beside the real ones. */
export function evaluate(w: Infer & { classifier: string; count?: number | undefined }): Promise<Report> {
  return withModel(w, undefined, async ({ sampler, net, settings, preset, kind }) => {
    const judge = Judge.heldOut(preset, await loadClassifier(w.classifier), w.count);
    const { evaluation, samples } = await judge.judge(sampler, net, settings, w);
    return { kind, settings, samples, evaluation, real: judge.evaluate(judge.clips.map((c) => c.video)), judge };
  });
}

/**
 * The training commands: each function does one part of the work in `out` and resumes what is there.
 *
 *   out/vae.safetensors, teacher.safetensors, student.safetensors    the models
 *   out/teacher.low.safetensors                                      of two experts the one for low noise
 *   out/student.lora.safetensors                                     beside it, where it is adapters of the teacher
 *   out/student.low.safetensors                                      where each of two experts gets a student (METHOD §1.19)
 *   out/{vae,data,teacher,priming,equilibrium}/                            the runs and the precomputed latents
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { host } from '../engine/frontend/tree.ts';
import type { VAEConfig } from '../model/config.ts';
import type { Expert, Sampling } from '../model/pipeline/diffuse.ts';
import { saveLora } from '../model/files/lora.ts';
import { inFile } from '../model/files/origin.ts';
import type { HostParams } from '../model/params.ts';
import { freeTree, toDevice, toHost } from './loop/checkpoint.ts';
import { ditConfigOf, latentShape, stackRows, vaeConfigOf, videoShape } from './methods/conditions.ts';
import { clipsOf, heldOutClips } from './data/sets.ts';
import { collect, precompute as makeShards, type Plan, type Recipe, type Shards } from './data/shards.ts';
import { courseFor, runStages, turnsOf, type Kept } from './distill.ts';
import { METHODS, type MethodName } from './methods/index.ts';
import type { Method } from './methods/stage.ts';
import { Judge } from './judge/eval.ts';
import { FlareJudge } from './judge/flarejudge.ts';
import { teacherJob, vaeJob } from './methods/jobs.ts';
import { readAverage } from './loop/loop.ts';
import { loadClassifier } from './metrics/classifier.ts';
import { psnr } from './data/frames.ts';
import { checkFit, checkPair, loadDiT, loadVAE, openDiT, saveModel, type Model } from './loop/models.ts';
import { wholeOf } from './methods/networks.ts';
import { PixelJudge } from './judge/pixeljudge.ts';
import { presetPreviews, reconstructions, samplePreviews } from './judge/previews.ts';
import {
  Codec,
  endsOf,
  Sampler,
  studentSampler,
  studentsSampler,
  teacherSampler,
  teachesTwo,
} from './methods/sample.ts';
import { withoutCritic } from './methods/critic.ts';
import { LatentStatistics } from './methods/vae.ts';
import { folderOf } from './presets/renamed.ts';
import type { Preset } from './presets/index.ts';
import { cutAsBegun } from './ranks/cut.ts';
import { isLeader, leading } from './ranks/ranks.ts';
import type { Spread } from './spread.ts';
import { run, type Made, type Work } from './work.ts';

/** The preset with its batches as a job in its folder has them. */
const cut = ({ preset, out, ranks }: Work, job: string): Promise<Preset> =>
  cutAsBegun(preset, { folder: out, job, begun: () => existsSync(join(folderOf(out, job), 'config.json')) }, ranks);

/** Trains the VAE, then measures the latents' mean and deviation and its PSNR on held-out clips. */
export async function trainVae(w: Work): Promise<Made & { psnr?: number }> {
  const { device, ranks } = w;
  const p = await cut(w, 'vae');
  const path = join(w.out, 'vae.safetensors');
  const samples = w.draw && reconstructions(device, p, w.draw);
  const job = vaeJob(device, p, ranks);
  const close = async () => {
    await Promise.all([job.close(), samples?.free()]);
  };
  const { state, step, done } = await run(
    w,
    { ...job, samples, close },
    { data: p.data, vae: p.vae, trainVae: p.trainVae },
  );
  const params = withoutCritic(await toHost(state['vae']!.params)) as HostParams;
  freeTree(state);
  if (!done || !isLeader(ranks)) return { done, step, path };

  const batch = p.trainVae.batch;
  const clip = clipsOf(p, 'train');
  const videos = (from: number, get: (i: number) => Float32Array) =>
    stackRows(
      Array.from({ length: batch }, (_, i) => get(from + i)),
      videoShape(p),
    );
  const raw = new Codec(device, vaeConfigOf(p), params);
  const statistics = new LatentStatistics(p.vae.z_dim);
  for (let i = 0; i < p.trainVae.statClips; i += batch) {
    const z = await raw.encode(videos(i, (j) => clip(j).video));
    statistics.add(z.data, z.shape);
  }
  await raw.close();
  const { mean, std } = statistics.result();
  const config: VAEConfig = { ...vaeConfigOf(p), latent_mean: mean, latent_std: std };

  const codec = new Codec(device, config, params);
  const heldOut = heldOutClips(p, Math.min(64, p.data.heldOutClips));
  let sum = 0;
  for (let i = 0; i < heldOut.length; i += batch) {
    const some = Array.from({ length: batch }, (_, j) => heldOut[(i + j) % heldOut.length]!.video);
    const z = toDevice(device, await codec.encode(videos(0, (j) => some[j]!)));
    const made = await codec.decode(z as never);
    freeTree(z);
    made.slice(0, heldOut.length - i).forEach((video, j) => {
      sum += psnr(video, some[j]!);
    });
  }
  await codec.close();
  const quality = sum / heldOut.length;
  await saveModel(path, { kind: 'vae', config, params, about: { preset: p, steps: step, psnr: quality } });
  return { done, step, path, psnr: quality };
}

type Precompute = Work & { vae?: string; onClips?: (done: number, count: number) => void };
/** What decides a preset's shards. */
interface Encoded {
  preset: Preset;
  /** The run's folder. */
  out: string;
  vae: Model<VAEConfig>;
}

/** Encodes the training clips and their first frames into shards, or those still missing: rank 0 does. */
export const precompute = (w: Precompute): Promise<Shards> =>
  leading(w.ranks, async () => {
    const { recipe, close } = clipEncoder(w, await loadVAE(w.vae ?? join(w.out, 'vae.safetensors')));
    return makeShards(recipe).finally(close);
  });

const shardPlan = ({ preset: p, out, vae }: Encoded): Plan => {
  checkFit(vae, p.vae);
  return {
    dir: join(out, 'data'),
    count: p.data.trainClips,
    shardSize: p.data.shardClips,
    video: videoShape(p),
    latent: latentShape(p),
    settings: { vae: vae.hash, data: p.data, seed: p.seed, split: 'train' },
  };
};

/** How a preset's shards are made on a device; for the caller to close. */
export function clipEncoder(
  { preset: p, out, device, signal, onClips }: Precompute,
  vae: Model<VAEConfig>,
): { recipe: Recipe; close: () => Promise<void> } {
  const plan = shardPlan({ preset: p, out, vae });
  const codec = new Codec(device, vae.config, vae.params);
  const batchSize = Math.min(32, p.data.shardClips);
  const recipe: Recipe = {
    ...plan,
    batchSize,
    clip: clipsOf(p, 'train'),
    encode: async (videos) => {
      signal?.throwIfAborted();
      return (await codec.encode(host(videos, [batchSize, ...videoShape(p)]))).data as Float32Array;
    },
    onProgress: onClips,
  };
  return { recipe, close: () => codec.close() };
}

/** Has a preset's missing shards made by others, by their numbers. */
export const collectShards = (w: Encoded, make: Spread<number>): Promise<Shards> => collect(shardPlan(w), make);

/**
 * Trains the teacher on the shards in `out/data`, made if missing; its averaged weights are the model.
 * Of two experts each is trained on its own range of times.
 */
export async function trainTeacher(w: TeacherWork): Promise<Made> {
  const high = await trainNetwork(w, w.preset.experts && 'high');
  return w.preset.experts && high.done ? trainNetwork(w, 'low') : high;
}

type TeacherWork = Work & {
  vae?: string;
  /** A teacher to go on from, with fresh moments and the preset's warm-up and decay. */
  from?: string | undefined;
};

const teacherFile = (out: string, expert?: Expert): string =>
  join(out, expert === 'low' ? 'teacher.low.safetensors' : 'teacher.safetensors');

const studentFile = (out: string, which: 'lora' | 'low' | 'low.lora'): string =>
  join(out, `student.${which}.safetensors`);

async function trainNetwork(w: TeacherWork, expert: Expert | undefined): Promise<Made> {
  const p = await cut(w, 'teacher');
  const vae = await loadVAE(w.vae ?? join(w.out, 'vae.safetensors'));
  const from = w.from === undefined ? undefined : await loadDiT(w.from);
  if (from) {
    checkPair(vae, from);
    checkFit(from, ditConfigOf(p));
  }
  const shards = await precompute(w);
  const path = teacherFile(w.out, expert);
  const codec = new Codec(w.device, vae.config, vae.params);
  const sampler = new Sampler(w.device, p, endsOf(p, codec));
  const job = teacherJob(w.device, p, shards, {
    from: from && { params: from.params, steps: from.about.steps },
    ranks: w.ranks,
    expert,
  });
  const close = async () => {
    await Promise.all([job.close(), sampler.close(), codec.close()]);
  };
  const { low: _, ...alone } = teacherSampler(p);
  const samples =
    w.draw && samplePreviews(presetPreviews(p, w.draw, sampler), (state) => state['teacher']!.ema!, [alone]);
  const { state, step, done } = await run(
    w,
    { ...job, samples, close },
    { data: shards.made, dit: ditConfigOf(p), teacher: p.teacher, ...(from && { from: from.hash }) },
  );
  const steps = step + (from?.about.steps ?? 0);
  if (done && isLeader(w.ranks))
    await saveModel(path, {
      kind: 'teacher',
      config: ditConfigOf(p),
      params: (await toHost(state['teacher']!.ema!)) as HostParams,
      about: { preset: p, steps, vae: vae.hash, ...(from && { from: from.hash }) },
    });
  freeTree(state);
  return { done, step, path };
}

export interface Distill extends Work {
  /** V-PAE unless given. */
  method?: MethodName | undefined;
  vae?: string | undefined;
  teacher?: string | undefined;
  /** The frozen classifier that chooses the best EMA of `digits` or `flare`. */
  classifier: string;
}

/** A student, and what each stage kept of it; where each of two experts gets one, also the low-noise one's file. */
export type Distilled = Made & { phases: Kept[]; low?: string };

/** How a run's pictures show a student: in one evaluation and in four, or two of them as they are meant to be sampled. */
const previewed = (p: Preset): Sampling[] =>
  teachesTwo(p) ? [studentsSampler(p)] : [1, 4].map((n) => studentSampler(n));

/** Distils the teacher of a preset on its own data. Each stage's model is its EMA with the best score (`Judge.score`). */
export async function distill(w: Distill): Promise<Distilled> {
  const { device } = w;
  const method: Method = METHODS[w.method ?? 'vpae'];
  const p = courseFor(method, await cut(w, method.stages[0]!.name));
  const vae = await loadVAE(w.vae ?? join(w.out, 'vae.safetensors'));
  const teacher = await loadDiT(w.teacher ?? teacherFile(w.out));
  const low = p.experts && (await loadDiT(teacherFile(w.out, 'low')));
  const nets = low ? [teacher, low] : [teacher];
  for (const net of nets) {
    checkPair(vae, net);
    checkFit(net, ditConfigOf(p));
  }
  const shards = await precompute(w);
  const files = await Promise.all(nets.map(openDiT));
  const codec = new Codec(device, vae.config, vae.params);
  const sampler = new Sampler(device, p, endsOf(p, codec));
  const path = join(w.out, 'student.safetensors');
  const { draw } = w;
  try {
    const judge =
      p.data.set === 'emoji'
        ? PixelJudge.validation(p)
        : p.data.set === 'flare'
          ? await FlareJudge.validation(p, w.classifier)
          : Judge.validation(p, await loadClassifier(w.classifier));
    const made = { data: shards.made, teacher: teacher.hash, ...(low && { low: low.hash }) };
    const {
      done,
      step,
      phases,
      files: kept,
    } = await runStages(w, turnsOf(method, p, made), {
      shards,
      teacher: inFile(files[0]!),
      low: files[1] && inFile(files[1]),
      choose: p.best.every ? (net) => judge.choose(sampler, net, studentsSampler(p)) : undefined,
      samples: draw && ((job) => samplePreviews(presetPreviews(p, draw, sampler), job.student, previewed(p))),
    });
    if (!done || !isLeader(w.ranks)) return { done, step, path, phases };
    const { mode, alpha, rank } = p.student;
    for (const [i, net] of nets.entries()) {
      const file = kept[i ? 'low' : 'high'];
      if (file === undefined) continue;
      const { params } = await readAverage(file);
      if (mode === 'lora')
        await saveLora(studentFile(w.out, i ? 'low.lora' : 'lora'), params, {
          naming: 'comfyui',
          scale: alpha / rank,
          metadata: { base: net.hash },
        });
      await saveModel(i ? studentFile(w.out, 'low') : path, {
        kind: 'student',
        config: ditConfigOf(p),
        params: wholeOf(p.student, net.params, params),
        about: { preset: p, steps: step, vae: vae.hash, teacher: net.hash, phases },
      });
    }
    return { done, step, path, phases, ...(kept.low !== undefined && { low: studentFile(w.out, 'low') }) };
  } finally {
    await sampler.close();
    await codec.close();
    for (const file of files) await file.close();
  }
}

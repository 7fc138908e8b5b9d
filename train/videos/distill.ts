/** A downloaded model distilled on records of real videos, by the same methods. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { clipTokens } from '../../model/clip/clip.ts';
import { givenFrames, hasBeside, vaeStride } from '../../model/config.ts';
import type { Checkpoint } from '../../model/files/checkpoint.ts';
import { exportWeights } from '../../model/files/export.ts';
import { fingerprint } from '../../model/files/fingerprint.ts';
import { saveLora } from '../../model/files/lora.ts';
import { OWN } from '../../model/files/names.ts';
import { openWeights } from '../../model/files/open.ts';
import { inFile } from '../../model/files/origin.ts';
import type { Expert } from '../../model/pipeline/diffuse.ts';
import { wanModel, wanSampling } from '../../model/pipeline/wan.ts';
import { ditConfigOf, videoShape } from '../methods/conditions.ts';
import { setAside, type VideoShards } from '../data/videos.ts';
import { courseFor, runStages, turnsOf } from '../distill.ts';
import { METHODS, type MethodName } from '../methods/index.ts';
import type { Method } from '../methods/stage.ts';
import type { Distilled } from '../pipeline.ts';
import { writeError } from '../loop/files.ts';
import type { StudentJob } from '../methods/jobs.ts';
import { readAverage } from '../loop/loop.ts';
import { PixelJudge } from '../judge/pixeljudge.ts';
import { loadPreset, type Course } from '../presets/index.ts';
import { folderOf } from '../presets/renamed.ts';
import { wanSettings } from '../presets/wan.ts';
import { cutAsBegun } from '../ranks/cut.ts';
import { isLeader } from '../ranks/ranks.ts';
import { samplePreviews } from '../judge/previews.ts';
import { canonical } from '../loop/canonical.ts';
import { Sampler, studentsSampler } from '../methods/sample.ts';
import type { Work } from '../work.ts';
import { PREVIEWED, RecordEnds, type Remake } from './records.ts';

/** How a checkpoint is distilled on latents of one form. @param sets overrides such as `student.mode=lora` */
export function courseOf(
  { family, boundary, dit: { config }, vae: { config: vae }, path }: Checkpoint,
  latent: readonly number[],
  sets: readonly string[],
  seed?: number,
): Course {
  const {
    model_type: type,
    dim,
    num_heads,
    ffn_dim,
    num_layers,
    patch_size,
    freq_dim,
    clip_dim,
    text_dim,
    text_len,
  } = config;
  const { dit, ...settings } = wanSettings(config, latent, sets);
  const [time, down, across] = vaeStride(vae);
  const [, frames, height, width] = latent as [number, number, number, number];
  const usual = loadPreset('digits');
  const course: Course = {
    ...usual,
    ...settings,
    name: `${family.title.toLowerCase().replace(' ', '-')}-${type}`,
    ...(family.experts && { experts: { boundary: boundary ?? family.experts.boundary(config) } }),
    seed: seed ?? usual.seed,
    dit: {
      model_type: type,
      dim,
      num_heads,
      ffn_dim,
      num_layers,
      patch_size: [...patch_size],
      freq_dim,
      clip_dim,
      ...dit,
    },
    text: { text_dim, text_len },
    vae: {
      dim: vae.dim,
      z_dim: vae.z_dim,
      dim_mult: [...vae.dim_mult],
      num_res_blocks: vae.num_res_blocks,
      temperal_downsample: [...vae.temperal_downsample],
      channels: vae.channels,
      ...(vae.is_residual && { dec_dim: vae.dec_dim, patch_size: vae.patch_size, is_residual: true }),
    },
    data: { set: 'videos', width: width * across, height: height * down, frames: 1 + (frames - 1) * time },
  };
  const { checkpoint: _c, ffn_parts: _p, ...own } = ditConfigOf(course);
  const differing = Object.entries(own).find(
    ([name, value]) => canonical(value) !== canonical(config[name as keyof typeof config]),
  );
  if (differing)
    throw new Error(
      `[distill] ${path} has ${differing[0]} ${canonical(config[differing[0] as keyof typeof config])}, ${type} is trained with ${canonical(differing[1])}`,
    );
  return course;
}

/** @throws one line when the records were made for a checkpoint that is told more or fewer frames */
function checkRecords({ dit: { config }, image, path }: Checkpoint, shards: VideoShards): void {
  const { embedded, imageLatent } = shards.records([0]);
  const tokens = embedded?.imageTokens?.shape[1] ?? 0;
  const seen = image ? tokens / clipTokens(image.config) : tokens || Number(imageLatent !== undefined);
  const [told, wanted] = [seen, hasBeside(config) ? givenFrames(config) : 0];
  if (told !== wanted)
    throw new Error(
      `[distill] the records tell ${told} of a clip's frames, ${path} is told ${wanted}: make records with it (vpae data make FOLDER --model ${path})`,
    );
}

export interface VideoDistill extends Omit<Work, 'preset'> {
  /** V-PAE unless given. */
  method?: MethodName | undefined;
  checkpoint: Checkpoint;
  shards: VideoShards;
  course: Course;
}

/**
 * Some records are set aside and never trained on (`setAside`): by them `PixelJudge` chooses each stage's average, and two of
 * them are shown, real, by the teacher (sampled once a process) and by the student. The student is written as a LoRA file where it is
 * one, else whole, under Wan's names, with its course in the metadata; of two, that for low noise in a
 * file of its own. No weights are in host memory as a whole but a LoRA's.
 */
export async function distillVideos(w: VideoDistill): Promise<Distilled> {
  const { checkpoint, device, draw } = w;
  const method: Method = METHODS[w.method ?? 'vpae'];
  const begun = () => existsSync(join(folderOf(w.out, job), 'config.json'));
  const job = method.stages[0]!.name;
  const p = courseFor(method, await cutAsBegun(w.course, { folder: w.out, job, begun }, w.ranks));
  checkRecords(checkpoint, w.shards);
  const { mode, alpha, rank } = p.student;
  const { shards, heldOut } = setAside(w.shards, p.best.every ? p.best.clips : 0);
  const ends = new RecordEnds(device, p, wanModel(checkpoint), w.shards);
  const sampler = new Sampler(device, p, ends);
  const asked = (records: readonly number[]): Remake[] => records.map((record, seed) => ({ record, seed }));
  const judge = new PixelJudge(p, asked(heldOut), (i) => ends.clip(heldOut[i]!));
  const shown = asked((heldOut.length ? heldOut : [0]).slice(0, PREVIEWED));
  const student = studentsSampler(p);
  let above: Promise<Float32Array[][]> | undefined;
  const compared = async (job: StudentJob): Promise<Float32Array[][]> => {
    const real: Float32Array[] = [];
    for (const { record } of shown) real.push(await ends.clip(record));
    const [, , height, width] = videoShape(p);
    return [real, (await sampler.sample(job.teacher, shown, wanSampling(checkpoint, { width, height }))).videos];
  };
  const fileOf = (expert: Expert): string =>
    join(w.out, `student${expert === 'low' ? '.low' : ''}${mode === 'lora' ? '.lora' : ''}.safetensors`);
  const path = fileOf('high');
  const file = await checkpoint.dit.open();
  const lowFile = await checkpoint.low?.open();
  try {
    const made = {
      data: shards.made,
      heldOut,
      latent: [...w.shards.latent],
      teacher: await fingerprint(file),
      ...(lowFile && { low: await fingerprint(lowFile) }),
    };
    const {
      done,
      step,
      phases,
      files: kept,
    } = await runStages(w, turnsOf(method, p, made), {
      shards,
      teacher: inFile(file),
      ...(lowFile && { low: inFile(lowFile) }),
      choose: heldOut.length ? (net) => judge.choose(sampler, net, student) : undefined,
      samples:
        draw &&
        ((job) =>
          samplePreviews(
            { course: p, draw, sampler, requests: shown, above: () => (above ??= compared(job)) },
            job.student,
            [student],
          )),
    });
    if (!done || !isLeader(w.ranks)) return { done, step, path, phases };
    const metadata = {
      format: 'pt',
      kind: 'student',
      config: JSON.stringify(checkpoint.dit.config),
      about: JSON.stringify({ preset: p, steps: step, teacher: made.teacher, data: made.data }),
    };
    for (const [expert, average] of Object.entries(kept) as [Expert, string][])
      try {
        if (mode === 'lora')
          await saveLora(fileOf(expert), (await readAverage(average)).params, {
            naming: 'comfyui',
            scale: alpha / rank,
            dtype: 'BF16',
            metadata,
          });
        else await exportAverage(average, fileOf(expert), metadata);
      } catch (error) {
        throw writeError('distill', fileOf(expert), error);
      }
    return { done, step, path, phases, ...(kept.low !== undefined && { low: fileOf('low') }) };
  } finally {
    await sampler.close();
    await file.close();
    await lowFile?.close();
  }
}

async function exportAverage(average: string, path: string, metadata: Readonly<Record<string, string>>): Promise<void> {
  const weights = await openWeights(average);
  await exportWeights(path, weights, { naming: OWN, dtype: 'BF16', metadata }).finally(() => weights.close());
}

/**
 * A downloaded Wan2.1 distilled on records of real videos, by the same two phases. Nothing here judges real videos, so the average at the
 * end of each phase is kept.
 */
import { join } from 'node:path';
import { vaeStride } from '../../model/config.ts';
import type { Checkpoint } from '../../model/files/checkpoint.ts';
import { saveLora } from '../../model/files/lora.ts';
import { inFile } from '../../model/files/origin.ts';
import { saveTensors } from '../../model/files/safetensors.ts';
import type { HostParams } from '../../model/params.ts';
import { freeTree, latestCheckpoint, openSaved, toHost } from '../checkpoint.ts';
import { ditConfigOf } from '../conditions.ts';
import type { VideoShards } from '../data/videos.ts';
import { writeError } from '../files.ts';
import type { StudentJob } from '../jobs.ts';
import { equilibriumJob, primingJob } from '../phases.ts';
import { run, type Trained, type Work } from '../pipeline.ts';
import { wanSettings } from '../planning/subject.ts';
import { loadPreset, type Course } from '../presets/index.ts';
import { canonical, hashOf } from '../run.ts';

/** How a checkpoint is distilled on latents of one form. @param sets overrides such as `student.mode=lora` */
export function courseOf({ dit: { config }, vae: { config: vae }, path }: Checkpoint, latent: readonly number[], sets: readonly string[], seed?: number): Course {
  const { model_type: type, dim, num_heads, ffn_dim, num_layers, patch_size, freq_dim, clip_dim, text_dim, text_len } = config;
  if (type === 'flf2v') throw new Error(`[distill] ${path} makes video between a first and a last frame: only text- and image-to-video are distilled`);
  const { dit, ...settings } = wanSettings(config, latent, sets);
  const [time, down, across] = vaeStride(vae);
  const [, frames, height, width] = latent as [number, number, number, number];
  const usual = loadPreset('digits');
  const course: Course = {
    ...usual, ...settings, name: `wan2.1-${type}`, seed: seed ?? usual.seed,
    dit: { model_type: type, dim, num_heads, ffn_dim, num_layers, patch_size: [...patch_size], freq_dim, clip_dim, ...dit },
    text: { text_dim, text_len },
    vae: { dim: vae.dim, z_dim: vae.z_dim, dim_mult: [...vae.dim_mult], num_res_blocks: vae.num_res_blocks, temperal_downsample: [...vae.temperal_downsample], channels: vae.channels },
    data: { set: 'videos', width: width * across, height: height * down, frames: 1 + (frames - 1) * time },
  };
  const { checkpoint: _c, ffn_parts: _p, ...own } = ditConfigOf(course);
  const differing = Object.entries(own).find(([name, value]) => canonical(value) !== canonical(config[name as keyof typeof config]));
  if (differing) throw new Error(`[distill] ${path} has ${differing[0]} ${canonical(config[differing[0] as keyof typeof config])}, ${type} is trained with ${canonical(differing[1])}`);
  return course;
}

export interface VideoDistill extends Omit<Work, 'preset' | 'draw'> {
  checkpoint: Checkpoint;
  shards: VideoShards;
  course: Course;
}

/**
 * Both phases. The student is written as a LoRA file where it is one, else whole, under Wan's names, with its course in the metadata.
 * Weights go from file to device and back: none is held in host memory as a whole.
 */
export async function distillVideos(w: VideoDistill): Promise<Trained> {
  const { checkpoint, course: p, shards } = w;
  const { mode, alpha, rank } = p.student;
  const path = join(w.out, mode === 'lora' ? 'student.lora.safetensors' : 'student.safetensors');
  const file = await checkpoint.dit.open();
  try {
    const teacher = inFile(file);
    const own = { data: shards.made, latent: [...shards.latent], dit: ditConfigOf(p), teacher: hashOf(new Uint8Array((await file.tensor('head.head.weight')).data.buffer)), student: p.student };
    const phase = (job: StudentJob, settings: Record<string, unknown>) => run({ ...w, preset: p }, job, { ...own, ...settings });

    const first = await phase(await primingJob(w.device, p, shards, teacher), { phase1: p.phase1 });
    freeTree(first.state);
    if (!first.done) return { done: false, step: first.step, path };

    const primed = await openSaved((await latestCheckpoint(first.folder))!);
    const second = await phase(await equilibriumJob(w.device, p, shards, teacher, primed.state['generator']!.ema!), { phase1: p.phase1, phase2: p.phase2 }).finally(primed.close);
    const metadata = { format: 'pt', kind: 'student', config: JSON.stringify(checkpoint.dit.config), about: JSON.stringify({ preset: p, steps: second.step, teacher: own.teacher, data: own.data }) };
    const average = second.state['generator']!.ema!;
    try {
      if (second.done && mode === 'lora') await saveLora(path, await toHost(average) as HostParams, { naming: 'comfyui', scale: alpha / rank, dtype: 'BF16', metadata });
      else if (second.done) await saveTensors(path, average, { dtype: 'BF16', metadata });
    } catch (error) {
      throw writeError('distill', path, error);
    } finally {
      freeTree(second.state);
    }
    return { done: second.done, step: second.step, path };
  } finally {
    await file.close();
  }
}

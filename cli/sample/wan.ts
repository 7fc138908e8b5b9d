/** The model that `vpae sample` takes its clips from: a run or the bundle of this program, or a downloaded folder of Wan's. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { HostTensor } from '../../engine/frontend/tree.ts';
import { host } from '../../engine/frontend/tree.ts';
import { givenFrames, holdsFirst, type VAEConfig } from '../../model/config.ts';
import type { Family, Release } from '../../model/families/index.ts';
import { openCheckpoint } from '../../model/files/checkpoint.ts';
import type { FloatStorage } from '../../model/files/upload.ts';
import type { Sampling } from '../../model/pipeline/diffuse.ts';
import type { VideoModel } from '../../model/pipeline/generate.ts';
import type { Precision } from '../../model/pipeline/precision.ts';
import { sizeLike, type Size } from '../../model/pipeline/size.ts';
import { wanModel, wanSampling } from '../../model/pipeline/wan.ts';
import { tokenize, wordsIn, wordsOf, type Language } from '../../model/text.ts';
import { languageOf, videoShape } from '../../train/methods/conditions.ts';
import { conditions } from '../../train/data/digits.ts';
import { firstFrame, FRAMES_EACH } from '../../train/data/firstframes.ts';
import { digitsOf } from '../../train/data/sets.ts';
import { frameOf } from '../../train/data/frames.ts';
import type { Preset } from '../../train/presets/index.ts';
import { studentSampler } from '../../train/methods/sample.ts';
import { openTrained } from '../../train/videos/model.ts';
import { didYouMean, UsageError } from '../common/errors.ts';
import { BUNDLE, modelFile, ownOr } from '../common/files.ts';
import { readLoras } from '../common/lora.ts';
import { openStill, pixelsOf } from '../media/still.ts';
import type { Wanted } from './jobs.ts';

/** A model with what is usual for it. */
export interface Source {
  readonly model: VideoModel;
  /** As one calls it: `student`. */
  readonly name: string;
  /** A downloaded one, whose clips take long. */
  readonly released: boolean;
  /** Its family and numbers, where it is a downloaded one. */
  readonly release?: Pick<Release, 'dit'> & { family: Family; vae: VAEConfig };
  /** Whether guidance is distilled into it. */
  readonly student: boolean;
  readonly size: Size;
  readonly frames: number;
  readonly fps: number;
  readonly negative: string;
  /** Screen pixels a pixel. */
  readonly scale: number;
  sampling(size: Size): Sampling;
  /** The frames that a clip is made from, and its size where that follows from the first. @throws one line before anything is loaded */
  given(wanted: Wanted, size: Size): Promise<{ pictures: HostTensor[]; size: Size }>;
}

export interface Which {
  model: string;
  teacher: boolean;
  student: boolean;
  lora: readonly string[];
  weights: readonly string[];
  dtype?: FloatStorage | undefined;
  precision?: Precision | undefined;
  offload?: boolean | undefined;
}

export async function openSource(which: Which): Promise<Source> {
  if (which.teacher && which.student) throw new UsageError('--teacher and --student: one of them');
  const own = (['student', 'teacher', 'vae'] as const).some((kind) => existsSync(modelFile(which.model, kind)));
  const foreign = ['model_index.json', 'config.json'].some((name) => existsSync(join(which.model, name)));
  return own && !foreign ? trainedSource(which) : wanSource(which);
}

/** The pixels of a picture [channels, height, width] in [-1, 1]; its middle, scaled to fill `size`, if that is given. */
async function readPicture(path: string, channels: number, size?: Size): Promise<HostTensor> {
  const read = async () => {
    const image = await openStill(path);
    const sized = size ? image.resize(size.width, size.height, { fit: 'cover' }) : image;
    return pixelsOf(sized, channels === 1 ? 'b-w' : 'srgb');
  };
  const { data, info } = await read().catch((error: Error) => {
    throw new Error(`[image] ${path}: ${error.message.split('\n')[0]}`, { cause: error });
  });
  const plane = info.height * info.width;
  return host(
    Float32Array.from(
      { length: channels * plane },
      (_, i) => (data[(i % plane) * info.channels + Math.floor(i / plane)]! / 255) * 2 - 1,
    ),
    [channels, info.height, info.width],
  );
}

/** The steps a student was trained for, as our own files say in their metadata; nothing where they are no student's. */
function stepsOf({ kind, about }: Readonly<Record<string, string>>): number | undefined {
  if (kind !== 'student') return undefined;
  const { preset } = JSON.parse(about ?? '{}') as { preset?: { student?: { steps?: number } } };
  return preset?.student?.steps ?? 1;
}

/** A student of two experts changes from one to the other where its teachers do. */
const studentOf = ({ low }: Sampling, steps: number | undefined): Sampling => ({
  ...studentSampler(steps),
  ...(low && { low: { ...low, guidance: 1 } }),
});

async function wanSource({
  model: path,
  student: asked,
  lora,
  weights: named,
  dtype,
  offload,
}: Which): Promise<Source> {
  const checkpoint = await openCheckpoint(path, named);
  const { family } = checkpoint;
  const loras = await readLoras(lora, checkpoint);
  const weights = await checkpoint.dit.open();
  await weights.close();
  const trained = [weights.metadata, ...loras.map((l) => l.file.metadata)].map(stepsOf).find((n) => n !== undefined);
  const student = asked || trained !== undefined;
  const { config } = checkpoint.dit;
  const given = givenFrames(config);
  const model = wanModel(checkpoint, { loras, dtype, offload });
  const opened = new Map<string, Promise<HostTensor>>(); // one for all clips made from it
  const open = (file: string, size?: Size): Promise<HostTensor> => {
    const name = `${file} ${size?.width} ${size?.height}`;
    if (!opened.has(name)) opened.set(name, readPicture(file, 3, size));
    return opened.get(name)!;
  };
  return {
    model,
    name: `${family.title}${holdsFirst(config) ? '' : ` ${config.model_type}`}${student ? ' student' : ''}`,
    released: true,
    release: { family, dit: config, vae: model.vae },
    student,
    size: family.size,
    frames: family.frames,
    fps: family.fps,
    scale: 1,
    negative: family.negative(config),
    sampling: (size) => (student ? studentOf(wanSampling(checkpoint, size), trained) : wanSampling(checkpoint, size)),
    async given({ image, lastImage, prompt }, size) {
      if (!given && image !== undefined) throw new UsageError(`--image: ${path} makes video from text alone`);
      if (given < 2 && lastImage !== undefined)
        throw new UsageError(`--last-image: ${path} makes video from ${given ? 'a first frame' : 'text'} alone`);
      if (!given || (holdsFirst(config) && image === undefined)) return { pictures: [], size };
      if (image === undefined) throw new UsageError(`"${prompt}" needs a first frame: --image FILE`);
      const first = await open(image);
      const [, height, width] = first.shape as [number, number, number];
      const fitting = sizeLike(model, { width, height }, size);
      if (given < 2) return { pictures: [family.fit === 'cover' ? await open(image, fitting) : first], size: fitting };
      if (lastImage === undefined) throw new UsageError(`"${prompt}" needs a last frame: --last-image FILE`);
      return { pictures: [first, await open(lastImage, { width, height })], size: fitting };
    },
  };
}

async function trainedSource({
  model: dir,
  teacher,
  lora,
  weights,
  dtype,
  precision,
  offload,
}: Which): Promise<Source> {
  const foreign = weights.length
    ? 'weights'
    : lora.length
      ? 'lora'
      : dtype
        ? 'dtype'
        : precision
          ? 'precision'
          : offload && 'offload';
  if (foreign)
    throw new UsageError(
      `--${foreign} goes with a downloaded folder, and ${dir} has neither config.json nor model_index.json`,
    );
  const asked = teacher ? 'teacher' : 'student';
  const { model, kind, preset, sampling } = await openTrained(ownOr(dir, BUNDLE, 'vae'), modelFile(dir, asked));
  if (kind !== asked) throw new Error(`[model] ${modelFile(dir, asked)} is a ${kind}, expected a ${asked}`);
  const [channels, frames, height, width] = videoShape(preset);
  return {
    model,
    name: kind,
    released: false,
    student: kind === 'student',
    size: { width, height },
    frames,
    fps: 8,
    scale: 6,
    negative: '',
    sampling: () => sampling,
    async given(wanted, size) {
      if (wanted.lastImage !== undefined)
        throw new UsageError('--last-image goes with a downloaded folder that takes a first and a last frame');
      checkWords(wanted.prompt, languageOf(preset));
      if (!givenFrames(model.dit)) return { pictures: [], size };
      return {
        pictures: [
          wanted.image === undefined
            ? await usualFrame(wanted, preset)
            : await readPicture(wanted.image, channels, { width: height, height }),
        ],
        size,
      };
    },
  };
}

/** @throws one line naming the first word that was never in a caption, and the nearest one that was */
function checkWords(prompt: string, language: Language): void {
  const known = wordsOf(language);
  try {
    if (language === 'digits') tokenize(prompt);
    else wordsIn(prompt, language);
  } catch (error) {
    const [, word] = /unknown word "(.*?)"/.exec((error as Error).message) ?? [];
    throw new Error((error as Error).message + didYouMean(word ?? '', known ?? []), { cause: error });
  }
}

/** A first frame for who gives none: of held-out digits with this caption, other handwriting for each seed. */
async function usualFrame({ prompt, seed }: Wanted, p: Preset): Promise<HostTensor> {
  if (p.data.set === 'emoji' || p.data.set === 'flare')
    throw new UsageError(`"${prompt}" needs a first frame: --image FILE`);
  const caption = prompt.split(/\s+/).filter(Boolean).join(' ');
  const kept = await firstFrame(modelFile(BUNDLE, 'frames'), p, caption, seed);
  if (kept) return kept;
  const clips = conditions(p.seed, 80 * FRAMES_EACH, digitsOf(p)).filter((c) => c.caption === caption); // every caption comes once in 80
  if (!clips.length)
    throw new Error(
      `[sample] without --image the prompt names a digit and its way, as "a 3 moving up-left", got "${prompt}"`,
    );
  const [channels, , height, width] = videoShape(p);
  return host(frameOf(clips[seed % clips.length]!.video, videoShape(p), 0), [channels, height, width]);
}

/** Clips that are asked for, checked before anything is computed, and how they are made on a device. */
import { EngineError } from '../../engine/host/errors.ts';
import type { Device } from '../../engine/runtime/device.ts';
import { vaeStride } from '../../model/config.ts';
import { isGuided, type Sampling } from '../../model/pipeline/diffuse.ts';
import { generate, type Job, type Made, type Progress } from '../../model/pipeline/generate.ts';
import { precisionOn, type Precision } from '../../model/pipeline/precision.ts';
import { checkClip, parseSize, type Size } from '../../model/pipeline/size.ts';
import type { SolverKind } from '../../model/schedulers/index.ts';
import { wanSubject } from '../../train/planning/subject.ts';
import { printable, UsageError } from '../common/errors.ts';
import { willWrite } from '../common/files.ts';
import { memoryBytes } from '../common/options.ts';
import { orLeave } from '../common/session.ts';
import { cutTexts } from '../common/tokens.ts';
import { checkRate, sinkFor, type Sink } from '../media/sink.ts';
import { LAYERS, tuneFirst } from '../tune/first.ts';
import type { Wanted } from './jobs.ts';
import type { Source } from './wan.ts';

/** How clips are to be made, under the options' names. */
export interface How {
  model: string;
  size?: string | undefined;
  frames?: number | undefined;
  steps?: number | undefined;
  sampler?: 'unipc' | 'dpm++' | 'euler' | undefined;
  shift?: number | undefined;
  'guidance-scale'?: number | undefined;
  'guidance-scale-2'?: number | undefined;
  precision?: Precision | undefined;
  memory?: string | undefined;
  fps?: number | undefined;
  tile?: number | undefined;
  tune: boolean;
}

export interface Clips {
  how: How;
  source: Source;
  todo: readonly Wanted[];
  jobs: readonly Job[];
  sampling: Sampling;
  frames: number;
  fps: number;
  budget: number | undefined;
  files: readonly Awaited<ReturnType<typeof sinkFor>>[];
}

const solverOf = (sampler: NonNullable<How['sampler']>): SolverKind => (sampler === 'dpm++' ? 'dpmpp' : sampler);

/** The model's usual sampling with what was asked for. */
function samplingOf(args: How, source: Source, size: Size): Sampling {
  const usual = source.sampling(size);
  if (source.student && args.sampler) throw new UsageError("--sampler is a teacher's: a student goes from x̂0 to x̂0");
  if (args['guidance-scale-2'] !== undefined && !usual.low)
    throw new UsageError('--guidance-scale-2 is for the low-noise one of two experts, this model is one network');
  if (source.student && ((args['guidance-scale'] ?? 1) !== 1 || (args['guidance-scale-2'] ?? 1) !== 1))
    throw new UsageError('a student is never guided (guidance is distilled into it): leave --guidance-scale out');
  return {
    kind: args.sampler ? solverOf(args.sampler) : usual.kind,
    steps: args.steps ?? usual.steps,
    shift: args.shift ?? usual.shift,
    guidance: args['guidance-scale'] ?? usual.guidance,
    ...(usual.low && {
      low: { ...usual.low, guidance: args['guidance-scale-2'] ?? args['guidance-scale'] ?? usual.low.guidance },
    }),
  };
}

const MOST_TILE = 16_384;

function checkTile(tile: number | undefined, { model: { vae } }: Source): void {
  const [, stride] = vaeStride(vae);
  if (tile !== undefined && (tile % stride || tile < 4 * stride || tile > MOST_TILE))
    throw new UsageError(`--tile must be a multiple of ${stride} from ${4 * stride} to ${MOST_TILE}, got ${tile}`);
}

/** What does not fit, with what makes it fit. */
function inTerms(error: unknown): never {
  if (!(error instanceof EngineError && /would exceed the budget/.test(error.message))) throw error;
  const what = error.message.replace(/ \([^()]*\.ts:\d+\)$/, '');
  throw new Error(`${what}: give more by --memory, or make the clip smaller by --size or --frames`, { cause: error });
}

/** @throws one line before anything is computed */
export async function prepareClips(how: How, source: Source, todo: readonly Wanted[]): Promise<Clips> {
  const files = await Promise.all(todo.map((w) => sinkFor(w.out)));
  checkTile(how.tile, source);
  const fps = how.fps ?? source.fps;
  for (const { out } of todo) checkRate(out, fps);
  const asked = how.size === undefined ? source.size : parseSize(how.size);
  const frames = how.frames ?? source.frames;
  const jobs: Job[] = [];
  for (const wanted of todo) {
    const { pictures, size } = await source.given(wanted, asked);
    checkClip(source.model.dit, source.model.vae, size, frames);
    const { prompt, negative = source.negative, seed } = wanted;
    jobs.push({ prompt, negative, pictures, size, frames, seed });
    willWrite(wanted.out);
  }
  const budget = how.memory === undefined ? undefined : memoryBytes(how.memory);
  return { how, source, todo, jobs, sampling: samplingOf(how, source, asked), frames, fps, budget, files };
}

/** One line on texts that are longer than what the model reads. */
export async function textsCut({ jobs, sampling, source }: Clips): Promise<string | undefined> {
  const texts = jobs.flatMap((j) => (isGuided(sampling) ? [j.prompt, j.negative] : [j.prompt]));
  const cut = await cutTexts(
    source.model,
    [...new Set(texts)].map((text) => ({ name: `"${text.slice(0, 40)}…"`, text })),
  );
  return cut && printable(cut);
}

interface Making {
  device: Device;
  signal: AbortSignal;
  progress: Progress;
  /** Told, before the first clip, of the model as it is used. */
  about?: (model: { name: string }) => void;
  /** Told before a clip takes its place, and after. */
  placing?: (wanted: Wanted) => void;
  made: (wanted: Wanted) => void | Promise<void>;
}

/** Makes the clips of these numbers, in order. Those that were finished stay when it fails. */
export async function makeClips(
  { how, source, todo, jobs, sampling, frames, fps, budget, files }: Clips,
  which: readonly number[],
  { device, signal, progress, about, placing, made }: Making,
): Promise<Made & { name: string }> {
  device.budget = budget ?? device.budget;
  const operands = source.released ? precisionOn(device.caps, how.precision) : 'f32';
  const name = `${source.name}${operands === 'f16' ? ' with f16 operands' : ''}`;
  about?.({ name });
  if (source.released)
    await tuneFirst(
      device,
      how.tune,
      () => ({
        jobs: ['sample'],
        subject: wanSubject(how.model, [], { ...source.release!, ...jobs[0]!.size, frames, layers: LAYERS }),
      }),
      signal,
    );
  let open: Sink | undefined;
  const work = generate(
    device,
    source.model,
    which.map((i) => jobs[i]!),
    {
      sampling,
      precision: operands,
      tile: how.tile,
      progress(...at) {
        progress(...at);
        signal.throwIfAborted();
      },
      async sink(at) {
        const i = which[at]!;
        const file = (open = await files[i]!({ ...jobs[i]!.size, frames, fps, scale: source.scale }));
        return {
          ...file,
          async end() {
            placing?.(todo[i]!);
            await file.end();
            open = undefined;
            await made(todo[i]!);
          },
        };
      },
    },
  );
  return { ...(await orLeave(signal, work, async () => open?.abort()).catch(inTerms)), name };
}

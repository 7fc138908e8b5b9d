/** `vpae sample`: prompts, and first frames where the model takes them, become videos. */
import type { CommandModule } from 'yargs';
import { EngineError } from '../engine/host/errors.ts';
import { generate, type Job } from '../model/pipeline/generate.ts';
import { checkClip, parseSize, type Size } from '../model/pipeline/size.ts';
import { vaeStride } from '../model/config.ts';
import { isGuided, type Sampling } from '../model/pipeline/diffuse.ts';
import { precisionOn } from '../model/pipeline/precision.ts';
import { type SolverKind } from '../model/schedulers/index.ts';
import { willWrite } from './common/files.ts';
import { checkRate, sinkFor, type Sink } from './media/sink.ts';
import { count, memoryBytes, model, MOST_SEED, precision, weights, type Args } from './common/options.ts';
import { stageMeter } from './common/progress.ts';
import { cutTexts } from './common/tokens.ts';
import { wantedClips } from './sample/jobs.ts';
import { keepsNotes, noteClip } from './sample/made.ts';
import { openSource, type Source } from './sample/wan.ts';
import { orLeave, session } from './common/session.ts';
import { LAYERS, tuneFirst, tuneOption } from './tune/first.ts';
import { wanSubject } from '../train/planning/subject.ts';
import { printable, UsageError } from './common/errors.ts';

/** Other names are those of Wan's generate script and of Diffusers' pipelines. */
const options = {
  prompt: { type: 'string', describe: 'what happens, as "a 3 moving up-left"' },
  prompts: {
    type: 'string',
    describe:
      'a file with a prompt a line, or JSON lines with prompt, negative_prompt, seed, image, last_image, out; a clip that was made of a line is not made again',
  },
  'negative-prompt': {
    type: 'string',
    alias: 'negative_prompt',
    describe: "what guidance leads away from; the model's own unless given",
  },
  image: {
    type: 'string',
    alias: 'first_frame',
    describe: 'a picture as the first frame; what is transparent in it is white',
  },
  'last-image': {
    type: 'string',
    alias: ['last_image', 'last_frame'],
    describe: 'a picture as the last frame, for a model that takes one',
  },
  ...model,
  model: {
    ...model.model,
    alias: ['ckpt_dir', 'ckpt-dir'],
    describe: "a run or the bundle, or a folder of Wan2.1 or Wan2.2 as downloaded (Wan's layout or Diffusers')",
  },
  student: {
    ...model.student,
    describe: 'the student; of a downloaded folder: weights distilled to few steps, sampled without guidance',
  },
  size: {
    type: 'string',
    describe:
      'WIDTHxHEIGHT; image-to-video keeps the area and takes the form from the picture [832x480 for Wan2.1, 1280x704 for TI2V-5B, 1280x720 for A14B]',
  },
  frames: { type: 'number', alias: ['frame_num', 'num_frames'], describe: '1 + a multiple of 4 [81, 121 for TI2V-5B]' },
  steps: {
    type: 'number',
    alias: ['sample_steps', 'num_inference_steps'],
    describe: 'sampling steps [1 for a student, 50 for a teacher, 40 for image-to-video and A14B]',
  },
  sampler: {
    type: 'string',
    alias: 'sample_solver',
    choices: ['unipc', 'dpm++', 'euler'] as const,
    describe: "a teacher's solver [unipc for Wan, euler for the bundle]",
  },
  shift: {
    type: 'number',
    alias: ['sample_shift', 'flow_shift'],
    describe: "above 1 spends more steps near noise [as its makers' script, 5 for most]",
  },
  'guidance-scale': {
    type: 'number',
    alias: ['guidance', 'guidance_scale', 'sample_guide_scale'],
    describe: "how strongly the prompt rules a teacher, of two experts both [as its makers' script]",
  },
  'guidance-scale-2': {
    type: 'number',
    alias: 'guidance_scale_2',
    describe: 'the same for the low-noise one of two experts, Wan2.2 A14B',
  },
  lora: {
    type: 'string',
    array: true,
    nargs: 1,
    default: [] as string[],
    describe:
      'a LoRA file for a downloaded folder, as FILE or FILE:STRENGTH, of two experts high:FILE, low:FILE or both:FILE; may be given again',
  },
  ...weights,
  dtype: {
    choices: ['f32', 'f16', 'bf16'] as const,
    describe: "how a downloaded DiT's matrices lie on the device [as stored; f32 files as bf16]",
  },
  ...precision,
  offload: {
    type: 'boolean',
    describe: "read the DiT's blocks from their files at every step: two of them on the device instead of all",
  },
  memory: {
    type: 'string',
    describe:
      "what the device has, as 24GB; what does not fit into it is read block by block and decoded in tiles [the host's on a CPU; WebGPU does not tell a GPU's]",
  },
  seed: {
    type: 'number',
    alias: 'base_seed',
    default: 1,
    describe: "decides the noise (and the bundle's handwriting)",
  },
  count: { type: 'number', default: 1, describe: 'clips to make, the seed counting up' },
  fps: { type: 'number', describe: 'frames a second of the file [16, 24 for TI2V-5B]' },
  tile: { type: 'number', describe: 'edge in pixels of the tiles that the VAE works in [whole frames where they fit]' },
  out: {
    type: 'string',
    alias: 'save_file',
    default: 'out/sample.webp',
    describe: '.mp4, .webm, .webp, .gif, or .png with the frames side by side',
  },
  ...tuneOption,
} as const;
type SampleArgs = Args<typeof options>;

const solverOf = (sampler: NonNullable<SampleArgs['sampler']>): SolverKind => (sampler === 'dpm++' ? 'dpmpp' : sampler);

/** Numbers that no model could make sense of. */
function checkNumbers(args: SampleArgs): void {
  count('count', args.count, 1, 10_000);
  count('seed', args.seed, 0, MOST_SEED);
  if (args.steps !== undefined) count('steps', args.steps, 1, 1000);
  const above = (name: 'shift' | 'guidance-scale' | 'guidance-scale-2' | 'fps', most: number) => {
    const value = args[name];
    if (value !== undefined && !(value > 0 && value <= most))
      throw new UsageError(`--${name} must be above 0 and at most ${most}, got ${value}`);
  };
  above('shift', 100);
  above('guidance-scale', 100);
  above('guidance-scale-2', 100);
  above('fps', 240);
}

/** The model's usual sampling with what was asked for. */
function samplingOf(args: SampleArgs, source: Source, size: Size): Sampling {
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

async function sample(args: SampleArgs): Promise<void> {
  checkNumbers(args);
  const { todo, done, unknown } = wantedClips({
    ...args,
    negative: args['negative-prompt'],
    lastImage: args['last-image'],
  });
  const skipped = done + unknown;
  const taken = unknown ? `; nothing tells what ${unknown} of them were made of, their names are taken for it` : '';
  if (skipped) console.error(`${skipped} of ${skipped + todo.length} clips are there already${taken}`);
  if (!todo.length) return;
  const files = await Promise.all(todo.map((w) => sinkFor(w.out)));
  const source = await openSource(args);
  checkTile(args.tile, source);
  const fps = args.fps ?? source.fps;
  for (const { out } of todo) checkRate(out, fps);
  const asked = args.size === undefined ? source.size : parseSize(args.size);
  const frames = args.frames ?? source.frames;
  const jobs: Job[] = [];
  for (const wanted of todo) {
    const { pictures, size } = await source.given(wanted, asked);
    checkClip(source.model.dit, source.model.vae, size, frames);
    jobs.push({
      prompt: wanted.prompt,
      negative: wanted.negative ?? source.negative,
      pictures,
      size,
      frames,
      seed: wanted.seed,
    });
    willWrite(wanted.out);
  }
  const sampling = samplingOf(args, source, asked);
  const texts = jobs.flatMap((j) => (isGuided(sampling) ? [j.prompt, j.negative] : [j.prompt]));
  const cut = await cutTexts(
    source.model,
    [...new Set(texts)].map((text) => ({ name: `"${text.slice(0, 40)}…"`, text })),
  );
  if (cut) console.error(printable(cut));
  const kept =
    args.prompts === undefined
      ? 'clips that were finished are kept'
      : 'the same command goes on with the clips that are missing';
  const budget = args.memory === undefined ? undefined : memoryBytes(args.memory);
  const made = new Set<number>(); // before a device was lost
  await session(`stopped; ${kept}`, async ({ device, signal }) => {
    const left = jobs.map((_, i) => i).filter((i) => !made.has(i));
    if (!left.length) return;
    device.budget = budget ?? device.budget;
    const operands = source.released ? precisionOn(device.caps, args.precision) : 'f32';
    const name = `${source.name}${operands === 'f16' ? ' with f16 operands' : ''}`;
    if (source.released) console.error(`model: ${name}`);
    if (source.released)
      await tuneFirst(
        device,
        args.tune,
        () => ({
          jobs: ['sample'],
          subject: wanSubject(args.model, [], { ...source.release!, ...jobs[0]!.size, frames, layers: LAYERS }),
        }),
        signal,
      );
    const shown = stageMeter(() => device.allocated);
    let open: Sink | undefined;
    const work = generate(
      device,
      source.model,
      left.map((i) => jobs[i]!),
      {
        sampling,
        precision: operands,
        tile: args.tile,
        progress(stage, unit, done, total) {
          shown.at(stage, unit, done, total);
          signal.throwIfAborted();
        },
        async sink(at) {
          const i = left[at]!;
          const { out, prompt } = todo[i]!;
          const file = (open = await files[i]!({ ...jobs[i]!.size, frames, fps, scale: source.scale }));
          return {
            ...file,
            async end() {
              if (args.prompts !== undefined || keepsNotes(out)) noteClip(todo[i]!);
              await file.end();
              open = undefined;
              made.add(i);
              shown.end();
              console.log(printable(`${out}: "${prompt}", seed ${todo[i]!.seed}`));
            },
          };
        },
      },
    );
    const { seconds, evaluations } = await orLeave(signal, work, async () => open?.abort())
      .catch(inTerms)
      .finally(() => shown.end());
    console.log(
      `${name}, ${evaluations} evaluation${evaluations > 1 ? 's' : ''} a clip, ${(seconds / left.length).toPrecision(3)} s of diffusion a clip, compiling included`,
    );
  });
}

const command: CommandModule<object, SampleArgs> = {
  command: 'sample',
  describe: 'make videos from prompts and first frames',
  builder: (y) =>
    y
      .options(options)
      .example('$0 sample --prompt "a 3 moving up-left"', 'one evaluation of the bundled student')
      .example(
        '$0 sample --prompt "a 7 moving down" --image seven.png --teacher --steps 50 --out seven.gif',
        'the teacher, from a picture',
      )
      .example(
        '$0 sample --model Wan2.1-T2V-1.3B --prompt "Two cats box on a stage" --size 832x480 --frames 81 --out cats.mp4',
        'a downloaded Wan2.1',
      )
      .example(
        '$0 sample --model Wan2.1-FLF2V-14B-720P --image day.jpg --last-image night.jpg --prompt "Night falls" --out night.mp4',
        'between two pictures',
      ),
  handler: sample,
};
export default command;

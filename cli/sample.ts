/** `vpae sample`: prompts, and first frames where the model takes them, become videos. */
import { dirname } from 'node:path';
import type { CommandModule } from 'yargs';
import { writeWhole } from '../train/loop/files.ts';
import { count, model, MOST_SEED, precision, weights, type Args } from './common/options.ts';
import { stageMeter } from './common/progress.ts';
import { Farm, queueOption } from './farm/farm.ts';
import { makeClips, prepareClips, textsCut } from './sample/clips.ts';
import { farmClips } from './sample/farmed.ts';
import { wantedClips, type Wanted } from './sample/jobs.ts';
import { keepsNotes, noteClip } from './sample/made.ts';
import { openSource } from './sample/wan.ts';
import { session } from './common/session.ts';
import { tuneOption } from './tune/first.ts';
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
  ...queueOption,
} as const;
type SampleArgs = Args<typeof options>;

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
  const source = await openSource(args);
  const clips = await prepareClips(args, source, todo);
  const cut = await textsCut(clips);
  if (cut) console.error(cut);
  const kept =
    args.prompts === undefined
      ? 'clips that were finished are kept'
      : 'the same command goes on with the clips that are missing';
  const stopped = `stopped; ${kept}`;
  const note = (wanted: Wanted): void => {
    if (args.prompts !== undefined || keepsNotes(wanted.out)) noteClip(wanted);
  };
  const tell = ({ out, prompt, seed }: Wanted): void => console.log(printable(`${out}: "${prompt}", seed ${seed}`));
  if (args.queue !== undefined) {
    const folder = dirname(todo[0]!.out);
    await Farm.open({ address: args.queue, folder, stopped }, (farm) =>
      farmClips(farm, { args, source, todo }, (wanted, bytes) => {
        note(wanted);
        writeWhole(wanted.out, bytes);
        tell(wanted);
      }),
    );
    return;
  }
  const made = new Set<Wanted>(); // before a device was lost
  await session(stopped, async ({ device, signal }) => {
    const left = todo.flatMap((wanted, i) => (made.has(wanted) ? [] : [i]));
    if (!left.length) return;
    const shown = stageMeter(() => device.allocated);
    const { seconds, evaluations, overflowed, name } = await makeClips(clips, left, {
      device,
      signal,
      progress: shown.at,
      about: ({ name }) => source.released && console.error(`model: ${name}`),
      placing: note,
      made(wanted) {
        made.add(wanted);
        shown.end();
        tell(wanted);
      },
    }).finally(() => shown.end());
    console.log(
      `${name}, ${evaluations} evaluation${evaluations > 1 ? 's' : ''} a clip, ${(seconds / left.length).toPrecision(3)} s of diffusion a clip, compiling included`,
    );
    if (overflowed)
      console.error(
        `warning: numbers above f16's 65504 were rounded to infinity in ${overflowed} run${overflowed > 1 ? 's' : ''} of the network, first: ${device.outOfRange}; look at the clips, or use --precision f32`,
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

/** `vpae sample`: a caption and a first frame become a video. */
import sharp from 'sharp';
import type { CommandModule } from 'yargs';
import { tokenize, VOCABULARY } from '../model/text.ts';
import { conditions } from '../train/data/digits.ts';
import { writeWhole } from '../train/files.ts';
import { sampleClips } from '../train/infer.ts';
import { frameOf } from '../train/metrics/frames.ts';
import { videoShape } from '../train/conditions.ts';
import type { Preset } from '../train/presets/index.ts';
import type { Request } from '../train/sample.ts';
import { loadNet, modelFile, willWrite } from './files.ts';
import { animate, writeVideo } from './media/animation.ts';
import { contactSheet } from './media/sheet.ts';
import type { Video } from './media/picture.ts';
import { count, model, type Args } from './options.ts';
import { meter } from './progress.ts';
import { session } from './session.ts';
import { didYouMean, UsageError } from './errors.ts';

const options = {
  prompt: { type: 'string', demandOption: true, describe: 'what happens, as "a 3 moving up-left"' },
  image: { type: 'string', describe: 'a picture as the first frame; otherwise held-out handwriting that fits the prompt' },
  ...model,
  steps: { type: 'number', describe: 'sampling steps: 1 for a student, 50 for a teacher unless given' },
  'guidance-scale': { type: 'number', alias: 'guidance', describe: 'how strongly the prompt rules a teacher; the preset\'s unless given' },
  frames: { type: 'number', describe: '1 + a multiple of 4; the number it was trained on unless given' },
  seed: { type: 'number', default: 1, describe: 'decides the noise (and the handwriting)' },
  count: { type: 'number', default: 1, describe: 'clips to make, each from its own noise' },
  out: { type: 'string', default: 'out/sample.webp', describe: '.webp or .gif moves, .png shows the frames side by side' },
} as const;
type SampleArgs = Args<typeof options>;

const SCALE = 6; // screen pixels a pixel

/** Everything that can be wrong before a model is loaded. */
function check(args: SampleArgs): 'webp' | 'gif' | 'png' {
  const ending = /\.(webp|gif|png)$/i.exec(args.out)?.[1]?.toLowerCase();
  if (!ending) throw new UsageError(`--out ${args.out}: the name must end in .webp, .gif or .png`);
  if (args.teacher && args.student) throw new UsageError('--teacher and --student: one of them');
  try {
    tokenize(args.prompt);
  } catch (error) {
    const unknown = args.prompt.split(/\s+/).find((w) => w && !(VOCABULARY as readonly string[]).includes(w));
    throw new Error((error as Error).message + didYouMean(unknown ?? '', VOCABULARY), { cause: error });
  }
  count('count', args.count, 1, 64);
  count('seed', args.seed, 0, Number.MAX_SAFE_INTEGER - 64);
  if (args.steps !== undefined) count('steps', args.steps, 1, 1000);
  const scale = args['guidance-scale'];
  if (scale !== undefined && !(scale > 0 && scale <= 20)) throw new UsageError(`--guidance-scale must be above 0 and at most 20, got ${scale}`);
  return ending as 'webp' | 'gif' | 'png';
}

/** A picture as a first frame [channels, height, width] in [-1, 1], cut to the middle square. */
async function readImage(path: string, p: Preset): Promise<Float32Array> {
  const [channels, , height, width] = videoShape(p);
  const image = sharp(path).flatten().resize(width, height, { fit: 'cover' }).toColourspace(channels === 1 ? 'b-w' : 'srgb');
  const pixels = await image.removeAlpha().raw().toBuffer().catch((error: Error) => { throw new Error(`[image] ${path}: ${error.message.split('\n')[0]}`, { cause: error }); });
  const plane = height * width;
  return Float32Array.from({ length: channels * plane }, (_, i) => (pixels[(i % plane) * (pixels.length / plane) + Math.floor(i / plane)]! / 255) * 2 - 1);
}

/** The first frame of held-out clips with this caption; other handwriting for each number. */
function handwritten(prompt: string, p: Preset, total: number, first: number): Float32Array[] {
  const caption = prompt.split(/\s+/).filter(Boolean).join(' ');
  const clips = conditions(p.seed, 80 * 8, p.data).filter((c) => c.caption === caption); // every caption comes once in 80
  if (!clips.length) throw new Error(`[sample] without --image the prompt names a digit and its way, as "a 3 moving up-left", got "${prompt}"`);
  return Array.from({ length: total }, (_, i) => frameOf(clips[(first + i) % clips.length]!.video, videoShape(p), 0));
}

async function sample(args: SampleArgs): Promise<void> {
  const ending = check(args);
  const kind = args.teacher ? 'teacher' : 'student';
  const { path, about: { preset } } = await loadNet(args.model, kind);
  const total = args.count;
  willWrite(args.out);
  const image = args.image === undefined ? undefined : await readImage(args.image, preset);
  const frames = image ? Array.from({ length: total }, () => image) : handwritten(args.prompt, preset, total, args.seed);
  const requests = frames.map((frame, i): Request => ({ caption: args.prompt, frame, seed: args.seed + i }));
  await session('stopped; nothing was written', async ({ device, signal }) => {
    const shown = meter('sampling', { unit: 'clips', total, memory: () => device.allocated });
    const made = await sampleClips({
      device, vae: modelFile(args.model, 'vae'), model: path, requests, steps: args.steps, guidance: args['guidance-scale'], frames: args.frames,
      signal, onProgress: (done) => shown.at(Math.floor(done)),
    }).finally(shown.end);
    const clips = made.videos.map((data): Video => ({ data, shape: videoShape(made.preset) }));
    await write(args.out, ending, args.prompt, clips);
    console.log(`${args.out}: "${args.prompt}", ${kind}, ${made.evaluations} evaluation${made.evaluations > 1 ? 's' : ''}, ${(made.seconds / total).toPrecision(3)} s a clip`);
  });
}

async function write(path: string, ending: 'webp' | 'gif' | 'png', prompt: string, clips: readonly Video[]): Promise<void> {
  if (clips.length === 1) return writeVideo(path, clips[0]!, SCALE);
  const columns = Math.ceil(Math.sqrt(clips.length));
  const rows = Array.from({ length: Math.ceil(clips.length / columns) }, (_, r) => clips.slice(r * columns, (r + 1) * columns));
  writeWhole(path, ending === 'png' ? await contactSheet(clips.map(() => prompt), [{ title: prompt, clips }], 9) : await animate(rows, ending, { scale: SCALE }));
}

const command: CommandModule<object, SampleArgs> = {
  command: 'sample',
  describe: 'make a video from a prompt and a first frame',
  builder: (y) => y
    .options(options)
    .example('$0 sample --prompt "a 3 moving up-left"', 'one evaluation of the bundled student')
    .example('$0 sample --prompt "a 7 moving down" --image seven.png --teacher --steps 50 --out seven.gif', 'the teacher, from a picture'),
  handler: sample,
};
export default command;

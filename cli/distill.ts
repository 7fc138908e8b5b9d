/** `vpae distill`: a teacher becomes a one-step student, by V-PAE or another of the methods. */
import { join } from 'node:path';
import type { CommandModule } from 'yargs';
import { METHOD_NAMES, METHODS, type MethodName } from '../train/methods/index.ts';
import type { StageName } from '../train/methods/index.ts';
import { distill as distillTeacher, type Distilled } from '../train/pipeline.ts';
import { openCheckpoint } from '../model/files/checkpoint.ts';
import { openVideoShards } from '../train/data/videos.ts';
import { OFFLOAD } from '../train/planning/fit.ts';
import { clipSize, subjectOf, wanSubject } from '../train/planning/subject.ts';
import { courseOf, distillVideos } from '../train/videos/distill.ts';
import { Interrupted, UsageError } from './common/errors.ts';
import { classifierOf, ownOr, willWrite } from './common/files.ts';
import { drawSamples } from './media/animation.ts';
import { bundle, preset, presetOf, run, seed, weights, type Args } from './common/options.ts';
import { jobMeter } from './common/progress.ts';
import { together } from './common/together.ts';
import { makeShards } from './common/shards.ts';
import { LAYERS, tuneOption, tuneTogether } from './tune/first.ts';

const options = {
  ...preset,
  ...seed,
  ...run('runs/digits'),
  ...bundle,
  ...tuneOption,
  method: {
    choices: METHOD_NAMES,
    default: 'vpae' as const,
    describe: METHOD_NAMES.map((name) => `${name}: ${METHODS[name].title}`).join('; '),
  },
  model: {
    type: 'string',
    alias: 'ckpt_dir',
    describe: 'a folder of Wan2.1 or Wan2.2 as downloaded, in the place of --preset: it is distilled on --records',
  },
  ...weights,
  offload: {
    type: 'boolean',
    default: false,
    describe: 'blocks of frozen networks stay in host memory and come to the device as they are computed with',
  },
  records: {
    type: 'string',
    describe: 'with --model: what data make has made of real videos; the commonest form is taken',
  },
} as const;
type DistillArgs = Args<typeof options>;

const stagesOf = (method: MethodName): StageName[] => METHODS[method].stages.map((s) => s.name);

/** What each stage kept. */
const keptBy = ({ phases }: Distilled): string =>
  phases
    .map(
      ({ name, step, score }) => `${name} kept step ${step}${score === undefined ? '' : `, score ${score.toFixed(3)}`}`,
    )
    .join('; ');

/** How to sample with what was made of a model. @param two experts */
function used(model: string, { path, low }: Distilled, two: boolean): string {
  const adapters = path.endsWith('lora.safetensors');
  const each = (file: string, of: string): string =>
    adapters
      ? `--lora ${two ? `${of}:` : ''}${file}`
      : `${file} in the place of its ${two ? `${of}-noise ` : ''}transformer`;
  const files = [each(path, 'high'), ...(low === undefined ? [] : [each(low, 'low')])];
  return `${path}: vpae sample --model ${model} ${adapters ? files.join(' ') : `with ${files.join(' and ')}`}`;
}

async function distillWan(
  path: string,
  { records, run: out, set, seed: own, tune, method, weights: named }: DistillArgs,
): Promise<void> {
  if (records === undefined)
    throw new UsageError('--model is distilled on --records: make them with vpae data make FOLDER');
  const shards = openVideoShards(records);
  const checkpoint = await openCheckpoint(path, named);
  const course = courseOf(checkpoint, shards.latent, set, own);
  willWrite(join(out, 'run.lock'));
  console.error(
    `${records}: ${shards.count} clips of latents ${shards.latent.join('x')}${shards.others ? `; ${shards.others} of other forms are left aside` : ''}${shards.unchecked ? `; ${shards.unchecked} carry no checksum, data make in an empty folder gives them one` : ''}`,
  );
  await together(
    `stopped; ${out} is as it was saved last, the same command goes on from there`,
    async ({ device, signal, ranks }) => {
      await tuneTogether(
        ranks,
        device,
        tune,
        () => ({
          jobs: stagesOf(method),
          subject: wanSubject(path, set, {
            dit: checkpoint.dit.config,
            family: checkpoint.family,
            vae: checkpoint.vae.config,
            ...clipSize(checkpoint.vae.config, shards.latent),
            layers: LAYERS,
          }),
        }),
        signal,
      );
      const progress = jobMeter(() => device.allocated);
      const made = await distillVideos({
        device,
        out,
        signal,
        ranks,
        onProgress: progress.onProgress,
        onAlarm: progress.onAlarm,
        draw: drawSamples,
        method,
        checkpoint,
        shards,
        course,
      }).finally(progress.end);
      if (!made.done)
        throw new Interrupted(`stopped after step ${made.step}, saved in ${out}; the same command goes on from there`);
      console.log(`${keptBy(made)}\n${used(path, made, checkpoint.low !== undefined)}`);
    },
  );
}

async function distill(given: DistillArgs): Promise<void> {
  const args = given.offload ? { ...given, set: [OFFLOAD, ...given.set] } : given;
  if (args.model !== undefined) return distillWan(args.model, args);
  if (args.weights.length) throw new UsageError('--weights goes with --model');
  if (args.records !== undefined)
    throw new UsageError('--records goes with --model: without one, distill makes its own data');
  const p = presetOf(args);
  const [vae, teacher] = [ownOr(args.run, args.bundle, 'vae'), ownOr(args.run, args.bundle, 'teacher')];
  willWrite(join(args.run, 'run.lock'));
  await together(
    `stopped; ${args.run} is as it was saved last, the same command goes on from there`,
    async ({ device, signal, ranks }) => {
      await tuneTogether(
        ranks,
        device,
        args.tune,
        () => ({ jobs: [...stagesOf(args.method), 'sample'], subject: subjectOf(args.preset, args.set) }),
        signal,
      );
      const progress = jobMeter(() => device.allocated);
      const work = {
        device,
        preset: p,
        out: args.run,
        signal,
        ranks,
        onProgress: progress.onProgress,
        onAlarm: progress.onAlarm,
        draw: drawSamples,
        vae,
      };
      await makeShards(work);
      const made = await distillTeacher({
        ...work,
        method: args.method,
        teacher,
        classifier: classifierOf(p, args.run),
      }).finally(progress.end);
      if (!made.done)
        throw new Interrupted(
          `stopped after step ${made.step}, saved in ${args.run}; the same command goes on from there`,
        );
      console.log(`${made.path}: ${keptBy(made)}`);
    },
  );
}

const command: CommandModule<object, DistillArgs> = {
  command: 'distill',
  describe: 'distil a teacher into a one-step student, by V-PAE or another method',
  builder: (y) =>
    y
      .options(options)
      .example('$0 distill --run runs/mine', "distils the run's teacher, or the bundled one where the run has none")
      .example(
        '$0 distill --model Wan2.1-T2V-1.3B --records data/clips --run runs/wan --set student.mode=lora',
        'a downloaded Wan2.1 on real videos',
      )
      .example('$0 distill --method dmd2 --run runs/dmd2', 'the same by another method')
      .example('$0 distill --set priming.steps=100 --set equilibrium.steps=100', 'a shorter run of runs/digits'),
  handler: distill,
};
export default command;

/** `vpae train vae|teacher`: trains one network of a preset in a run's folder, or goes on where it stopped. */
import { join } from 'node:path';
import type { CommandModule } from 'yargs';
import { CLASSIFIER_TRAINING, trainClassifier } from '../train/methods/classifier.ts';
import { FLARE_READER_TRAINING, trainFlareReader } from '../train/methods/flarereader.ts';
import { subjectOf } from '../train/planning/subject.ts';
import { trainTeacher, trainVae } from '../train/pipeline.ts';
import type { Made } from '../train/work.ts';
import { alone } from './common/alone.ts';
import { Interrupted, UsageError } from './common/errors.ts';
import { ownOr, willWrite } from './common/files.ts';
import { drawSamples } from './media/animation.ts';
import { bundle, preset, presetOf, run, seed, type Args } from './common/options.ts';
import { makeShards } from './common/shards.ts';
import { jobMeter, meter } from './common/progress.ts';
import { session } from './common/session.ts';
import { together } from './common/together.ts';
import { tuneOption, tuneTogether } from './tune/first.ts';

const options = {
  ...preset,
  ...seed,
  ...run('runs/digits'),
  ...bundle,
  ...tuneOption,
  from: { type: 'string', describe: 'teacher: a trained one to go on from instead of from scratch' },
} as const;
type TrainArgs = Args<typeof options> & { network: 'vae' | 'teacher' | 'classifier' };

/** The judge of `eval`: its settings are its own, and it is trained in one go. */
async function classifier(args: TrainArgs): Promise<void> {
  alone('train classifier');
  const p = presetOf(args);
  if (p.data.set === 'emoji') throw new UsageError(`the clips of --preset ${p.name} are judged without a classifier`);
  const path = join(args.run, 'classifier.safetensors');
  willWrite(path);
  const usual = p.data.set === 'flare' ? FLARE_READER_TRAINING : CLASSIFIER_TRAINING;
  const { steps, seed: s } = { ...usual, seed: args.seed ?? usual.seed };
  await session('stopped; nothing was written', async ({ device, signal }) => {
    const shown = meter('classifier', { unit: 'steps', total: steps, memory: () => device.allocated });
    const onStep = (step: number, loss: number): void => {
      shown.at(step, `loss ${loss.toPrecision(3)}`);
      signal.throwIfAborted();
    };
    await (
      p.data.set === 'flare'
        ? trainFlareReader(device, path, p.data, { ...FLARE_READER_TRAINING, seed: s }, onStep)
        : trainClassifier(device, path, { ...CLASSIFIER_TRAINING, seed: s }, onStep)
    ).finally(shown.end);
    console.log(`${path}: ${steps} steps`);
  });
}

async function train(args: TrainArgs): Promise<void> {
  if (args.from !== undefined && args.network !== 'teacher') throw new Error('[train] --from is for a teacher');
  if (args.network === 'classifier') return classifier(args);
  const p = presetOf(args);
  willWrite(join(args.run, 'run.lock'));
  await together(
    `stopped; ${args.run} is as it was saved last, the same command goes on from there`,
    async ({ device, signal, ranks }) => {
      await tuneTogether(
        ranks,
        device,
        args.tune,
        () => ({ jobs: [args.network as 'vae' | 'teacher'], subject: subjectOf(args.preset, args.set) }),
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
      };
      const vae = ownOr(args.run, args.bundle, 'vae');
      if (args.network === 'teacher') await makeShards({ ...work, vae });
      const training: Promise<Made & { psnr?: number }> =
        args.network === 'vae' ? trainVae(work) : trainTeacher({ ...work, vae, from: args.from });
      const made = await training.finally(progress.end);
      if (!made.done)
        throw new Interrupted(
          `stopped after step ${made.step}, saved in ${args.run}; the same command goes on from there`,
        );
      console.log(
        `${made.path}: ${made.step} steps${made.psnr === undefined ? '' : `, ${made.psnr.toFixed(1)} dB on held-out clips`}`,
      );
    },
  );
}

const command: CommandModule<object, TrainArgs> = {
  command: 'train <network>',
  describe: 'train a VAE, a teacher on its latents, or the classifier that judges',
  builder: (y) =>
    y
      .positional('network', {
        choices: ['vae', 'teacher', 'classifier'] as const,
        demandOption: true,
        describe: "what to train; a teacher needs a VAE (the run's, else the bundled one), the classifier judges clips",
      })
      .options(options)
      .example('$0 train vae --run runs/mine', 'trains a VAE into runs/mine/vae.safetensors')
      .example(
        '$0 train teacher --run runs/mine --set teacher.steps=2000',
        'makes the latents where they are missing, then trains on them',
      )
      .example(
        '$0 train teacher --run runs/more --from runs/mine/teacher.safetensors',
        'goes on with a trained one: warm-up and decay once more',
      ),
  handler: train,
};
export default command;

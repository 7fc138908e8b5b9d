/** `vpae train vae|teacher`: trains one network of a preset in a run's folder, or goes on where it stopped. */
import type { CommandModule } from 'yargs';
import { trainTeacher, trainVae, type Trained } from '../train/pipeline.ts';
import { Interrupted } from './errors.ts';
import { ownOr } from './files.ts';
import { bundle, preset, presetOf, run, seed, type Args } from './options.ts';
import { makeShards } from './shards.ts';
import { jobMeter } from './progress.ts';
import { session } from './session.ts';

const options = { ...preset, ...seed, ...run('runs/digits'), ...bundle } as const;
type TrainArgs = Args<typeof options> & { network: 'vae' | 'teacher' };

async function train(args: TrainArgs): Promise<void> {
  const p = presetOf(args);
  await session(`stopped; ${args.run} is as it was saved last, the same command goes on from there`, async ({ device, signal }) => {
    const progress = jobMeter(() => device.allocated);
    const work = { device, preset: p, out: args.run, signal, onProgress: progress.onProgress };
    try {
      const vae = ownOr(args.run, args.bundle, 'vae');
      if (args.network === 'teacher') await makeShards({ ...work, vae });
      const made: Trained & { psnr?: number } = args.network === 'vae' ? await trainVae(work) : await trainTeacher({ ...work, vae });
      if (!made.done) throw new Interrupted(`stopped after step ${made.step}, saved in ${args.run}; the same command goes on from there`);
      console.log(`${made.path}: ${made.step} steps${made.psnr === undefined ? '' : `, ${made.psnr.toFixed(1)} dB on held-out clips`}`);
    } finally {
      progress.end();
    }
  });
}

const command: CommandModule<object, TrainArgs> = {
  command: 'train <network>',
  describe: 'train a VAE, or a teacher on its latents',
  builder: (y) => y
    .positional('network', { choices: ['vae', 'teacher'] as const, demandOption: true, describe: 'what to train; a teacher needs a VAE (of the run, else the bundled one)' })
    .options(options)
    .example('$0 train vae --run runs/mine', 'trains a VAE into runs/mine/vae.safetensors')
    .example('$0 train teacher --run runs/mine --set teacher.steps=2000', 'makes the latents where they are missing, then trains on them'),
  handler: train,
};
export default command;

/** `vpae distill`: a teacher becomes a one-step student, through both phases of V-PAE. */
import { join } from 'node:path';
import type { CommandModule } from 'yargs';
import { distill as distillTeacher } from '../train/pipeline.ts';
import { Interrupted } from './errors.ts';
import { CLASSIFIER, ownOr, willWrite } from './files.ts';
import { drawSamples } from './media/animation.ts';
import { bundle, preset, presetOf, run, seed, type Args } from './options.ts';
import { jobMeter, jobName } from './progress.ts';
import { session } from './session.ts';
import { makeShards } from './shards.ts';

const options = { ...preset, ...seed, ...run('runs/digits'), ...bundle } as const;

async function distill(args: Args<typeof options>): Promise<void> {
  const p = presetOf(args);
  const [vae, teacher] = [ownOr(args.run, args.bundle, 'vae'), ownOr(args.run, args.bundle, 'teacher')];
  willWrite(join(args.run, 'run.lock'));
  await session(`stopped; ${args.run} is as it was saved last, the same command goes on from there`, async ({ device, signal }) => {
    const progress = jobMeter(() => device.allocated);
    const work = { device, preset: p, out: args.run, signal, onProgress: progress.onProgress, onAlarm: progress.onAlarm, draw: drawSamples, vae };
    await makeShards(work);
    const made = await distillTeacher({ ...work, teacher, classifier: CLASSIFIER }).finally(progress.end);
    if (!made.done) throw new Interrupted(`stopped after step ${made.step}, saved in ${args.run}; the same command goes on from there`);
    console.log(`${made.path}: ${made.phases.map((f) => `${jobName(f.name)} kept step ${f.step}, score ${f.score.toFixed(3)}`).join('; ')}`);
  });
}

const command: CommandModule<object, Args<typeof options>> = {
  command: 'distill',
  describe: 'distil a teacher into a one-step student: stability priming, then adversarial equilibrium',
  builder: (y) => y
    .options(options)
    .example('$0 distill --run runs/mine', 'distils the run\'s teacher, or the bundled one where the run has none')
    .example('$0 distill --set phase1.steps=100 --set phase2.steps=100', 'a shorter run of runs/digits'),
  handler: distill,
};
export default command;

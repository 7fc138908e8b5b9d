/**
 * `vpae tune`: measures which kernel configurations are fastest here for what a preset's
 * training or a released model asks, and keeps them for every later run.
 */
import type { CommandModule } from 'yargs';
import { sameConfig } from '../kernels/tuning.ts';
import { RELEASED } from '../model/families/index.ts';
import { USUAL } from '../train/planning/jobs.ts';
import { subjectOf } from '../train/planning/subject.ts';
import { number } from './bench/report.ts';
import { UsageError } from './common/errors.ts';
import { json, preset, presetOf, type Args } from './common/options.ts';
import { session } from './common/session.ts';
import { draw } from './common/table.ts';
import { measure, questions } from './tune/measure.ts';

const options = {
  ...preset,
  ...json,
  preset: {
    ...preset.preset,
    describe: `${preset.preset.describe}, or a released model: ${Object.keys(RELEASED).join(', ')}`,
  },
  seconds: {
    type: 'number',
    default: 300,
    describe: 'how long to measure; the problems with the most arithmetic come first',
  },
} as const;

async function tune(args: Args<typeof options>): Promise<void> {
  if (!(args.seconds > 0)) throw new UsageError(`--seconds must be more than 0, got ${args.seconds}`);
  if (!Object.hasOwn(RELEASED, args.preset)) presetOf({ preset: args.preset, set: [] }, Object.keys(RELEASED)); // tells a name that is none
  const subject = subjectOf(args.preset, args.set);
  await session('stopped; what was found so far is kept', async ({ device, signal }) => {
    const asked = await questions(device, subject.preset ? USUAL : ['sample'], subject);
    const until = performance.now() + 1000 * args.seconds;
    let measured = 0;
    const { found, tuned, file } = await measure(
      device,
      asked,
      () => performance.now() > until,
      signal,
      (result) => {
        const left = Math.max(0, Math.round((until - performance.now()) / 1000));
        console.error(
          `${++measured} of ${asked.length}, ${left} s left: ${result.family} ${result.shape}: ${sameConfig(result.rule, result.winner) ? 'the rule stands' : `${number(result.ruleMs / result.ms)} times as fast`}, ${result.tried} tried${result.bad.length ? `, ${result.bad.length} bad` : ''}`,
        );
        for (const line of result.bad) console.error(`  ${line}`);
      },
    );
    if (args.json) return console.log(JSON.stringify({ ...tuned, found }));
    console.log(
      draw(
        ['', 'sizes', 'rule, ms', 'winner, ms', 'speed-up', 'winner'],
        found.map((f) => [
          f.family,
          f.shape,
          number(f.ruleMs),
          number(f.ms),
          number(f.ruleMs / f.ms),
          sameConfig(f.rule, f.winner) ? 'the rule' : JSON.stringify(f.winner),
        ]),
      ),
    );
    console.log(`${found.length} of ${asked.length} problems measured; kept in ${file}. NO_TUNE=1 leaves it out.`);
  });
}

const command: CommandModule<object, Args<typeof options>> = {
  command: 'tune',
  describe: 'find the fastest kernel configurations for this machine and keep them',
  builder: (y) => y.options(options).example('$0 tune --seconds 60', 'the most important ones only'),
  handler: tune,
};
export default command;

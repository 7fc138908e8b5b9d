/** `vpae tune`: measures which kernel configurations are fastest here for what a preset's training or a released model asks, and keeps them for every later run. */
import type { CommandModule } from 'yargs';
import type { Device } from '../engine/device.ts';
import { ownTable, tunedFile, type Tuned } from '../engine/tuning.ts';
import type { HostTensor } from '../engine/tree.ts';
import type { Tensor } from '../engine/tensor.ts';
import { sameConfig, type TuningTable } from '../kernels/tuning.ts';
import { WAN } from '../model/wan/released.ts';
import { writeWhole } from '../train/files.ts';
import { costOf, JOBS } from '../train/planning/jobs.ts';
import { subjectOf } from '../train/planning/subject.ts';
import { number } from './bench/report.ts';
import { UsageError } from './common/errors.ts';
import { json, preset, presetOf, type Args } from './common/options.ts';
import { session } from './common/session.ts';
import { draw } from './common/table.ts';
import { programOf, recorder, type Seen } from './tune/problems.ts';
import { Bench, search, type Found } from './tune/search.ts';

const options = {
  ...preset, ...json,
  preset: { ...preset.preset, describe: `${preset.preset.describe}, or a released model: ${Object.keys(WAN).join(', ')}` },
  seconds: { type: 'number', default: 300, describe: 'how long to measure; the problems with the most arithmetic come first' },
} as const;

interface Weighed { seen: Seen; flops: number }

/** What a preset's training, or a released model's sampling, asks the planners; most arithmetic first. Only where there is a choice. */
async function questions(device: Device, args: Args<typeof options>): Promise<Weighed[]> {
  const { tuning, seen } = recorder();
  if (!(args.preset in WAN)) presetOf({ preset: args.preset, set: [] }, Object.keys(WAN)); // tells a name that is none
  const subject = subjectOf(args.preset, args.set);
  const target = { caps: { ...device.caps, tuning }, maxBufferBytes: device.maxBufferBytes };
  for (const job of subject.preset ? JOBS : ['sample' as const]) costOf(job, subject, { steps: 1, guided: false, offload: false }, target);
  const weighed: Weighed[] = [];
  for (const s of seen.values()) {
    const program = programOf(s.family, s.problem);
    if (!program || s.options.length < 2) continue;
    const nothing = program.inputs.map(({ shape, dtype }): HostTensor => ({ shape, dtype, data: new Float32Array() }));
    const plan = await device.compile((x: Tensor[]) => program.fn(...x), { name: s.family }).plan(nothing);
    weighed.push({ seen: s, flops: plan.flops });
  }
  return weighed.sort((a, b) => b.seen.count * b.flops - a.seen.count * a.flops);
}

/** The table with one more winner in it; a rule that stands is no entry. */
function withWinner(table: TuningTable, { family, shape, rule, winner }: Found): TuningTable {
  const { [shape]: _old, ...others } = (table[family as keyof TuningTable] ?? {}) as Record<string, object>;
  return { ...table, [family]: sameConfig(rule, winner) ? others : { ...others, [shape]: winner } };
}

async function tune(args: Args<typeof options>): Promise<void> {
  if (!(args.seconds > 0)) throw new UsageError(`--seconds must be more than 0, got ${args.seconds}`);
  await session('stopped; what was found so far is kept', async ({ device, signal }) => {
    const { info, caps } = device;
    const file = tunedFile(info, caps);
    const asked = await questions(device, args);
    const bench = new Bench(info.kind);
    const found: Found[] = [];
    let tuned: Tuned = { adapter: info.name, driver: info.driver, tier: caps.tier, subgroup: caps.subgroup, table: ownTable(info, caps) ?? {} };
    const until = performance.now() + 1000 * args.seconds;
    try {
      for (const { seen, flops } of asked) {
        if (performance.now() > until) break;
        const result = await search(bench, caps, seen, flops, signal);
        found.push(result);
        tuned = { ...tuned, table: withWinner(tuned.table, result) };
        writeWhole(file, `${JSON.stringify(tuned, undefined, 1)}\n`);
        const left = Math.max(0, Math.round((until - performance.now()) / 1000));
        console.error(`${found.length} of ${asked.length}, ${left} s left: ${result.family} ${result.shape}: ${sameConfig(result.rule, result.winner) ? 'the rule stands' : `${number(result.ruleMs / result.ms)} times as fast`}, ${result.tried} tried${result.bad.length ? `, ${result.bad.length} bad` : ''}`);
        for (const line of result.bad) console.error(`  ${line}`);
      }
    } finally {
      bench.close();
    }
    if (args.json) return console.log(JSON.stringify({ ...tuned, found }));
    console.log(draw(['', 'sizes', 'rule, ms', 'winner, ms', 'speed-up', 'winner'], found.map((f) => [
      f.family, f.shape, number(f.ruleMs), number(f.ms), number(f.ruleMs / f.ms), sameConfig(f.rule, f.winner) ? 'the rule' : JSON.stringify(f.winner),
    ])));
    console.log(`${found.length} of ${asked.length} problems measured; kept in ${file}. NO_TUNE=1 leaves it out.`);
  });
}

const command: CommandModule<object, Args<typeof options>> = {
  command: 'tune',
  describe: 'find the fastest kernel configurations for this machine and keep them',
  builder: (y) => y
    .options(options)
    .example('$0 tune --seconds 60', 'the most important ones only'),
  handler: tune,
};
export default command;

/** `vpae bench`: how fast this machine's adapter runs our kernels, models and training steps, beside what it can do at most. */
import type { CommandModule } from 'yargs';
import type { Device } from '../engine/device.ts';
import { writeWhole } from '../train/files.ts';
import { against, readBaseline } from './bench/baseline.ts';
import { judge, type Case, type Cost } from './bench/case.ts';
import { clockOf, CORES, time } from './bench/clock.ts';
import { coldStep } from './bench/cold.ts';
import { compare } from './bench/compare.ts';
import { kernelCases } from './bench/kernels.ts';
import { loadCases } from './bench/load.ts';
import { modelCases, stepCases } from './bench/models.ts';
import { peerNames } from './bench/peers/roster.ts';
import { heading, number, table, type Report, type Result, type Skipped } from './bench/report.ts';
import { leastMs, roofline, type Roofline } from './bench/roofline.ts';
import { SHAPES } from './bench/shapes.ts';
import { COLD_TARGET, sideBySide, verdicts, verdictTable } from './bench/targets.ts';
import { didYouMean, UsageError } from './common/errors.ts';
import { willWrite } from './common/files.ts';
import { json, preset, presetOf, type Args } from './common/options.ts';
import { session } from './common/session.ts';

const PARTS = ['kernels', 'models', 'steps', 'load', 'cold', 'all'] as const;
const options = {
  ...preset, ...json,
  shapes: { type: 'string', describe: `sizes for kernels and models, separated by commas: ${Object.keys(SHAPES).join(', ')}; all unless given` },
  budget: { type: 'number', default: 10, describe: 'seconds a case may take; what would take longer is named and left out' },
  vs: { type: 'string', describe: `in place of the cases: ours and other engines on the same works, answers checked: ${peerNames().join(', ')}, separated by commas; every one that is installed when none is named` },
  save: { type: 'string', describe: 'write the results to this file' },
  against: { type: 'string', describe: 'a file of --save: show how much faster or slower each case has become' },
} as const;
type BenchArgs = Args<typeof options> & { what: typeof PARTS[number] };

/** A share above this says that the ceiling was measured too low. */
const IMPOSSIBLE = 1.05;

function shapesOf(list: string | undefined) {
  return (list?.split(',') ?? Object.keys(SHAPES)).map((name) => {
    const shape = SHAPES[name];
    if (!shape) throw new UsageError(`--shapes: there is no "${name}"${didYouMean(name, Object.keys(SHAPES))}`);
    return shape();
  });
}

function peersOf(list: string): string[] {
  const names = list ? list.split(',') : peerNames();
  for (const name of names) if (!peerNames().includes(name)) throw new UsageError(`--vs: there is no "${name}"${didYouMean(name, peerNames())}`);
  return names;
}

type Counted = Result & { cost?: Cost | undefined; moves?: number | undefined };

async function measure(device: Device, of: string, c: Case, cost: Cost | undefined): Promise<Counted> {
  device.peak = device.allocated;
  const { close, ...timed } = await c.open();
  try {
    const times = await time(timed);
    return { of, name: c.name, shape: c.shape, ...times, peak: device.peak, cost, moves: c.moves };
  } finally {
    await close();
  }
}

/** Rates and shares by the adapter's clock. */
function rated({ cost, moves, ...r }: Counted, device: Device, roof: Roofline): Result {
  const ms = clockOf(device.info.kind).typical(r);
  if (!cost) return moves ? { ...r, gbs: moves / ms / 1e6 } : r;
  return { ...r, gflops: cost.flops / ms / 1e6, gbs: cost.traffic / ms / 1e6, share: leastMs(roof, cost) / ms };
}

type Measured = Pick<Report, 'roofline' | 'results' | 'skipped' | 'comparisons' | 'verdicts'>;

async function cold(): Promise<Result> {
  console.error('digits-test: a tiny training step where nothing is compiled yet …');
  return { of: 'digits-test', name: 'training step, cold', shape: 'teacher, in a new process with empty driver caches', ...await coldStep() };
}

async function runPeers(device: Device, names: readonly string[], signal: AbortSignal): Promise<Measured> {
  const roof = await roofline(device);
  const comparisons = await compare(names, signal);
  return { roofline: roof, results: [await cold()], skipped: [], comparisons, verdicts: verdicts(comparisons, { roofline: roof, kind: device.info.kind }) };
}

async function runCases(device: Device, args: BenchArgs, signal: AbortSignal): Promise<Measured> {
  const wants = (part: typeof PARTS[number]) => args.what === part || args.what === 'all';
  const p = presetOf(args);
  const shapes = shapesOf(args.shapes);
  let roof = await roofline(device);
  const counted: Counted[] = [];
  const skipped: Skipped[] = [];
  const all: [of: string, cases: Case[]][] = [
    ...shapes.map((s): [string, Case[]] => [s.name, [...(wants('kernels') ? kernelCases(device, s) : []), ...(wants('models') ? modelCases(device, s) : [])]]),
    [p.name, wants('steps') ? stepCases(device, p) : []],
    ['files', wants('load') ? loadCases(device) : []],
  ];
  for (const [of, cases] of all) {
    for (const c of cases) {
      signal.throwIfAborted();
      const found = await judge(device, c, roof, args.budget);
      if ('skipped' in found) {
        skipped.push({ of, name: c.name, shape: c.shape, reason: found.skipped });
        continue;
      }
      console.error(`${of}: ${c.name} ${c.shape} …`);
      counted.push(await measure(device, of, c, found.cost));
    }
  }
  if (wants('cold')) counted.push(await cold());
  const tooFast = () => counted.filter((c) => (rated(c, device, roof).share ?? 0) > IMPOSSIBLE);
  if (tooFast().length) {
    console.error('some kernels were faster than the ceilings: measuring these again …');
    roof = await roofline(device, roof);
    for (const c of tooFast()) console.error(`${c.of}: ${c.name} ${c.shape} is still above its ceiling: its share is left out, the ceiling is wrong there`);
  }
  const results = counted.map((c) => {
    const { share, ...r } = rated(c, device, roof);
    return share !== undefined && share <= IMPOSSIBLE ? { ...r, share } : r;
  });
  return { roofline: roof, results, skipped };
}

function print(report: Report, baseline: Report | undefined): void {
  const { comparisons, verdicts: found, results } = report;
  console.log(heading(report));
  if (!comparisons || !found) return console.log(table(report, baseline && against(baseline, report)));
  console.log(`${sideBySide(comparisons, report)}\n${verdictTable(found)}`);
  const [seconds, processor] = [results[0]!.firstMs / 1000, results[0]!.firstCpuMs / 1000];
  console.log(`first call of a tiny training step, nothing compiled yet: ${number(seconds)} s, ${number(processor)} s of processor time; aim ${COLD_TARGET} s: ${seconds <= COLD_TARGET ? 'met' : 'missed'}`);
}

async function bench(args: BenchArgs): Promise<void> {
  const baseline = args.against === undefined ? undefined : readBaseline(args.against);
  if (args.save !== undefined) willWrite(args.save);
  if (!(args.budget > 0)) throw new UsageError(`--budget must be more than 0 seconds, got ${args.budget}`);
  const peers = args.vs === undefined ? undefined : peersOf(args.vs);
  await session('stopped; nothing was written', async ({ device, signal }) => {
    const { info, caps } = device;
    const measured = peers ? await runPeers(device, peers, signal) : await runCases(device, args, signal);
    const report: Report = { adapter: info.name, driver: info.driver, kind: info.kind, tier: caps.tier, clock: clockOf(info.kind).name, cores: CORES, ...measured };
    if (args.save !== undefined) writeWhole(args.save, `${JSON.stringify(report, undefined, 1)}\n`);
    if (args.json) console.log(JSON.stringify(report));
    else print(report, baseline);
  });
}

const command: CommandModule<object, BenchArgs> = {
  command: 'bench [what]',
  describe: 'speed of kernels, models and training steps on this machine, beside its measured ceilings',
  builder: (y) => y
    .positional('what', { choices: PARTS, default: 'all' as const, describe: 'kernels one by one, parts of the models, training steps of the preset, loading of weights, or the first step on a new machine' })
    .options(options)
    .example('$0 bench kernels --shapes digits', 'the kernels at the sizes of the bundled models')
    .example('$0 bench --vs', 'ours and every installed peer, and what we aim at')
    .example('$0 bench --save before.json', 'then, after a change: --against before.json'),
  handler: bench,
};
export default command;

/** `vpae bench`: how fast this machine's adapter runs our kernels, models and training steps, beside what it can do at most. */
import type { CommandModule } from 'yargs';
import type { Device } from '../engine/runtime/device.ts';
import { BLOCKS, FP8, type BlockType, type Fp8 } from '../kernels/packed.ts';
import { precisionOn } from '../model/pipeline/precision.ts';
import { RELEASED } from '../model/families/index.ts';
import { writeWhole } from '../train/loop/files.ts';
import { against, readBaseline } from './bench/baseline.ts';
import { judge, measure, type Case, type Cost } from './bench/case.ts';
import { clockOf, CORES } from './bench/clock.ts';
import { coldStep } from './bench/cold.ts';
import { compare } from './bench/compare.ts';
import { isa, isaOptions } from './bench/isa/index.ts';
import { kernelCases } from './bench/kernels.ts';
import { loadCases } from './bench/load.ts';
import { modelCases, stepCases } from './bench/models.ts';
import { benchReduce } from './bench/reduce.ts';
import { benchScale } from './bench/scale.ts';
import { alone } from './common/alone.ts';
import { peerNames } from './bench/peers/roster.ts';
import { againstPlan, heading, number, table, type Report, type Result, type Skipped } from './bench/report.ts';
import { RELEASED_JOBS, releasedSteps } from './bench/released.ts';
import { leastMs, roofline, type Roofline } from './bench/roofline.ts';
import { SHAPES } from './bench/shapes.ts';
import { COLD_TARGET, shortfall, sideBySide, verdicts, verdictTable } from './bench/targets.ts';
import { didYouMean, UsageError } from './common/errors.ts';
import { willWrite } from './common/files.ts';
import { json, memoryBytes, presetOf, type Args } from './common/options.ts';
import { released, subjectsOf } from './common/released.ts';
import type { Subject } from '../train/planning/subject.ts';
import { session } from './common/session.ts';

const PARTS = ['kernels', 'models', 'steps', 'load', 'cold', 'reduce', 'scale', 'all'] as const;
/** Seconds that a case may take. */
const SECONDS = 10;
const RELEASED_SECONDS = 900;
const options = {
  ...released,
  ...json,
  memory: { ...released.memory, describe: "of a released model's steps: run what fits into so much, as 24GB" },
  job: {
    choices: RELEASED_JOBS,
    describe: 'the one step of a released model to run; sampling and all training unless given',
  },
  dtype: {
    choices: ['bf16', ...Object.keys(BLOCKS), ...FP8] as ('bf16' | BlockType | Fp8)[],
    describe:
      "of kernels: products alone, their weights of this type beside the same of bf16; of a released model's steps: of its frozen blocks",
  },
  shapes: {
    type: 'string',
    describe: `sizes for kernels and models, separated by commas: ${Object.keys(SHAPES).join(', ')}; all unless given`,
  },
  budget: {
    type: 'number',
    describe: `seconds a case may take; what would take longer is named and left out; ${SECONDS} unless given, ${RELEASED_SECONDS} for a step of a released model`,
  },
  vs: {
    type: 'string',
    describe: `in place of the cases: ours and other engines on the same works, answers checked: ${peerNames().join(', ')}, separated by commas; every one that is installed when none is named`,
  },
  ...isaOptions,
  save: { type: 'string', describe: 'write the results to this file' },
  against: { type: 'string', describe: 'a file of --save: show how much faster or slower each case has become' },
} as const;
type BenchArgs = Args<typeof options> & { what: (typeof PARTS)[number] };

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
  for (const name of names)
    if (!peerNames().includes(name))
      throw new UsageError(`--vs: there is no "${name}"${didYouMean(name, peerNames())}`);
  return names;
}

type Counted = Result & { cost?: Cost | undefined; moves?: number | undefined };

/** Rates and shares by the adapter's clock. */
function rated({ cost, moves, ...r }: Counted, device: Device, roof: Roofline): Result {
  const ms = clockOf(device.info.kind).typical(r);
  if (device.info.source === 'null') return r;
  if (!cost) return moves ? { ...r, gbs: moves / ms / 1e6 } : r;
  return { ...r, gflops: cost.flops / ms / 1e6, gbs: cost.traffic / ms / 1e6, share: leastMs(roof, cost) / ms };
}

type Measured = Pick<Report, 'roofline' | 'results' | 'skipped' | 'comparisons' | 'verdicts'>;

async function cold(): Promise<Result> {
  console.error('digits-test: a tiny training step where nothing is compiled yet …');
  return {
    of: 'digits-test',
    name: 'training step, cold',
    shape: 'teacher, in a new process with empty driver caches',
    ...(await coldStep()),
  };
}

async function runPeers(device: Device, names: readonly string[], signal: AbortSignal): Promise<Measured> {
  const roof = await roofline(device);
  const comparisons = await compare(names, signal);
  return {
    roofline: roof,
    results: [await cold()],
    skipped: [],
    comparisons,
    verdicts: verdicts(comparisons, { roofline: roof, kind: device.info.kind }),
  };
}

/** A step of each job of a released model, at the size that was asked for. */
async function runReleased(device: Device, args: BenchArgs, signal: AbortSignal): Promise<Measured> {
  const { preset: name, job, memory, budget = RELEASED_SECONDS } = args;
  const roof = await roofline(device);
  const subjects = subjectsOf(args);
  const packed = args.dtype === 'bf16' ? undefined : args.dtype;
  const make = (sets: readonly string[]): Subject => ({ ...subjects(sets), packed });
  return {
    roofline: roof,
    ...(await releasedSteps(
      device,
      roof,
      {
        name,
        make,
        jobs: job ? [job] : RELEASED_JOBS,
        precision: precisionOn(device.caps, args.precision),
        memory: memory === undefined ? device.budget : memoryBytes(memory),
        budget,
      },
      signal,
    )),
  };
}

async function runCases(device: Device, args: BenchArgs, signal: AbortSignal): Promise<Measured> {
  const wants = (part: (typeof PARTS)[number]) => args.what === part || args.what === 'all';
  const p = presetOf(args);
  const shapes = shapesOf(args.shapes);
  let roof = await roofline(device);
  const counted: Counted[] = [];
  const skipped: Skipped[] = [];
  const all: [of: string, cases: Case[]][] = [
    ...shapes.map((s): [string, Case[]] => [
      s.name,
      [
        ...(wants('kernels') ? kernelCases(device, s, args.dtype) : []),
        ...(wants('models') ? modelCases(device, s) : []),
      ],
    ]),
    [p.name, wants('steps') ? stepCases(device, p) : []],
    ['files', wants('load') ? loadCases(device) : []],
  ];
  for (const [of, cases] of all) {
    for (const c of cases) {
      signal.throwIfAborted();
      const found = await judge(device, c, roof, args.budget ?? SECONDS);
      if ('skipped' in found) {
        skipped.push({ of, name: c.name, shape: c.shape, reason: found.skipped });
        continue;
      }
      console.error(`${of}: ${c.name} ${c.shape} …`);
      counted.push({
        of,
        name: c.name,
        shape: c.shape,
        ...(await measure(device, c)),
        cost: found.cost,
        moves: c.moves,
      });
    }
  }
  if (wants('cold')) counted.push(await cold());
  const tooFast = () => counted.filter((c) => (rated(c, device, roof).share ?? 0) > IMPOSSIBLE);
  if (tooFast().length) {
    console.error('some kernels were faster than the ceilings: measuring these again …');
    roof = await roofline(device, roof);
    for (const c of tooFast())
      console.error(
        `${c.of}: ${c.name} ${c.shape} is still above its ceiling: its share is left out, the ceiling is wrong there`,
      );
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
  if (!comparisons || !found) {
    console.log(table(report, baseline && against(baseline, report)));
    if (results.some((r) => r.planned)) console.log(againstPlan(results, clockOf(report.kind).typical));
    return;
  }
  const missed = shortfall(found, report);
  console.log(`${sideBySide(comparisons, report)}\n${verdictTable(found)}${missed ? `\n${missed}` : ''}`);
  const [seconds, processor] = [results[0]!.firstMs / 1000, results[0]!.firstCpuMs / 1000];
  console.log(
    `first call of a tiny training step, nothing compiled yet: ${number(seconds)} s, ${number(processor)} s of processor time; aim ${COLD_TARGET} s: ${seconds <= COLD_TARGET ? 'met' : 'missed'}`,
  );
}

async function bench(args: BenchArgs): Promise<void> {
  if (args.what === 'reduce') return benchReduce(args.json);
  if (args.what === 'scale') return benchScale(args.json);
  alone(`bench ${args.what}`);
  if (args.isa !== undefined) return isa(args.isa, args);
  const baseline = args.against === undefined ? undefined : readBaseline(args.against);
  if (args.save !== undefined) willWrite(args.save);
  if (args.budget !== undefined && !(args.budget > 0))
    throw new UsageError(`--budget must be more than 0 seconds, got ${args.budget}`);
  if (Object.hasOwn(RELEASED, args.preset) && (args.what !== 'steps' || args.vs !== undefined))
    throw new UsageError(`--preset ${args.preset} is for its steps: bench steps --preset ${args.preset}`);
  const peers = args.vs === undefined ? undefined : peersOf(args.vs);
  await session('stopped; nothing was written', async ({ device, signal }) => {
    const { info, caps } = device;
    const measured = peers
      ? await runPeers(device, peers, signal)
      : await (Object.hasOwn(RELEASED, args.preset) ? runReleased : runCases)(device, args, signal);
    const report: Report = {
      adapter: info.name,
      driver: info.driver,
      kind: info.kind,
      tier: caps.tier,
      clock: clockOf(info.kind).name,
      cores: CORES,
      ...(info.source === 'null' && { nothing: true }),
      ...measured,
    };
    if (args.save !== undefined) writeWhole(args.save, `${JSON.stringify(report, undefined, 1)}\n`);
    if (args.json) console.log(JSON.stringify(report));
    else print(report, baseline);
  });
}

const command: CommandModule<object, BenchArgs> = {
  command: 'bench [what]',
  describe: 'speed of kernels, models and training steps on this machine, beside its measured ceilings',
  builder: (y) =>
    y
      .positional('what', {
        choices: PARTS,
        default: 'all' as const,
        describe:
          'kernels one by one, parts of the models, training steps of the preset, loading of weights, the first step on a new machine; gradients over ranks (under mpirun), or how ranks scale here',
      })
      .options(options)
      .example('$0 bench kernels --shapes digits', 'the kernels at the sizes of the bundled models')
      .example('$0 bench kernels --shapes wan2.1-1.3b-256p --dtype q4_k', 'products with packed weights')
      .example(
        '$0 bench steps --preset wan2.1-t2v-1.3b --mode lora',
        'sampling and training steps of a released model on made-up weights, beside the plan',
      )
      .example('VPAE_ADAPTER=null $0 bench steps', 'what training steps cost the host: a device that computes nothing')
      .example('$0 bench --vs', 'ours and every installed peer, and what we aim at')
      .example(
        '$0 bench --isa navi31 --only conv3d',
        "what an AMD GPU's compiler makes of the kernels, without the GPU",
      )
      .example('$0 bench --save before.json', 'then, after a change: --against before.json'),
  handler: bench,
};
export default command;

/** `vpae plan`: what a job will need and whether it fits, from shapes alone: no weights, and for released models no GPU either. */
import type { CommandModule } from 'yargs';
import {
  flopsOf,
  hostBytes,
  hostPeakOf,
  deviceBytes,
  largestStage,
  longestAt,
  onUnits,
  peakOf,
  secondsAt,
  streamedOf,
  totalOf,
  trafficOf,
  unbound,
  type JobCost,
} from '../train/planning/cost.ts';
import { BLOCKS, FP8 } from '../kernels/packed.ts';
import { findFit, OFFLOAD, type Fit } from '../train/planning/fit.ts';
import { SUBMIT_MS } from '../engine/runtime/pace.ts';
import { costOf, JOBS, USUAL, type JobName, type Sampler, type Target } from '../train/planning/jobs.ts';
import type { Subject } from '../train/planning/subject.ts';
import { precisionOn, type Precision } from '../model/pipeline/precision.ts';
import { UsageError } from './common/errors.ts';
import { count, json, memoryBytes, type Args } from './common/options.ts';
import { gb, overrides, released, subjectsOf } from './common/released.ts';
import { bandwidth, leastMs, roofline, type Roofline } from './bench/roofline.ts';
import { session } from './common/session.ts';
import { draw } from './common/table.ts';

const options = {
  ...released,
  ...json,
  job: {
    choices: JOBS,
    describe: 'what is to be done; VAE, teacher and both phases of a preset unless given, sampling of a released model',
  },
  steps: {
    type: 'number',
    describe: "sampling steps, guided; 1: a student's, unguided [the model's usual ones, 50 for most]",
  },
  offload: {
    type: 'boolean',
    default: false,
    describe: 'sample with blocks from their files at every step; train with those of frozen networks from host memory',
  },
  dtype: {
    choices: [...FP8, ...(Object.keys(BLOCKS) as (keyof typeof BLOCKS)[])],
    describe: "how the matrices of a frozen network's blocks lie in its file, and on the device",
  },
  binding: { type: 'string', describe: "what a GPU binds at a time at most, as 128MiB; this adapter's unless given" },
  tflops: {
    type: 'number',
    implies: 'gbps',
    describe:
      'arithmetic rate to predict seconds with, 10^12 operations a second; measured on this adapter unless given',
  },
  gbps: { type: 'number', implies: 'tflops', describe: 'memory rate to predict seconds with, 10^9 bytes a second' },
  'host-gbps': {
    type: 'number',
    default: 10,
    describe: 'beside --tflops and --gbps the rate from host memory, for --offload',
  },
} as const;
type PlanArgs = Args<typeof options>;

const LARGEST = 10;
/** What released models are planned for where this machine has no GPU: the usual limits of a large one. */
const GPU: Target = {
  caps: {
    tier: 'tiled',
    f16: true,
    subgroup: 32,
    maxInvocations: 1024,
    maxWorkgroupBytes: 32768,
    maxStorageBuffers: 10,
    maxBindingBytes: 2 ** 32 - 4,
    units: [{ operands: 'f16', M: 16, N: 16, K: 16, lanes: 32, multiple: 32, emulated: false }],
  },
  maxBufferBytes: 2 ** 32 - 4,
};

/** A job planned, and against what it is held. */
interface Answer {
  cost: JobCost;
  subject: Subject;
  /** Of sampling. */ precision: Precision;
  target: Target;
  roof: Roofline | undefined;
  changes: Fit['changes'] | undefined;
  memory: number | undefined;
}

function report({ cost, roof, memory, changes }: Answer): object {
  const stage = largestStage(cost);
  const peak = peakOf(cost);
  return {
    job: cost.job,
    unit: cost.unit,
    peakBytes: peak,
    hostBytes: hostPeakOf(cost),
    flops: flopsOf(cost),
    onUnits: onUnits(cost),
    trafficBytes: trafficOf(cost),
    streamedBytes: streamedOf(cost),
    ...(roof && {
      seconds: secondsOf(cost, roof),
      longest: longestAt(cost, (work) => leastMs(roof, work)),
      roofline: roof,
    }),
    ...(memory !== undefined && {
      memoryBytes: memory,
      fits: peak <= memory,
      ...(changes && {
        changes: changes.flatMap((c) => (c.offload ? ['--offload'] : c.sets.map((set) => `--set ${set}`))),
      }),
    }),
    stages: cost.stages.map((s) => ({
      name: s.name,
      bytes: totalOf(deviceBytes(s)),
      causes: deviceBytes(s),
      host: hostBytes(s),
      programs: s.runs.map((r) => ({
        name: r.name,
        calls: r.calls,
        kernels: r.plan.kernels,
        bytes: r.plan.bytes,
        flops: r.plan.flops,
        unitFlops: r.plan.unitFlops,
        trafficBytes: r.plan.traffic,
      })),
    })),
    largest: largestTensors(cost).map(({ name, bytes }) => ({ name, bytes })),
    peakStage: stage.name,
  };
}

/** Of the program whose arenas are the largest in the stage that needs the most. */
function largestTensors(cost: JobCost) {
  const runs = largestStage(cost).runs;
  return runs
    .reduce((a, b) => (b.plan.memory.lowerBound > a.plan.memory.lowerBound ? b : a))
    .plan.memory.atPeak.slice(0, LARGEST);
}

function print(name: string, { cost, roof, subject, precision, target }: Answer): void {
  const stage = largestStage(cost);
  const others = cost.stages
    .filter((s) => s !== stage)
    .map((s) => `${s.name} ${gb(totalOf(deviceBytes(s)))}`)
    .join(', ');
  console.log(
    `\n${name}, ${cost.job}${cost.job === 'sample' && precision === 'f16' ? ' with f16 operands' : ''}, ${subject.video.slice(1).join(' x ')}: ${gb(peakOf(cost))} on the device (${stage.name}${others && `; at other times: ${others}`}), ${gb(hostPeakOf(cost))} on the host`,
  );
  console.log(
    draw(
      ['cause', 'of', 'memory'],
      [
        ...deviceBytes(stage)
          .filter((h) => h.bytes)
          .map((h) => [h.cause, h.what, gb(h.bytes)]),
        ...hostBytes(stage)
          .filter((h) => h.bytes)
          .map((h) => [h.cause, h.what, gb(h.bytes)]),
      ],
    ),
  );
  console.log(
    draw(
      ['program', 'calls', 'kernels', 'arithmetic', 'traffic', 'memory'],
      cost.stages.flatMap((s) =>
        s.runs
          .filter((r) => r.calls)
          .map((r) => [
            r.name,
            String(r.calls),
            String(r.plan.kernels),
            flop(r.plan.flops),
            gb(r.plan.traffic),
            gb(r.plan.bytes),
          ]),
      ),
    ),
  );
  const seconds = roof
    ? `; at least ${time(secondsOf(cost, roof))} at ${(roof.gflops / 1000).toPrecision(3)} TFLOP/s and ${bandwidth(roof, Infinity).toPrecision(3)} GB/s`
    : '';
  const streamed = streamedOf(cost) ? `, ${gb(streamedOf(cost))} from host memory` : '';
  console.log(
    `A ${cost.unit}: ${flop(flopsOf(cost))}, ${(100 * onUnits(cost)).toFixed(1)} % of it on matrix units, ${gb(trafficOf(cost))} of traffic${streamed}${seconds}.`,
  );
  if (roof) {
    const { label, seconds: longest } = longestAt(cost, (work) => leastMs(roof, work));
    const cut = Math.ceil((1000 * longest) / SUBMIT_MS);
    console.log(
      `  longest kernel: at least ${time(longest)}${cut > 1 ? `, in ${cut} parts on a GPU (VPAE_SUBMIT_MS)` : ''}: ${label}`,
    );
  }
  console.log('Largest tensors at the peak:');
  for (const { name: tensor, bytes } of largestTensors(cost)) console.log(`  ${gb(bytes).padStart(10)}  ${tensor}`);
  const why = unbound(cost.stages, target);
  if (why) console.log(`${why}: a smaller size`);
}

const secondsOf = (cost: JobCost, roof: Roofline): number =>
  secondsAt(cost, (work) => leastMs(roof, work), 1e9 * roof.hostGbs);

const flop = (n: number): string =>
  n < 1e11 ? `${(n / 1e9).toPrecision(4)} GFLOP` : `${(n / 1e12).toPrecision(4)} TFLOP`;

function time(seconds: number): string {
  if (seconds < 60) return `${seconds.toPrecision(3)} s`;
  return seconds < 7200 ? `${(seconds / 60).toPrecision(3)} min` : `${(seconds / 3600).toPrecision(3)} h`;
}

async function plan(args: PlanArgs): Promise<void> {
  const memory = args.memory === undefined ? undefined : memoryBytes(args.memory);
  if (args.steps !== undefined) count('steps', args.steps, 1, 1000);
  for (const [name, rate] of Object.entries({ tflops: args.tflops, gbps: args.gbps, 'host-gbps': args['host-gbps'] }))
    if (rate !== undefined && !(rate > 0 && rate <= 1e9))
      throw new UsageError(`--${name} must be above 0 and at most 1000000000, got ${rate}`);
  const subjects = subjectsOf(args);
  const make = (sets: readonly string[]): Subject => ({
    ...subjects(args.offload ? [OFFLOAD, ...sets] : sets),
    packed: args.dtype,
  });
  const subject = make([]);
  const jobs: JobName[] = args.job ? [args.job] : subject.preset ? USUAL.filter((j) => j !== 'sample') : ['sample'];
  if (jobs.includes('vae') && !subject.preset) throw new Error('[plan] the VAE of a released model is not trained');
  const given =
    args.tflops !== undefined && args.gbps !== undefined
      ? { gflops: 1000 * args.tflops, copies: [{ bytes: 0, gbs: args.gbps }], hostGbs: args['host-gbps'] }
      : undefined;
  const { target, roof } = bound(await machine(subject, given), args.binding);
  const precision = subject.preset ? 'f32' : precisionOn(target.caps, args.precision);
  const steps = args.steps ?? subject.usual.steps;
  const sampler: Sampler = { steps, guided: steps > 1, offload: args.offload, precision };
  const answers = jobs.map((job): Answer => {
    const found = memory === undefined ? undefined : findFit(job, make, sampler, target, memory);
    const cost = found?.cost ?? costOf(job, subject, sampler, target);
    return { cost, subject: found?.subject ?? subject, precision, target, roof, changes: found?.changes, memory };
  });
  if (args.json) console.log(JSON.stringify(answers.map(report)));
  for (const answer of args.json ? [] : answers) {
    print(args.preset, answer);
    const { changes } = answer;
    if (changes)
      console.log(
        changes.length
          ? `\nIt fits into ${args.memory} with ${changes.map((c) => c.what).join(', ')}: ${overrides(args, changes)}`
          : `\nIt fits into ${args.memory} as it is.`,
      );
  }
  const misses = answers.filter((a) => a.memory !== undefined && !a.changes);
  if (misses.length)
    throw new Error(
      `[plan] nothing makes ${misses.map((a) => a.cost.job).join(', ')} of ${args.preset} fit into ${args.memory}: it needs ${misses.map((a) => gb(peakOf(a.cost))).join(', ')} as it is; a smaller --size or fewer --frames`,
    );
}

/** The same with another binding limit. */
function bound<M extends { target: Target }>(machine: M, binding: string | undefined): M {
  if (binding === undefined) return machine;
  const maxBindingBytes = Math.min(memoryBytes(binding, 'binding'), machine.target.caps.maxBindingBytes);
  return { ...machine, target: { ...machine.target, caps: { ...machine.target.caps, maxBindingBytes } } };
}

/** This machine's adapter with its rates; a released model where that is no GPU is planned for one. */
async function machine(
  subject: Subject,
  given: Roofline | undefined,
): Promise<{ target: Target; roof: Roofline | undefined }> {
  if (!subject.preset && given) return { target: GPU, roof: given };
  try {
    return await session('stopped; nothing was written', async ({ device }) => {
      if (subject.preset || device.info.kind === 'gpu')
        return { target: device, roof: given ?? (await roofline(device)) };
      console.error('planned for a GPU that binds 4 GiB at a time; --tflops and --gbps predict its seconds');
      return { target: GPU, roof: undefined };
    });
  } catch (error) {
    if (subject.preset) throw error;
    console.error(
      `planned for a GPU that binds 4 GiB at a time; --tflops and --gbps predict its seconds (${(error as Error).message})`,
    );
    return { target: GPU, roof: undefined };
  }
}

const command: CommandModule<object, PlanArgs> = {
  command: 'plan',
  describe: 'memory, arithmetic and least seconds of a job; nothing is run',
  builder: (y) =>
    y
      .options(options)
      .example('$0 plan --set priming.batch=64', 'will a larger batch fit?')
      .example('$0 plan --preset wan2.1-t2v-1.3b --job sample --memory 12GB', 'will a card of 12 GB sample it?')
      .example('$0 plan --preset wan2.1-i2v-14b-480p --job equilibrium --mode lora --memory 80GB', 'and train it?'),
  handler: plan,
};
export default command;

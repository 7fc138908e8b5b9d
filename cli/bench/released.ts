/** The steps of a released model on made-up weights, at any size and depth, beside what `plan` says of exactly them. */
import type { CompiledFunction } from '../../engine/runtime/compile.ts';
import type { Device } from '../../engine/runtime/device.ts';
import type { TensorType } from '../../engine/frontend/graph.ts';
import type { NDArray } from '../../engine/runtime/ndarray.ts';
import { flatten, host, mapTree } from '../../engine/frontend/tree.ts';
import { numel, storageBytes, type DType } from '../../kernels/kernel.ts';
import { toBF16 } from '../../model/halves.ts';
import { Diffusion } from '../../model/pipeline/diffuse.ts';
import { hasBeside } from '../../model/config.ts';
import { networkOf } from '../../model/pipeline/forward.ts';
import type { Precision } from '../../model/pipeline/precision.ts';
import { draw } from '../../model/params.ts';
import { isQuantised, quantise, toF8E4M3 } from '../../model/quantise.ts';
import { ditShapes } from '../../model/wan/dit.ts';
import { freeTree } from '../../train/loop/checkpoint.ts';
import type { PackType } from '../../train/loop/packs.ts';
import {
  deviceBytes,
  flopsOf,
  onUnits,
  secondsAt,
  totalOf,
  trafficOf,
  unbound,
  type Stage,
} from '../../train/planning/cost.ts';
import { findFit } from '../../train/planning/fit.ts';
import { costOf, stageOf, type JobName, type Sampler } from '../../train/planning/jobs.ts';
import { conditionTypes, paramTypes, type Subject } from '../../train/planning/subject.ts';
import { noise } from '../common/noise.ts';
import { gb, overrides } from '../common/released.ts';
import { EFFICIENCY, measure, type Opened } from './case.ts';
import { clockOf } from './clock.ts';
import type { Result, Skipped } from './report.ts';
import { leastMs, type Roofline } from './roofline.ts';

type Numbers = Float32Array | Uint16Array | Uint8Array;

/** One step under both texts. */
const samplerOf = ({ precision }: Pick<Wanted, 'precision'>): Sampler => ({
  steps: 1,
  guided: true,
  offload: false,
  precision,
});
/** Of weights: normals of this deviation keep activations finite through any depth. */
const DEVIATION = 0.02;
/** Numbers that are drawn; larger tensors repeat them. */
const DRAWN = 2 ** 20;
/** A step is called so often at the least. */
const CALLS = 2;
/** Bytes in the queue before it is waited for. */
const QUEUED = 2 ** 26;

/** Floats as weights of a type; the made-up ones are of types that `vpae export` writes. */
function storedAs(dtype: DType, values: Float32Array): Numbers {
  if (dtype === 'f32') return values;
  if (dtype === 'bf16') return toBF16(values);
  if (dtype === 'f8_e4m3') return toF8E4M3(values);
  if (isQuantised(dtype)) return quantise(dtype, values);
  throw new Error(`[bench] weights in ${dtype} are not made up: --dtype bf16, f8_e4m3, q8_0, q5_0 or q4_k`);
}

/** Tensors of these types on the device, each type object one tensor: weights, moments and averages as they stand in a training state. */
class Made {
  private readonly device: Device;
  private readonly made = new Map<TensorType, NDArray>();
  private readonly drawn: Float32Array;
  private readonly stored = new Map<DType, Numbers>();
  private queued = 0;

  constructor(device: Device, seed: number) {
    this.device = device;
    this.drawn = draw('normal', seed, 'weights', DRAWN).map((x) => DEVIATION * x);
  }

  /** What is drawn, as a type has it. */
  private as(dtype: DType): Numbers {
    const made = this.stored.get(dtype) ?? storedAs(dtype, this.drawn);
    this.stored.set(dtype, made);
    return made;
  }

  async tree(tree: unknown): Promise<unknown> {
    const flat = flatten<TensorType>(tree);
    const tensors: NDArray[] = [];
    for (const [i, type] of flat.leaves.entries()) {
      const found = this.made.get(type) ?? (await this.tensor(type, /^[vm]\./.test(flat.paths[i]!))); // moments begin at zero, as the device's memory does
      this.made.set(type, found);
      if ('members' in type)
        for (const m of (type as PackType).members) this.made.set(m.type, found.view(m.at, m.type.shape));
      tensors.push(found);
    }
    return flat.rebuild(tensors);
  }

  private async tensor({ shape, dtype }: TensorType, zero: boolean): Promise<NDArray> {
    const out = this.device.empty(shape, dtype);
    if (zero) return out;
    const data = this.as(dtype);
    for (let at = 0; at < numel(shape); at += DRAWN) {
      const share = Math.min(DRAWN, numel(shape) - at) / DRAWN;
      const some = data.subarray(0, share * data.length);
      this.device.write(out.buffer, storageBytes(dtype, at), some, dtype);
      if ((this.queued += some.byteLength) < QUEUED) continue;
      this.queued = 0;
      await this.device.idle();
    }
    return out;
  }

  free(): void {
    freeTree([...this.made.values()]);
  }
}

/** What a step is told: noise, and one half for times; whole numbers count tokens of text. */
const told =
  (textLength: number) =>
  ({ shape, dtype }: TensorType) =>
    dtype === 'f32'
      ? shape.length > 1
        ? noise(shape)
        : host(new Float32Array(numel(shape)).fill(0.5), shape)
      : host(new Uint32Array(numel(shape)).fill(textLength), shape);

/** Every program of a training step, as often as a step calls it. */
async function openTraining(device: Device, { config }: Subject, { runs }: Stage): Promise<Opened> {
  const made = new Made(device, 1);
  const programs: { run: CompiledFunction<unknown[], unknown>; calls: number; args: unknown[] }[] = [];
  for (const { call } of runs) await made.tree(call.args[0]); // states first: what other steps see of them are views
  for (const {
    name,
    calls,
    call: { fn, args: types, resident, donate, operands = 'f32' },
  } of runs) {
    const args: unknown[] = [];
    for (const [a, tree] of types.entries())
      args.push(resident.has(a) ? await made.tree(tree) : mapTree(told(config.text_len), tree));
    programs.push({
      run: device.compile(fn as (...args: unknown[]) => unknown, { donate, name, operands }),
      calls,
      args,
    });
  }
  await device.idle();
  return {
    async call() {
      for (const { run, calls, args } of programs) for (let i = 0; i < calls; i++) await run(...(args as never[]));
    },
    settle: () => device.idle(),
    async close() {
      for (const { run } of programs) await run.free();
      made.free();
    },
  };
}

/** The first of the sampler's steps, through the pipeline of `vpae sample`. */
async function openSampling(device: Device, s: Subject, operands: Precision): Promise<Opened> {
  const network = networkOf(
    (await new Made(device, 1).tree(paramTypes(ditShapes(s.config), s.packed ?? s.stored))) as Record<string, NDArray>,
  );
  const diffusion = new Diffusion(device, s.config, { operands });
  const { text, pictures, first } = conditionTypes(s, 1);
  const [channels, ...cells] = s.latent as [number, ...number[]];
  const input = {
    shape: s.latent,
    seeds: [1],
    text: noise(text.shape, 1),
    negative: noise(text.shape, 2),
    ...(hasBeside(s.config) && { beside: noise([1, s.config.in_dim - channels, ...cells], 3) }),
    ...(pictures && { imageTokens: noise(pictures.shape, 4) }),
    ...(first && { first: noise(first.shape, 5) }),
  };
  await device.idle();
  return {
    async call() {
      (await diffusion.run(network, input, { kind: 'unipc', steps: 1, shift: 5, guidance: 5 })).latent.free();
    },
    settle: () => device.idle(),
    async close() {
      await diffusion.close();
      await network.free();
    },
  };
}

export interface Wanted {
  name: string;
  /** With more overrides. */
  make: (sets: readonly string[]) => Subject;
  jobs: readonly JobName[];
  /** Of sampling. */
  precision: Precision;
  /** Bytes that may be held at most. */
  memory: number;
  /** Seconds that a job may take. */
  budget: number;
}

export const RELEASED_JOBS = ['sample', 'teacher', 'priming', 'equilibrium'] as const satisfies readonly JobName[];
const NAMES: Partial<Record<JobName, string>> = { sample: 'sampling, an evaluation under both texts' };

/** Why a job is not run, in one line. */
function refusal(
  device: Device,
  job: JobName,
  { make, precision, memory, budget }: Wanted,
  stage: Stage,
  seconds: number,
): string | undefined {
  const needs = totalOf(deviceBytes(stage));
  const why = needs > memory ? `it needs ${gb(needs)}, there are ${gb(memory)}` : unbound([stage], device);
  if (why) {
    const changes = findFit(job, make, samplerOf({ precision }), device, memory)?.changes;
    return `${why}; ${changes ? `it fits with ${overrides({}, changes)}` : 'nothing makes it fit but a smaller --size, fewer --frames or --layers'}`;
  }
  const about = (CALLS * seconds) / EFFICIENCY;
  return about > budget ? `it would take about ${about.toPrecision(2)} s here, over --budget ${budget}` : undefined;
}

/** Runs each job's step, or says why not. */
export async function releasedSteps(
  device: Device,
  roof: Roofline,
  wanted: Wanted,
  signal: AbortSignal,
): Promise<{ results: Result[]; skipped: Skipped[] }> {
  const results: Result[] = [];
  const skipped: Skipped[] = [];
  for (const job of wanted.jobs) {
    signal.throwIfAborted();
    const s = wanted.make([]);
    const cost = costOf(job, s, samplerOf(wanted), device);
    const stage = cost.stages.find(({ name }) => name.startsWith('diffusion')) ?? cost.stages[0]!;
    const whole = { ...cost, stages: [stage] };
    const predicted = secondsAt(whole, (work) => leastMs(roof, work), 1e9 * roof.hostGbs);
    const [of, name] = [wanted.name, NAMES[job] ?? `${job} step`];
    const shape = `${s.video.slice(1).join('x')}, ${s.config.num_layers} blocks${stageOf(job) ? `, ${s.student.mode === 'lora' ? 'adapters' : 'all weights'}` : ''}${s.packed ? `, blocks in ${s.packed}` : ''}${job === 'sample' && wanted.precision === 'f16' ? ', f16 operands' : ''}`;
    const reason = refusal(device, job, wanted, stage, predicted);
    if (reason) {
      skipped.push({ of, name, shape, reason });
      continue;
    }
    console.error(`${of}: ${name} ${shape} …`);
    const times = await measure(device, {
      name,
      shape,
      open: () => (job === 'sample' ? openSampling(device, s, wanted.precision) : openTraining(device, s, stage)),
    });
    const ms = clockOf(device.info.kind).typical(times);
    results.push({
      of,
      name,
      shape,
      ...times,
      gflops: flopsOf(whole) / ms / 1e6,
      gbs: trafficOf(whole) / ms / 1e6,
      share: (1000 * predicted) / ms,
      planned: { peak: totalOf(deviceBytes(stage)), ms: 1000 * predicted, onUnits: onUnits(whole) },
    });
  }
  return { results, skipped };
}

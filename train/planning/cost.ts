/** What a job costs: what lies in memory at the same time and why, and the programs that run. */
import { unbindable, type Plan, type Room } from '../../engine/compiler/plan.ts';
import { largestArenas } from '../../engine/runtime/scratch.ts';
import { planFunction, type CompileOptions, type StreamedType } from '../../engine/compiler/stages.ts';
import { bytesOf, type TensorType } from '../../engine/frontend/graph.ts';
import { flatten } from '../../engine/frontend/tree.ts';
import { boundBytes } from '../../kernels/kernel.ts';
import { STAGING_BYTES } from '../../engine/runtime/staging.ts';
import { UPLOAD_HOST_BYTES } from '../../model/files/upload.ts';

export type Target = Pick<Room, 'caps' | 'maxBufferBytes'>;
type Cause = 'weights' | 'optimizer' | 'average' | 'gradients' | 'activations' | 'inputs and results' | 'host';

/** Bytes that stay for as long as a stage lasts. */
export interface Held {
  cause: Cause;
  what: string;
  bytes: number;
}
/**
 * A function and the types it is called on: enough to plan it, and to run it on made-up numbers. One type object is one tensor, wherever
 * it stands.
 */
export interface Call {
  fn: (...args: never[]) => unknown;
  args: readonly unknown[];
  /** Numbers of the arguments that lie on the device; the others are uploaded at each call. */
  resident: ReadonlySet<number>;
  donate: readonly number[];
  operands?: CompileOptions['operands'];
}
/** A program, and how often it runs in a unit of the job. */
export interface Run {
  name: string;
  calls: number;
  call: Call;
  plan: Plan;
}
/** What is on the device at the same time. A job's stages follow one another. */
export interface Stage {
  name: string;
  held: Held[];
  runs: Run[];
  host: Held[];
}
export interface JobCost {
  job: string;
  /** What the calls are counted in. */ unit: 'clip' | 'step';
  stages: Stage[];
}

const sum = (xs: readonly number[]): number => xs.reduce((a, b) => a + b, 0);

/** What a call costs on a device of these capabilities. */
export const planned = (name: string, calls: number, call: Call, target: Target): Run => ({
  name,
  calls,
  call,
  plan: planFunction(call.fn, call.args, call.resident, target, {
    donate: call.donate,
    name,
    operands: call.operands ?? 'f32',
  }),
});

/** Weights on their way from files to the device. */
export const READING: Held = { cause: 'host', what: 'chunks of weights being read', bytes: UPLOAD_HOST_BYTES };

/** Bytes of tensors on the device, each in a buffer of its own. */
export const treeBytes = (tree: unknown): number =>
  sum(flatten<TensorType>(tree).leaves.map((t) => boundBytes(bytesOf(t))));

/** Of frozen weights, those that are on the device for good, and those that stay in host memory. */
export function dividedBytes(tree: Readonly<Record<string, TensorType | StreamedType>>): {
  device: number;
  host: number;
} {
  const all = Object.values(tree);
  const host = treeBytes(all.filter((t) => 'set' in t));
  return { device: treeBytes(all) - host, host };
}

/** Device memory of a stage by cause; the programs share their arenas. */
export function deviceBytes({ held, runs }: Stage): Held[] {
  const arenas = sum(largestArenas(runs.map((r) => r.plan.memory.arenas)));
  const own = sum(runs.map((r) => r.plan.bytes - sum(r.plan.memory.arenas)));
  const ways = Number(runs.some((r) => r.plan.streamed)) + Number(runs.some((r) => r.plan.parked));
  return [
    ...held,
    ...(ways
      ? [{ cause: 'weights', what: 'mapped, on their way from host memory', bytes: ways * STAGING_BYTES } as const]
      : []),
    { cause: 'activations', what: `arenas of ${runs.map((r) => r.name).join(', ')}`, bytes: arenas },
    { cause: 'inputs and results', what: 'of every program', bytes: own },
  ];
}

/** Host memory of a stage; the programs share what their values wait in. */
export const hostBytes = ({ host, runs }: Stage): Held[] => [
  ...host,
  {
    cause: 'host',
    what: 'values that wait for the backward sweep',
    bytes: sum(largestArenas(runs.map((r) => r.plan.host))),
  },
];

export const totalOf = (held: readonly Held[]): number => sum(held.map((h) => h.bytes));
/** The stage that needs the most device memory. */
export const largestStage = ({ stages }: JobCost): Stage =>
  stages.reduce((a, b) => (totalOf(deviceBytes(b)) > totalOf(deviceBytes(a)) ? b : a));
export const peakOf = (cost: JobCost): number => totalOf(deviceBytes(largestStage(cost)));
export const hostPeakOf = ({ stages }: JobCost): number => Math.max(...stages.map((s) => totalOf(hostBytes(s))));

/** Why a program of these cannot be bound on a device, whatever its memory. */
export const unbound = (stages: readonly Stage[], target: Target): string | undefined =>
  stages.flatMap((s) => s.runs.map((r) => unbindable(r.plan, target))).find((why) => why !== undefined);

const perUnit = (cost: JobCost, of: (p: Plan) => number): number =>
  sum(cost.stages.flatMap((s) => s.runs.map((r) => r.calls * of(r.plan))));
export const flopsOf = (cost: JobCost): number => perUnit(cost, (p) => p.flops);
/** Share of the arithmetic that matrix units do. */
export const onUnits = (cost: JobCost): number => perUnit(cost, (p) => p.unitFlops) / flopsOf(cost);
/** Bytes that come from host memory. */
export const streamedOf = (cost: JobCost): number => perUnit(cost, (p) => p.streamed);
export const trafficOf = (cost: JobCost): number => perUnit(cost, (p) => p.traffic);

/** Milliseconds that a kernel of this work takes at the least. */
export type Least = (work: { flops: number; traffic: number }) => number;
/** The kernel that takes longest by itself: what a desktop's watchdog would end first, were it not cut. */
export function longestAt(cost: JobCost, least: Least): { label: string; seconds: number } {
  const kernels = cost.stages.flatMap((s) => s.runs.filter((r) => r.calls).flatMap((r) => r.plan.work));
  return kernels
    .map(({ label, flops, bytes }) => ({ label, seconds: least({ flops, traffic: bytes }) / 1000 }))
    .reduce((a, b) => (b.seconds > a.seconds ? b : a), { label: '', seconds: 0 });
}

/**
 * Seconds that no kernel can beat: each dispatch by what bounds it. Of a program with streamed inputs, these come beside it; values that
 * go to host memory are waited for.
 * @param hostRate bytes a second from host memory to the device
 */
export const secondsAt = (cost: JobCost, least: Least, hostRate: number): number =>
  perUnit(
    cost,
    (p) =>
      Math.max(sum(p.work.map((w) => least({ flops: w.flops, traffic: w.bytes }))) / 1000, p.streamed / hostRate) +
      p.parked / hostRate,
  );

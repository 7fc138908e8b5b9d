/** Timing by kernel: `DEBUG=2` prints a line a kernel, `PROFILE=trace.json` writes a trace for Perfetto. */
import type { Dispatch } from '../../kernels/kernel.ts';
import type { Device } from './device.ts';
import { mib } from '../host/errors.ts';
import { flags } from '../host/flags.ts';
import { waiting, writeText } from '../host/runtime.ts';

interface Timed {
  dispatch: Dispatch;
  pipeline: GPUComputePipeline;
  group: GPUBindGroup;
}
interface Event {
  name: string;
  cat: string;
  ph: 'X';
  ts: number;
  dur: number;
  pid: number;
  tid: number;
  args: Record<string, number>;
}

const events: Event[] = [];
let clock = 0;
const CHUNK = 1024; // a query set holds 4096 timestamps

/** Runs the kernels, each in a pass of its own between two timestamps. */
export async function profileRun(device: Device, program: string, kernels: readonly Timed[]): Promise<void> {
  const timestamps = device.gpu.features.has('timestamp-query');
  for (let start = 0; start < kernels.length; start += CHUNK) {
    const part = kernels.slice(start, start + CHUNK);
    const times = timestamps ? await byTimestamp(device, part) : await byWaiting(device, part);
    part.forEach((k, i) => report(device, program, k.dispatch, times[i]!));
  }
  if (flags.PROFILE) writeText(flags.PROFILE, JSON.stringify({ traceEvents: events, displayTimeUnit: 'ms' }));
}

function encode(encoder: GPUCommandEncoder, k: Timed, timestampWrites?: GPUComputePassTimestampWrites): void {
  const pass = encoder.beginComputePass(timestampWrites ? { timestampWrites } : {});
  pass.setPipeline(k.pipeline);
  pass.setBindGroup(0, k.group);
  pass.dispatchWorkgroups(...k.dispatch.grid);
  pass.end();
}

async function byTimestamp(device: Device, kernels: readonly Timed[]): Promise<number[]> {
  const count = kernels.length * 2;
  const querySet = device.gpu.createQuerySet({ type: 'timestamp', count });
  const resolve = device.gpu.createBuffer({ size: count * 8, usage: 0x200 | 0x4 });
  const read = device.gpu.createBuffer({ size: count * 8, usage: 0x1 | 0x8 });
  const encoder = device.gpu.createCommandEncoder();
  kernels.forEach((k, i) =>
    encode(encoder, k, { querySet, beginningOfPassWriteIndex: 2 * i, endOfPassWriteIndex: 2 * i + 1 }),
  );
  encoder.resolveQuerySet(querySet, 0, count, resolve, 0);
  encoder.copyBufferToBuffer(resolve, 0, read, 0, count * 8);
  device.gpu.queue.submit([encoder.finish()]);
  await waiting(read.mapAsync(1));
  const stamps = new BigInt64Array(read.getMappedRange().slice(0));
  for (const b of [resolve, read]) b.destroy();
  querySet.destroy();
  return kernels.map((_, i) => Number(stamps[2 * i + 1]! - stamps[2 * i]!) / 1000);
}

async function byWaiting(device: Device, kernels: readonly Timed[]): Promise<number[]> {
  const times: number[] = [];
  for (const k of kernels) {
    const encoder = device.gpu.createCommandEncoder();
    encode(encoder, k);
    const from = performance.now();
    device.gpu.queue.submit([encoder.finish()]);
    await waiting(device.gpu.queue.onSubmittedWorkDone());
    times.push((performance.now() - from) * 1000);
  }
  return times;
}

function report(device: Device, program: string, d: Dispatch, us: number): void {
  const gflops = d.flops / us / 1000;
  const gbs = d.bytes / us / 1000;
  if (flags.DEBUG >= 2) {
    const numbers = `${us.toFixed(1).padStart(9)} us ${gflops.toFixed(1).padStart(8)} GFLOP/s ${gbs.toFixed(1).padStart(7)} GB/s`;
    console.error(`${numbers}  ${mib(device.allocated).padStart(11)}  ${program}: ${d.label}`);
  }
  if (flags.PROFILE) {
    events.push({ name: d.label, cat: program, ph: 'X', ts: clock, dur: us, pid: 1, tid: 1, args: { gflops, gbs } });
    clock += us;
  }
}

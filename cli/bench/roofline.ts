/**
 * What the adapter can do at most, measured: multiply-adds in registers, and bytes copied by a shader. Each ceiling is the best
 * run of the best of several probes, and is raised when a kernel turns out faster.
 */
import type { Device } from '../../engine/runtime/device.ts';
import { foldGrid } from '../../kernels/kernel.ts';
import { clockOf, sample, type Sample } from './clock.ts';

export interface Roofline {
  /** Multiply-adds of f32, and of f16 where the adapter has it. */
  gflops: number;
  f16gflops?: number;
  /** Reading and writing buffers of this many bytes, smallest first. */
  copies: { bytes: number; gbs: number }[];
  /** From host memory to the device, as streamed weights come. */
  hostGbs: number;
}

const RUNS = 5;
const ROUNDS = 4096; // multiply-adds of one chain

/** Independent chains hide latency; `unroll` of them in the text hide the loop. */
interface Probe {
  type: 'f32' | 'vec4f' | 'f16' | 'vec4h';
  chains: number;
  unroll: number;
  group: number;
}
const F32: readonly Probe[] = [
  { type: 'f32', chains: 12, unroll: 16, group: 64 },
  { type: 'f32', chains: 8, unroll: 32, group: 64 },
  { type: 'vec4f', chains: 2, unroll: 16, group: 64 },
];
const F16: readonly Probe[] = [
  { type: 'f16', chains: 8, unroll: 16, group: 64 },
  { type: 'vec4h', chains: 2, unroll: 16, group: 64 },
];
const width = (p: Probe): number => (p.type.startsWith('vec4') ? 4 : 1);

function multiplyAdds(p: Probe): string {
  const chains = Array.from({ length: p.chains }, (_, i) => i);
  const half = F16.includes(p);
  const value = (x: string) => `${p.type}(${half ? 'f16' : 'f32'}(${x}))`;
  return `${half ? 'enable f16;' : ''}
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
@compute @workgroup_size(${p.group}) fn main(@builtin(global_invocation_id) id: vec3u) {
  let k = ${value('f32(id.x) * 1e-9 + 0.5')}; // not a constant, or the loop would be computed at compile time
  ${chains.map((i) => `var a${i} = ${value(`${i}.0`)} + k;`).join(' ')}
  for (var i = 0u; i < ${ROUNDS / p.unroll}u; i++) {
    ${Array.from({ length: p.unroll }, () => chains.map((i) => `a${i} = fma(a${i}, k, k);`).join(' ')).join('\n    ')}
  }
  let sum = ${chains.map((i) => `a${i}`).join(' + ')};
  out[id.x] = f32(${width(p) === 4 ? 'sum.x + sum.y + sum.z + sum.w' : 'sum'});
}`;
}

/** A workgroup copies `each` times its width; the loop's bound is no constant, so that drivers keep the loop. */
const copyText = (group: number, each: number): string => `
@group(0) @binding(1) var<storage, read> x: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4f>;
@compute @workgroup_size(${group}) fn main(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) l: u32) {
  let first = (w.x + w.y * n.x) * ${group * each}u + l;
  for (var i = 0u; i < ${each}u + w.z; i++) { y[first + i * ${group}u] = x[first + i * ${group}u]; }
}`;
const COPIES = [
  { group: 64, each: 1 },
  { group: 64, each: 8 },
  { group: 256, each: 4 },
] as const;
const SIZES = [2 ** 19, 2 ** 23, 2 ** 26]; // bytes: in the caches, at their edge, in memory

/** Milliseconds of the fastest of several runs of `repeats` dispatches. */
async function fastest(
  device: Device,
  wgsl: string,
  buffers: readonly GPUBuffer[],
  groups: number,
  repeats = 1,
): Promise<number> {
  const pipeline = await device.pipeline(wgsl, 'roofline');
  const uniform = device.uniforms(16); // every kernel has one
  const bindings = device.gpu.createBindGroup({
    layout: pipeline.getBindGroupLayout(0),
    entries: [uniform, ...buffers].map((buffer, binding) => ({ binding, resource: { buffer } })),
  });
  const timed = {
    async call() {
      const encoder = device.gpu.createCommandEncoder();
      const pass = encoder.beginComputePass();
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, bindings);
      for (let i = 0; i < repeats; i++) pass.dispatchWorkgroups(...foldGrid(groups));
      pass.end();
      device.gpu.queue.submit([encoder.finish()]);
    },
    settle: () => device.idle(),
  };
  await sample(timed); // compiles
  const runs: Sample[] = [];
  for (let i = 0; i < RUNS; i++) runs.push(await sample(timed));
  device.release(uniform);
  return clockOf(device.info.kind).best(runs);
}

/** GFLOP/s. A CPU is full with a few groups; a GPU needs tens of thousands of lanes and shows it by going faster. */
async function arithmetic(device: Device, probes: readonly Probe[]): Promise<number> {
  let rate = 0;
  for (const p of probes) {
    let last = 0;
    for (let groups = 32; groups <= 32768; groups *= 8) {
      const out = device.empty([groups * p.group]);
      const ms = await fastest(device, multiplyAdds(p), [out.buffer], groups);
      out.free();
      const next = (groups * p.group * ROUNDS * p.chains * width(p) * 2) / ms / 1e6;
      rate = Math.max(rate, next);
      if (next < 1.2 * last) break;
      last = next;
    }
  }
  return rate;
}

async function copying(device: Device, bytes: number): Promise<number> {
  const [x, y] = [device.zeros([bytes / 4]), device.zeros([bytes / 4])];
  const repeats = SIZES.at(-1)! / bytes;
  let rate = 0;
  for (const { group, each } of COPIES) {
    const ms = await fastest(device, copyText(group, each), [x.buffer, y.buffer], bytes / 16 / group / each, repeats);
    rate = Math.max(rate, (2 * bytes * repeats) / ms / 1e6);
  }
  x.free();
  y.free();
  return rate;
}

/** GB/s of streamed weights. */
async function bringing(device: Device): Promise<number> {
  const bytes = new Uint8Array(SIZES.at(-1)!);
  const at = device.empty([bytes.length / 4]);
  const timed = { call: () => device.staging.bring(device.gpu, [{ bytes, at }]), settle: () => device.idle() };
  const user = {};
  device.staging.enter(user);
  try {
    const runs: Sample[] = [];
    for (let i = 0; i < RUNS; i++) runs.push(await sample(timed));
    return bytes.length / clockOf(device.info.kind).best(runs) / 1e6;
  } finally {
    device.staging.leave(user);
    at.free();
  }
}

/** @param known an earlier measurement that was too low: the better of both stands */
export async function roofline(device: Device, known?: Roofline): Promise<Roofline> {
  const gflops = Math.max(await arithmetic(device, F32), known?.gflops ?? 0);
  const f16gflops = device.caps.f16 ? Math.max(await arithmetic(device, F16), known?.f16gflops ?? 0) : undefined;
  const copies: Roofline['copies'] = [];
  for (const [i, bytes] of SIZES.entries())
    copies.push({ bytes, gbs: Math.max(await copying(device, bytes), known?.copies[i]?.gbs ?? 0) });
  const hostGbs = Math.max(await bringing(device), known?.hostGbs ?? 0);
  return { gflops, ...(f16gflops !== undefined && { f16gflops }), copies, hostGbs };
}

/** GB/s that a kernel of this traffic can reach: what was copied at its size, or at a larger one, which can't be easier. */
export function bandwidth(roof: Roofline, bytes: number): number {
  const from = Math.max(
    0,
    roof.copies.findLastIndex((c) => 2 * c.bytes <= bytes),
  );
  return Math.max(...roof.copies.slice(from).map((c) => c.gbs));
}

/** Milliseconds that the work takes at the least. Products of f16 add up in f32, in whichever unit is faster. */
export const leastMs = (roof: Roofline, work: { flops: number; traffic: number; half?: boolean }): number =>
  Math.max(
    work.flops / (work.half ? Math.max(roof.gflops, roof.f16gflops ?? 0) : roof.gflops),
    work.traffic / bandwidth(roof, work.traffic),
  ) / 1e6;

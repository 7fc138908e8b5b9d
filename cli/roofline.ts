/** What the adapter can do at most, measured: multiply-adds in registers, and bytes through memory. */
import type { Device } from '../engine/device.ts';
import type { Tensor } from '../engine/tensor.ts';

export interface Roofline { gflops: number; gbs: number }

const ROUNDS = 4096;
const CHAINS = 2; // of vec4: independent multiply-adds that hide latency; more would spill a CPU driver's registers
const GROUP = 64;

const FMA = `
@group(0) @binding(0) var<storage, read_write> out: array<vec4f>;
@compute @workgroup_size(${GROUP}) fn main(@builtin(global_invocation_id) id: vec3u) {
  let k = vec4f(f32(id.x) * 1e-9 + 0.5); // not a constant, or the loop would be computed at compile time
  ${Array.from({ length: CHAINS }, (_, i) => `var a${i} = vec4f(${i}.0) + k;`).join('\n  ')}
  for (var i = 0u; i < ${ROUNDS}u; i++) {
    ${Array.from({ length: CHAINS }, (_, i) => `a${i} = fma(a${i}, k, k);`).join('\n    ')}
  }
  out[id.x] = ${Array.from({ length: CHAINS }, (_, i) => `a${i}`).join(' + ')};
}`;

/** The best of several runs: a roof is what was reached once. */
async function best(device: Device, runs: number, run: () => Promise<unknown>): Promise<number> {
  let seconds = Infinity;
  for (let i = 0; i < runs; i++) {
    const start = performance.now();
    await run();
    await device.idle();
    if (i) seconds = Math.min(seconds, (performance.now() - start) / 1000); // the first compiles
  }
  return seconds;
}

async function arithmetic(device: Device): Promise<number> {
  const pipeline = await device.pipeline(FMA, 'roofline');
  const run = async (groups: number, runs: number): Promise<number> => {
    const out = device.empty([groups * GROUP * 4]);
    const bindings = device.gpu.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries: [{ binding: 0, resource: { buffer: out.buffer } }] });
    const seconds = await best(device, runs, async () => {
      const encoder = device.gpu.createCommandEncoder();
      const pass = encoder.beginComputePass();
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, bindings);
      pass.dispatchWorkgroups(groups);
      pass.end();
      device.gpu.queue.submit([encoder.finish()]);
    });
    out.free();
    return (groups * GROUP * ROUNDS * CHAINS * 8) / seconds / 1e9;
  };
  // A CPU is full with a few groups; a GPU needs tens of thousands of lanes and shows it by going faster.
  let rate = 0;
  for (let groups = 32; groups <= 32768; groups *= 8) {
    const next = await run(groups, 4);
    const done = next < 1.2 * rate;
    rate = Math.max(rate, next);
    if (done) break;
  }
  return rate;
}

/** Reads and writes 64 MiB each. */
async function memory(device: Device): Promise<number> {
  const n = 2 ** 24;
  const x = device.zeros([n]);
  const copy = device.compile((a: Tensor) => a.add(1), { name: 'copy' });
  const seconds = await best(device, 6, () => copy(x));
  await copy.free();
  x.free();
  return (8 * n) / seconds / 1e9;
}

export const roofline = async (device: Device): Promise<Roofline> => ({ gflops: await arithmetic(device), gbs: await memory(device) });

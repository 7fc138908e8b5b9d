/** `vpae doctor`: what this machine offers, what was chosen and why, and what would make it better. */
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { CommandModule } from 'yargs';
import { openAdapter, type OpenAdapter } from '../engine/host/adapter.ts';
import { list } from '../engine/host/archive.ts';
import { describe } from '../engine/host/caps.ts';
import { isSoftware, MIN_MESA, NoAdapterError, objection, type Verdict } from '../engine/host/choose.ts';
import { unitName } from '../kernels/mma.ts';
import { arch, cacheDir, memory, platform, runtime, waiting } from '../engine/host/runtime.ts';
import { systemAdapters } from '../engine/host/system.ts';
import { ownTable } from '../engine/runtime/tuning.ts';
import { json, type Args } from './common/options.ts';

const line = (name: string, text: string): void => console.log(`${name.padEnd(11)} ${text}`);

const binary = (bytes: number): string => {
  const power = Math.min(Math.floor(Math.log2(Math.max(bytes, 1)) / 10), 3);
  return `${Number((bytes / 1024 ** power).toFixed(1))} ${['B', 'KiB', 'MiB', 'GiB'][power]}`;
};

function folderBytes(dir: string): number {
  try {
    return readdirSync(dir, { withFileTypes: true }).reduce(
      (sum, entry) =>
        sum + (entry.isDirectory() ? folderBytes(join(dir, entry.name)) : statSync(join(dir, entry.name)).size),
      0,
    );
  } catch {
    return 0;
  }
}

function candidates(tried: readonly Verdict[]): void {
  for (const { source, taken, reason } of tried) line('', `${taken ? '✓' : '·'} ${source.padEnd(11)} ${reason}`);
}

/** Squares 0…1023 on the device. Returns milliseconds; throws where the result is wrong. */
async function compute({ device, state }: OpenAdapter): Promise<number> {
  const count = 1024;
  const start = performance.now();
  const module = device.createShaderModule({
    code: `@group(0) @binding(0) var<storage, read_write> a: array<u32>;
           @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) g: vec3u) { a[g.x] = g.x * g.x; }`,
  });
  const pipeline = device.createComputePipeline({ layout: 'auto', compute: { module, entryPoint: 'main' } });
  const result = device.createBuffer({ size: 4 * count, usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC });
  const mapped = device.createBuffer({ size: 4 * count, usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ });
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  pass.setBindGroup(
    0,
    device.createBindGroup({
      layout: pipeline.getBindGroupLayout(0),
      entries: [{ binding: 0, resource: { buffer: result } }],
    }),
  );
  pass.dispatchWorkgroups(count / 64);
  pass.end();
  encoder.copyBufferToBuffer(result, 0, mapped, 0, 4 * count);
  device.queue.submit([encoder.finish()]);
  await waiting(mapped.mapAsync(GPUMapMode.READ));
  const right = new Uint32Array(mapped.getMappedRange()).every((value, i) => value === i * i);
  mapped.unmap();
  if (state.error) throw new Error(state.error.message);
  if (!right) throw new Error('wrong numbers came back');
  return performance.now() - start;
}

/** What would make this device faster; empty where nothing would. */
export function advice({ info, caps }: Pick<OpenAdapter, 'info' | 'caps'>): string[] {
  const tips: string[] = [];
  if (info.kind === 'software' && info.source !== 'null')
    tips.push('a GPU is far faster; if there is one, its Vulkan, Metal or D3D12 driver is missing or too old');
  if (info.source === 'swiftshader') {
    const lavapipe = info.tried.find((t) => t.source === 'lavapipe');
    tips.push(
      `lavapipe (Mesa ${MIN_MESA} or newer) would be about ten times faster than SwiftShader${lavapipe ? `: ${lavapipe.reason}` : ''}`,
    );
  }
  if (info.kind === 'gpu' && !caps.f16) tips.push('no 16-bit floats: a newer driver may have shader-f16');
  if (info.source === 'native')
    tips.push("Dawn (npm package webgpu) waits faster and has subgroups, this runtime's own WebGPU does not");
  return tips;
}

/** Every adapter there is, and how to choose it. */
async function listAll(): Promise<void> {
  const system = await systemAdapters().catch((error: Error) => error.message);
  if (typeof system === 'string') console.log(`the system has none: ${system}`);
  else
    system.adapters.forEach(({ name, backend, facts }, i) => {
      const kind = isSoftware(facts) ? 'software' : 'gpu';
      const why = objection(kind === 'gpu' ? 'gpu' : 'system', facts);
      console.log(`${i + 1} ${name}, ${backend}, ${kind}${why ? `: ${why}` : ''}`);
      console.log(`  VPAE_DEVICE=${i + 1}, or a part of its name; ${facts.description.trim() || facts.vendor}`);
    });
  for (const [source, dir] of [
    ['lavapipe', cached('lavapipe')],
    ['swiftshader', cached('swiftshader')],
  ] as const)
    console.log(`- ${source}, software: ${dir ? `in ${dir}` : 'not fetched yet'}\n  VPAE_ADAPTER=${source}`);
}

/** The folder in the cache of a driver that we bring. */
const cached = (name: string): string | undefined => {
  const found = list(cacheDir()).find(
    (dir) => dir.split(/[\\/]/).at(-1)!.startsWith(`${name}-`) && !dir.endsWith('.failed'),
  );
  return found;
};

/** Prints the report. Throws NoAdapterError after the list of candidates where there is no adapter. */
export async function doctor(args: { list: boolean; json: boolean }): Promise<void> {
  if (args.list) return listAll();
  if (args.json) return printJson();
  const { total, free } = memory();
  line('runtime', `${runtime}, ${platform} ${arch}`);
  line('memory', `${binary(total)}, ${binary(free)} free`);
  let open: OpenAdapter;
  try {
    open = await openAdapter();
  } catch (error) {
    if (error instanceof NoAdapterError) candidates(error.tried);
    throw error;
  }
  const { device, caps, info } = open;
  line('adapter', `${info.name} (${info.vendor}), ${info.kind}`);
  line('driver', info.driver);
  line('chosen', `${info.source}: ${info.reason}`);
  candidates(info.tried);
  line('tier', `${caps.tier}: ${info.tierReason}`);
  line('features', [...device.features].join(', '));
  line(
    'used',
    `f16 ${caps.f16 ? 'yes' : 'no'}, subgroups of ${caps.subgroup || 'no fixed size: not used'}${caps.sized ? ', as kernels ask' : ''}, ` +
      `matrix units ${caps.units?.map(unitName).join(', ') ?? 'none'}`,
  );
  const { limits } = device;
  line(
    'limits',
    `${caps.maxInvocations} invocations and ${binary(caps.maxWorkgroupBytes)} a workgroup, ${caps.maxStorageBuffers} storage buffers, ` +
      `${binary(caps.maxBindingBytes)} a binding, ${binary(limits.maxBufferSize)} a buffer, offsets of ${limits.minStorageBufferOffsetAlignment} B`,
  );
  line(
    'computes',
    info.source === 'null' ? 'nothing, by design' : `right, ${(await compute(open)).toFixed(0)} ms with compilation`,
  );
  const tuned = Object.values(ownTable(info, caps) ?? {}).reduce(
    (sum, classes) => sum + Object.keys(classes).length,
    0,
  );
  line(
    'tuned',
    tuned
      ? `${tuned} kernel configurations measured on this adapter`
      : 'no kernel configuration was measured on this adapter: vpae tune does',
  );
  line('cache', `${cacheDir()}, ${binary(folderBytes(cacheDir()))}`);
  for (const tip of advice(open)) line('better', tip);
  device.destroy();
}

/** The adapter in its own words, and what is made of them. */
async function printJson(): Promise<void> {
  const { adapter, device, caps, info } = await openAdapter();
  const { tried: _, ...taken } = info;
  console.log(JSON.stringify({ runtime, platform, arch, adapter: describe(adapter), info: taken, caps }));
  device.destroy();
}

const options = {
  ...json,
  list: { type: 'boolean', default: false, describe: 'every adapter there is, and how to choose one' },
} as const;

const command: CommandModule<object, Args<typeof options>> = {
  command: 'doctor',
  describe: 'what this machine offers: adapter, features, limits, and what would help',
  builder: (y) => y.options(options),
  handler: doctor,
};
export default command;

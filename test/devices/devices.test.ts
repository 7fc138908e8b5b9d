/**
 * GPUs that are not here: what planners choose for each (choices.json, written by UPDATE=1), and that every kernel of the presets and of
 * steps of released models is within its limits and valid WGSL. Devices that planners see as one are planned once.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { planProgram, unbindable } from '../../engine/compiler/plan.ts';
import { analyse } from '../../engine/compiler/stages.ts';
import type { TensorType } from '../../engine/frontend/graph.ts';
import { flatten } from '../../engine/frontend/tree.ts';
import { attention, attentionGrad, conv3d, conv3dInput, conv3dWeight, matmul, softmax } from '../../kernels/index.ts';
import type { Caps, Dispatch } from '../../kernels/kernel.ts';
import { costOf, type JobName } from '../../train/planning/jobs.ts';
import { subjectOf, type Size } from '../../train/planning/subject.ts';
import { validate } from '../kernels/harness.ts';
import { DEVICES, type Device } from './table.ts';

/** Devices by what planners know of them. */
const kinds = DEVICES.reduce<Device[][]>((all, d) => {
  const alike = all.find(([first]) => JSON.stringify(first!.caps) === JSON.stringify(d.caps));
  if (alike) alike.push(d);
  else all.push([d]);
  return all;
}, []) as [Device, ...Device[]][];

// ---- choices -------------------------------------------------------------------------------------------------------

const read = (n: number) => Array.from({ length: n }, () => 'read' as const);
const product = { batch: 1, M: 4096, N: 1536, K: 1536, transA: false, transB: true, access: ['read', 'read'] } as const;
const attended = { B: 1, N: 4096, L: 4096, H: 12, D: 128, scale: 0.1, lengths: false };
const convolved = {
  N: 1,
  C: 96,
  O: 96,
  in: [9, 60, 104],
  out: [9, 60, 104],
  kernel: [3, 3, 3],
  stride: [1, 1, 1],
  padLo: [2, 1, 1],
  access: 'read',
} as const;

const CHOICES: Record<string, (caps: Caps) => readonly Dispatch[]> = {
  'matmul f32': (caps) => matmul(caps, { ...product, dtypeA: 'f32', dtypeB: 'f32' }).dispatches,
  'matmul f16': (caps) => matmul(caps, { ...product, dtypeA: 'f16', dtypeB: 'f16' }).dispatches,
  softmax: (caps) => softmax(caps, { rows: 4096, cols: 1536, access: read(1) }).dispatches,
  ...Object.fromEntries(
    [false, true].flatMap((half) => [
      [
        `attention ${half ? 'f16' : 'f32'}`,
        (caps: Caps) => attention(caps, { ...attended, half, access: read(3) }).dispatches,
      ],
      [
        `attention's gradients ${half ? 'f16' : 'f32'}`,
        (caps: Caps) => attentionGrad(caps, { ...attended, half, access: read(6) }).dispatches,
      ],
      ...Object.entries({ conv3d, conv3dInput, conv3dWeight }).map(([name, family]) => [
        `${name} ${half ? 'f16' : 'f32'}`,
        (caps: Caps) => family(caps, { ...convolved, half }).dispatches,
      ]),
    ]),
  ),
};

test('planners choose for each device what they chose before', () => {
  const file = new URL('choices.json', import.meta.url);
  const chosen = Object.fromEntries(
    kinds.map((devices) => {
      const { caps } = devices[0];
      const units = caps.units?.map((u) => `${u.operands} ${u.M}x${u.N}x${u.K}`).join(', ') ?? 'none';
      const choices = Object.entries(CHOICES).map(([name, of]) => [name, of(caps).map((d) => d.label)]);
      const subgroup = `${caps.subgroup}${caps.sized ? ', as kernels ask' : ''}`;
      return [devices.map((d) => d.name).join('; '), { subgroup, units, ...Object.fromEntries(choices) }];
    }),
  );
  if (process.env['UPDATE']) writeFileSync(file, `${JSON.stringify(chosen, null, 2)}\n`);
  assert.equal(chosen, JSON.parse(readFileSync(file, 'utf8')), 'UPDATE=1 writes them anew');
});

// ---- limits --------------------------------------------------------------------------------------------------------

const SCALAR: Record<string, number> = { f32: 4, u32: 4, i32: 4, f16: 2, f: 4, u: 4, i: 4, h: 2 };

/** Bytes of `f32`, `vec4f`, `atomic<u32>`, `array<vec4h, 12>`. */
function bytesOf(type: string): number {
  const [, of, count] = /^array<(.+), (\d+)>$/.exec(type) ?? [];
  if (of) return bytesOf(of) * Number(count);
  const [, inner] = /^atomic<(.+)>$/.exec(type) ?? [];
  const [, lanes = '1', scalar = inner ?? type] = /^vec(\d)<?(\w+?)>?$/.exec(type) ?? [];
  const bytes = SCALAR[scalar];
  assert.ok(bytes, `no size is known of ${type}`);
  return Number(lanes) * bytes!;
}

const workgroupBytes = (wgsl: string): number =>
  [...wgsl.matchAll(/var<workgroup> \w+: ([^;]+);/g)].reduce(
    (sum, [, type]) => sum + 16 * Math.ceil(bytesOf(type!) / 16),
    0,
  );

function check({ name, adapter: { limits, subgroupMaxSize = 0 }, caps }: Device, d: Dispatch): void {
  const say = (what: string) => `${name}: ${d.label}: ${what}`;
  const size = /@workgroup_size\((\d+), (\d+), (\d+)\)/.exec(d.wgsl)!.slice(1).map(Number) as [number, number, number];
  const threads = size[0] * size[1] * size[2];
  assert.ok(threads <= limits.maxComputeInvocationsPerWorkgroup, say(`${threads} threads`));
  assert.ok(size[2] <= limits.maxComputeWorkgroupSizeZ, say(`${size.join()} threads`));
  assert.ok(Math.max(...d.grid) <= limits.maxComputeWorkgroupsPerDimension, say(`${d.grid.join()} workgroups`));
  assert.ok(Math.min(...d.grid) >= 1, say('no workgroups'));
  assert.ok(d.bind.length <= limits.maxStorageBuffersPerShaderStage, say(`${d.bind.length} bindings`));
  const bytes = workgroupBytes(d.wgsl);
  assert.ok(bytes <= limits.maxComputeWorkgroupStorageSize, say(`${bytes} bytes of workgroup memory`));
  if (d.wgsl.includes('subgroupMatrix')) assert.is(size[0] % subgroupMaxSize, 0, say('units want whole subgroups'));
  const asks = /@subgroup_size\((\d+)\)/.exec(d.wgsl)?.[1];
  assert.is(
    asks,
    caps.sized && size[0] % caps.subgroup === 0 ? String(caps.subgroup) : undefined,
    say('its subgroups'),
  );
}

const JOBS: readonly (readonly [name: string, job: JobName, sets: readonly string[], size?: Partial<Size>])[] = [
  ...(['vae', 'equilibrium', 'sample'] as const).map((job) => ['digits', job, []] as const),
  ['wan2.1-t2v-1.3b', 'teacher', [], { layers: 1 }],
  ['wan2.1-t2v-14b', 'sample', [], { layers: 1 }],
  ['wan2.1-t2v-14b', 'teacher', [], { layers: 1, width: 832, height: 480 }],
];

for (const [name, job, sets, size] of JOBS)
  test(`${name}, ${job}: every kernel is within every device's limits, and valid`, async () => {
    const sampler = { steps: 50, guided: true, offload: false, precision: 'f16' as const };
    const subject = subjectOf(name, sets, size);
    const seen = new Set<string>();
    const cost = costOf(job, subject, sampler, { caps: kinds[0]![0].caps, maxBufferBytes: 2 ** 32 - 4 });
    for (const devices of kinds)
      for (const { name: program, call } of cost.stages.flatMap((s) => s.runs)) {
        const args = call.args.map((a) => flatten<TensorType>(a));
        const fromHost = args.flatMap((f, a) => f.leaves.map(() => !call.resident.has(a)));
        const fn = call.fn as unknown as (...args: unknown[]) => unknown;
        const { operands, donate } = call;
        const options = { donate, ...(operands && { operands }) };
        const { caps, adapter } = devices[0];
        const stages = analyse({ name: program, fn, args, fromHost }, caps, options);
        const { lowered } = stages;
        const maxBufferBytes = adapter.limits.maxBufferSize;
        if (unbindable(planProgram(stages, maxBufferBytes).plan, { caps, maxBufferBytes })) {
          assert.ok(
            caps.maxBindingBytes < 2 ** 32 - 4 && subject.encoders,
            `${devices[0].name} cannot bind ${program}`,
          );
          continue; // refused in one line before anything runs
        }
        for (const d of lowered.flatMap((l) => l.launch.dispatches)) {
          for (const device of devices) check(device, d);
          if (seen.has(d.wgsl)) continue;
          seen.add(d.wgsl);
          await validate(`${devices[0].name}: ${d.label}`, d.wgsl);
        }
      }
    assert.ok(seen.size);
  });

test.run();

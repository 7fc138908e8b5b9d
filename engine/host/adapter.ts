/**
 * Finds a WebGPU adapter on any machine and opens a device with all it has: a real GPU, else a software Vulkan driver of the
 * system's, else lavapipe from the user's cache (fetched once), else the embedded SwiftShader, else the runtime's own WebGPU.
 */
import type { Caps, Tier } from '../../kernels/kernel.ts';
import type { MatrixUnit } from '../../kernels/mma.ts';
import {
  firstThatWorks,
  isSoftware,
  type AdapterFacts,
  type Choice,
  type Log,
  type Source,
  type Verdict,
} from './choose.ts';
import { attempt, candidates } from './drivers.ts';
import { flags } from './flags.ts';

// WebGPU's interfaces by name, for whoever reads these declarations without TypeScript's `dom` or @webgpu/types, which exclude each
// other: empty there, and one with the real ones where they are.
declare global {
  interface GPU {}
  interface GPUAdapter {}
  interface GPUBindGroup {}
  interface GPUBuffer {}
  interface GPUComputePassEncoder {}
  interface GPUComputePipeline {}
  interface GPUDevice {}
  interface GPUDeviceLostInfo {}
  interface GPUError {}
}

export interface AdapterInfo {
  name: string;
  vendor: string;
  driver: string;
  kind: 'gpu' | 'software';
  source: Source;
  reason: string;
  /** Every candidate up to the one taken, in order. */
  tried: Verdict[];
  tierReason: string;
}

/** Errors arrive outside any call: whoever submits work looks here before and after. First of each kind only. */
export interface DeviceState {
  lost?: GPUDeviceLostInfo;
  error?: GPUError;
}

export interface OpenAdapter {
  gpu: GPU;
  adapter: GPUAdapter;
  device: GPUDevice;
  caps: Caps;
  info: AdapterInfo;
  state: DeviceState;
  /** Opens another device of the driver, where it compiles at the first launch (Mesa's on the CPU). */
  another?: () => Promise<GPUDevice>;
}

/** A shape that the adapter's matrix units compute, as `adapter.info.subgroupMatrixConfigs` lists them. */
interface SubgroupMatrix {
  componentType: string;
  resultComponentType: string;
  M: number;
  N: number;
  K: number;
}

/** What an adapter says of itself, as far as planners ask. */
interface Reported {
  vendor?: string;
  subgroupMinSize?: number;
  subgroupMaxSize?: number;
  subgroupMatrixConfigs?: readonly SubgroupMatrix[];
}

const UNITS = 'chromium-experimental-subgroup-matrix';

/** Shows the tiles of `TIER=matrix` where there are no matrix units: right, and slow. */
const EMULATED: MatrixUnit = { operands: 'f16', M: 8, N: 8, K: 8, lanes: 32, multiple: 32, emulated: true };

/**
 * The size of subgroups: the only one there is; where kernels may choose, the smallest, with which a thread has the most registers;
 * 32 on an Apple GPU with matrix units, which Metal defines for SIMD groups of 32 alone, whatever range it reports. Else unknown.
 */
function subgroupOf(
  features: ReadonlySet<string>,
  { vendor, subgroupMinSize: min = 0, subgroupMaxSize: max = 0 }: Reported,
): { subgroup: number; sized: boolean } {
  if (!features.has('subgroups')) return { subgroup: 0, sized: false }; // Deno's WebGPU reports sizes without having the feature
  if (min === max) return { subgroup: min, sized: false };
  if (features.has('subgroup-size-control')) return { subgroup: min, sized: true };
  return { subgroup: vendor === 'apple' && features.has(UNITS) ? 32 : 0, sized: false };
}

/**
 * The largest unit of each type of operands. Sums must be f32: those in f16, which NVIDIA, AMD, Intel and Apple list too, lose what
 * a K of thousands adds up. Threads must be known when a kernel is written.
 */
function matrixUnits(
  features: ReadonlySet<string>,
  lanes: number,
  { subgroupMatrixConfigs: shapes = [], subgroupMaxSize: multiple = lanes }: Reported,
): MatrixUnit[] {
  if (!features.has(UNITS) || !lanes) return [];
  return (['f16', 'f32'] as const).flatMap((operands) => {
    if (operands === 'f16' && !features.has('shader-f16')) return [];
    const [best] = shapes
      .filter((s) => s.componentType === operands && s.resultComponentType === 'f32')
      .sort((a, b) => b.M * b.N * b.K - a.M * a.N * a.K);
    return best ? [{ operands, M: best.M, N: best.N, K: best.K, lanes, multiple, emulated: false }] : [];
  });
}

/** Of GPUSupportedLimits. */
interface Limits {
  maxComputeInvocationsPerWorkgroup: number;
  maxComputeWorkgroupStorageSize: number;
  maxStorageBuffersPerShaderStage: number;
  maxStorageBufferBindingSize: number;
}

/** What planners may use. A CPU driver wants loops and no workgroup memory, everything else tiles. */
export function capsOf(
  limits: Limits,
  features: ReadonlySet<string>,
  reported: Reported,
  software: boolean,
  wanted: { NO_F16: boolean; NO_MATRIX: boolean; TIER?: Tier | 'matrix' },
): { caps: Caps; tierReason: string } {
  const tier = wanted.TIER === 'matrix' ? 'tiled' : (wanted.TIER ?? (software ? 'scalar' : 'tiled'));
  const usable = wanted.NO_F16 ? new Set([...features].filter((f) => f !== 'shader-f16')) : features;
  const { subgroup, sized } = subgroupOf(usable, reported);
  const native = wanted.NO_MATRIX || wanted.TIER === 'tiled' ? [] : matrixUnits(usable, subgroup, reported);
  const units = wanted.TIER === 'matrix' && !native.length ? [EMULATED] : native;
  return {
    caps: {
      tier,
      f16: usable.has('shader-f16'),
      subgroup,
      ...(sized && { sized }),
      ...(units.length && { units }),
      maxInvocations: limits.maxComputeInvocationsPerWorkgroup,
      maxWorkgroupBytes: limits.maxComputeWorkgroupStorageSize,
      maxStorageBuffers: limits.maxStorageBuffersPerShaderStage,
      maxBindingBytes: limits.maxStorageBufferBindingSize,
    },
    tierReason: wanted.TIER
      ? `TIER=${wanted.TIER}`
      : software
        ? 'a CPU driver: loops without workgroup memory are fastest'
        : 'not a CPU driver: workgroup memory and register tiles',
  };
}

const FEATURES = ['shader-f16', 'subgroups', 'subgroup-size-control', 'timestamp-query', UNITS];
const LIMITS = [
  'maxStorageBuffersPerShaderStage',
  'maxBufferSize',
  'maxStorageBufferBindingSize',
  'maxUniformBufferBindingSize',
  'minStorageBufferOffsetAlignment',
  'minUniformBufferOffsetAlignment',
  'maxComputeInvocationsPerWorkgroup',
  'maxComputeWorkgroupStorageSize',
  'maxComputeWorkgroupSizeX',
  'maxComputeWorkgroupSizeY',
  'maxComputeWorkgroupSizeZ',
  'maxComputeWorkgroupsPerDimension',
] as const;

/**
 * Opens the best adapter there is, or the one asked for (argument, else VPAE_ADAPTER), and a device with every useful feature
 * and the adapter's full limits. `log` hears of downloads. Throws NoAdapterError.
 */
export async function openAdapter(options: { adapter?: Choice; log?: Log } = {}): Promise<OpenAdapter> {
  const choice = options.adapter ?? flags.VPAE_ADAPTER ?? 'auto';
  const log = options.log ?? ((line: string) => console.error(line));
  const {
    source,
    value: { gpu, adapter },
    tried,
  } = await firstThatWorks(candidates(choice), (s) => attempt(s, choice !== 'auto', log));
  const facts = adapter.info as AdapterFacts;
  const wanted = {
    requiredFeatures: FEATURES.filter((name) => adapter.features.has(name)) as GPUFeatureName[],
    requiredLimits: Object.fromEntries(LIMITS.map((name) => [name, adapter.limits[name]])),
  };
  const device = await adapter.requestDevice(wanted);
  const state: DeviceState = {};
  device.addEventListener('uncapturederror', (event) => {
    event.preventDefault(); // it will be thrown, not only printed
    state.error ??= (event as GPUUncapturedErrorEvent).error;
  });
  void device.lost.then((lost) => {
    state.lost = lost;
  });
  const software = source !== 'null' && (isSoftware(facts) || source === 'lavapipe' || source === 'swiftshader');
  const { caps, tierReason } = capsOf(device.limits, device.features, adapter.info as Reported, software, flags);
  const info: AdapterInfo = {
    name: facts.device || facts.description || facts.architecture || source,
    vendor: facts.vendor,
    driver: facts.description.trim(),
    kind: software || source === 'null' ? 'software' : 'gpu',
    source,
    reason: tried.at(-1)!.reason,
    tried,
    tierReason,
  };
  const another = async (): Promise<GPUDevice> =>
    (await attempt(source, true, log)).value.adapter.requestDevice(wanted);
  return {
    gpu,
    adapter,
    device,
    caps,
    info,
    state,
    ...(/llvmpipe/i.test(facts.device + facts.description) && { another }),
  };
}

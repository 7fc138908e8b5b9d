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

/** Shows the tiles of `TIER=matrix` where there are no matrix units: right, and slow. */
const EMULATED: MatrixUnit = { M: 8, N: 8, K: 8, lanes: 32, emulated: true };

/** The largest unit of f16 operands and f32 sums; its threads must be known when a kernel is written, so subgroups of one size only. */
function matrixUnit(
  features: ReadonlySet<string>,
  lanes: number,
  shapes: readonly SubgroupMatrix[],
): MatrixUnit | undefined {
  if (!features.has('chromium-experimental-subgroup-matrix') || !features.has('shader-f16') || !lanes) return undefined;
  const [best] = shapes
    .filter((s) => s.componentType === 'f16' && s.resultComponentType === 'f32')
    .sort((a, b) => b.M * b.N * b.K - a.M * a.N * a.K);
  return best && { M: best.M, N: best.N, K: best.K, lanes, emulated: false };
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
  subgroup: { min?: number; max?: number; matrices?: readonly SubgroupMatrix[] },
  software: boolean,
  wanted: { NO_F16: boolean; NO_MATRIX: boolean; TIER?: Tier | 'matrix' },
): { caps: Caps; tierReason: string } {
  const tier = wanted.TIER === 'matrix' ? 'tiled' : (wanted.TIER ?? (software ? 'scalar' : 'tiled'));
  // Deno's WebGPU reports sizes without having the feature: only the feature counts.
  const lanes = features.has('subgroups') && subgroup.min === subgroup.max ? (subgroup.min ?? 0) : 0;
  const units =
    wanted.NO_MATRIX || wanted.NO_F16 || wanted.TIER === 'tiled'
      ? undefined
      : matrixUnit(features, lanes, subgroup.matrices ?? []);
  const matrix = units ?? (wanted.TIER === 'matrix' ? EMULATED : undefined);
  return {
    caps: {
      tier,
      f16: features.has('shader-f16') && !wanted.NO_F16,
      subgroup: lanes,
      ...(matrix && { matrix }),
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

const FEATURES = ['shader-f16', 'subgroups', 'timestamp-query', 'chromium-experimental-subgroup-matrix'];
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
  const { caps, tierReason } = capsOf(
    device.limits,
    device.features,
    {
      min: adapter.info.subgroupMinSize,
      max: adapter.info.subgroupMaxSize,
      matrices: (adapter.info as { subgroupMatrixConfigs?: readonly SubgroupMatrix[] }).subgroupMatrixConfigs ?? [],
    },
    software,
    flags,
  );
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

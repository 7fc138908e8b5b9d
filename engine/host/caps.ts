/** What planners may know of an adapter: pure, from what it says of itself. */
import type { Caps, Tier } from '../../kernels/kernel.ts';
import type { MatrixUnit } from '../../kernels/mma.ts';

/** A shape that the adapter's matrix units compute, as `adapter.info.subgroupMatrixConfigs` lists them. */
interface SubgroupMatrix {
  componentType: string;
  resultComponentType: string;
  M: number;
  N: number;
  K: number;
}

/** What an adapter says of itself, as far as planners ask. */
export interface Reported {
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

export const FEATURES = ['shader-f16', 'subgroups', 'subgroup-size-control', 'timestamp-query', UNITS];
export const LIMITS = [
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

/** An adapter's own words, as plain data: what `doctor --json` prints, and what a row of test/devices is. */
export interface Description extends Reported {
  device: string;
  description: string;
  architecture: string;
  features: readonly string[];
  limits: Record<(typeof LIMITS)[number], number>;
}

export function describe({ info, features, limits }: GPUAdapter): Description {
  const { vendor, architecture, device, description, subgroupMinSize, subgroupMaxSize } = info;
  const { subgroupMatrixConfigs = [] } = info as Reported;
  return {
    vendor,
    architecture,
    device,
    description,
    features: [...features].sort(),
    limits: Object.fromEntries(LIMITS.map((name) => [name, limits[name]])) as Description['limits'],
    ...(subgroupMinSize !== undefined && { subgroupMinSize }),
    ...(subgroupMaxSize !== undefined && { subgroupMaxSize }),
    subgroupMatrixConfigs: subgroupMatrixConfigs.map((s) => {
      const { componentType, resultComponentType, M, N, K } = s; // an object of the driver's has none of its own
      return { componentType, resultComponentType, M, N, K };
    }),
  };
}

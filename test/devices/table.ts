/**
 * Adapters as they report themselves: what planners know of GPUs that are not here. `vpae doctor --json` prints one's own words as
 * `adapter`, which is a row as it stands. Tags of sources: [run] opened here by its own driver behind a stand-in for the GPU, Mesa 25.0.7 ·
 * [Dawn] read in Dawn's code of 2026 · [told] from public reports; limits that nobody told are taken small.
 */
import { capsOf, type Description } from '../../engine/host/caps.ts';
import type { Caps } from '../../kernels/kernel.ts';

type Units = readonly (readonly [operands: string, result: string, M: number, N: number, K: number])[];

const MiB = 2 ** 20;
const WHOLE = 2 ** 32 - 4;

interface Row {
  vendor: string;
  sizes?: readonly [number, number];
  /** Beside `shader-f16`. */
  features?: readonly string[];
  units?: Units;
  invocations?: number;
  workgroup: number;
  buffers: number;
  binding: number;
}

function described(name: string, r: Row): Description {
  const { vendor, sizes, features = [], units = [], invocations = 1024, workgroup, buffers, binding } = r;
  return {
    vendor,
    architecture: '',
    device: name,
    description: '',
    features: ['shader-f16', ...features, ...(units.length ? ['chromium-experimental-subgroup-matrix'] : [])],
    limits: {
      maxStorageBuffersPerShaderStage: buffers,
      maxBufferSize: Math.max(binding, 256 * MiB),
      maxStorageBufferBindingSize: binding,
      maxUniformBufferBindingSize: 65536,
      minStorageBufferOffsetAlignment: 256,
      minUniformBufferOffsetAlignment: 256,
      maxComputeInvocationsPerWorkgroup: invocations,
      maxComputeWorkgroupStorageSize: workgroup,
      maxComputeWorkgroupSizeX: invocations,
      maxComputeWorkgroupSizeY: invocations,
      maxComputeWorkgroupSizeZ: 64,
      maxComputeWorkgroupsPerDimension: 65535,
    },
    ...(sizes && { subgroupMinSize: sizes[0], subgroupMaxSize: sizes[1] }),
    subgroupMatrixConfigs: units.map(([componentType, resultComponentType, M, N, K]) => {
      return { componentType, resultComponentType, M, N, K };
    }),
  };
}

const SIZED = ['subgroups', 'subgroup-size-control'];
const F16_16: Units = [
  ['f16', 'f16', 16, 16, 16],
  ['f16', 'f32', 16, 16, 16],
];
/**
 * [Dawn] PhysicalDeviceMTL.mm: SIMD groups reported as 4 to 64, f32 and f16 units with results of their own type, 10 of Metal's 31 buffers.
 */
const apple: Row = {
  vendor: 'apple',
  sizes: [4, 64],
  features: ['subgroups'],
  units: [
    ['f32', 'f32', 8, 8, 8],
    ['f16', 'f16', 8, 8, 8],
  ],
  workgroup: 32768,
  buffers: 10,
  binding: WHOLE,
};
/** [Dawn] PhysicalDeviceVk.cpp lists what VK_KHR_cooperative_matrix does; [told] sizes of 32, 48 KiB. */
const nvidia: Row = {
  vendor: 'nvidia',
  sizes: [32, 32],
  features: SIZED,
  units: F16_16,
  workgroup: 49152,
  buffers: 16,
  binding: WHOLE,
};
/** [run] */
const amd: Row = { vendor: 'amd', sizes: [32, 64], features: SIZED, workgroup: 65536, buffers: 16, binding: WHOLE };
const amd64: Row = { ...amd, sizes: [64, 64] };
/** [run] sizes; limits taken small */
const intel: Row = {
  vendor: 'intel',
  sizes: [8, 32],
  features: SIZED,
  workgroup: 32768,
  buffers: 16,
  binding: 1024 * MiB,
};

const ROWS: Record<string, Row> = {
  'NVIDIA Ada, Vulkan': nvidia,
  'NVIDIA Hopper, Vulkan': nvidia,
  'AMD RDNA2, navi21': amd,
  'AMD RDNA3, navi31': { ...amd, units: F16_16 },
  'AMD RDNA3.5, gfx1150': { ...amd, units: F16_16 },
  'AMD RDNA4, gfx1201': amd, //              lists no units in this Mesa
  'AMD Vega, vega10': amd64,
  'AMD CDNA, MI100': amd64,
  'Intel Arc, dg2': intel, //                no units by Dawn on this Mesa
  // Units: ONNX Runtime's table for Xe2 under Dawn.
  'Intel Xe2, lnl': {
    ...intel,
    sizes: [16, 32],
    units: [
      ['f16', 'f16', 8, 16, 16],
      ['f16', 'f32', 8, 16, 16],
    ],
  },
  'Apple M1, Metal': apple,
  'Apple M4, Metal': apple,
  // [told] sizes of 64 to 128, bindings of 128 MiB
  'Qualcomm Adreno, Vulkan': {
    vendor: 'qualcomm',
    sizes: [64, 128],
    features: SIZED,
    workgroup: 32768,
    buffers: 16,
    binding: 128 * MiB,
  },
  // WebGPU's default limits: what any browser must have
  'a browser, least limits': { vendor: '', invocations: 256, workgroup: 16384, buffers: 8, binding: 128 * MiB },
  // [told] the tier that Chrome gives most desktop GPUs: 2 GiB, 10 buffers; sizes are not for kernels to choose
  'Chrome on AMD': {
    vendor: 'amd',
    sizes: [32, 64],
    features: ['subgroups'],
    workgroup: 32768,
    buffers: 10,
    binding: 2048 * MiB - 4,
  },
  // [told] what Metal binds at most
  'a browser, most buffers': { vendor: '', workgroup: 32768, buffers: 31, binding: 2048 * MiB - 4 },
};

export interface Device {
  name: string;
  adapter: Description;
  caps: Caps;
}

const AS_IT_IS = { NO_F16: false, NO_MATRIX: false };

export const DEVICES: readonly Device[] = Object.entries(ROWS).map(([name, row]) => {
  const adapter = described(name, row);
  return { name, adapter, caps: capsOf(adapter.limits, new Set(adapter.features), adapter, false, AS_IT_IS).caps };
});

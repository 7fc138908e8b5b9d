/**
 * Finds a WebGPU adapter on any machine and opens a device with all it has: a real GPU, else a software Vulkan driver of the
 * system's, else lavapipe from the user's cache (fetched once), else the embedded SwiftShader, else the runtime's own WebGPU.
 */
import type { Caps } from '../../kernels/kernel.ts';
import { capsOf, FEATURES, LIMITS, type Reported } from './caps.ts';
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

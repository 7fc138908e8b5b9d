/**
 * Finds a WebGPU adapter on any machine and opens a device with all it has: a real GPU, else a software Vulkan driver of the
 * system's, else lavapipe from the user's cache (fetched once), else the embedded SwiftShader, else the runtime's own WebGPU.
 */
import type { Caps, Tier } from '../../kernels/kernel.ts';
import type { MatrixUnit } from '../../kernels/mma.ts';
import { flags, type Flags } from './flags.ts';
import {
  createDawn,
  dawnUrl,
  DLOPEN_KEEP,
  env,
  nativeGpu,
  platform,
  preload,
  runScript,
  runtime,
  withEnv,
} from './runtime.ts';
import {
  lavapipe,
  mesaVersion,
  MIN_MESA,
  swiftshader,
  systemVulkan,
  type AdapterFacts,
  type Driver,
  type Log,
  type Trial,
} from './software.ts';

export type Choice = NonNullable<Flags['VPAE_ADAPTER']>;
/** Where an adapter came from. `native` is the runtime's own WebGPU, `null` a device that validates and computes nothing. */
export type Source = Exclude<Choice, 'auto'>;

/** One candidate and why it was taken or not. */
export interface Verdict {
  source: Source;
  taken: boolean;
  reason: string;
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

/** No candidate gave an adapter. The message is one line that says what to do; `tried` says why. */
export class NoAdapterError extends Error {
  readonly tried: Verdict[];
  constructor(tried: Verdict[]) {
    const user = userVulkan();
    super(
      tried.length === 1
        ? `[adapter] ${tried[0]!.source}: ${tried[0]!.reason}`
        : user
          ? `[adapter] ${user}=${env(user)} gives no adapter: correct it or unset it`
          : `[adapter] no GPU or software driver found: ${remedy(platform)}`,
    );
    this.name = 'NoAdapterError';
    this.tried = tried;
  }
}

/** What to do where nothing works. */
export function remedy(system: string): string {
  if (system === 'linux')
    return "install your GPU's Vulkan driver, or a software one (Debian, Ubuntu: apt install mesa-vulkan-drivers libvulkan1; Fedora: dnf install mesa-vulkan-drivers vulkan-loader; Arch: pacman -S vulkan-swrast vulkan-icd-loader)";
  if (system === 'darwin')
    return 'Metal is part of macOS: update macOS, and run outside a virtual machine without a GPU';
  if (system === 'win32') return "install your GPU's driver from its vendor";
  return 'use Linux, macOS or Windows on x64 or arm64';
}

/** The variable by which the user chose Vulkan drivers; it is never overridden. */
const userVulkan = (): string | undefined => ['VK_DRIVER_FILES', 'VK_ICD_FILENAMES'].find((name) => env(name));

// ---- choosing: pure ------------------------------------------------------------------------------------------------

export const candidates = (choice: Choice): Source[] =>
  choice === 'auto' ? ['gpu', 'system', 'lavapipe', 'swiftshader', 'native'] : [choice];

export const isSoftware = (a: AdapterFacts): boolean =>
  a.isFallbackAdapter ||
  /llvmpipe|lavapipe|swiftshader|basic render|^software$/i.test([a.device, a.description, a.architecture].join('\n'));

const label = (a: AdapterFacts): string =>
  [a.device || a.architecture || a.vendor, a.description].filter(Boolean).join(', ').trim();

/** Why `source` must not take this adapter; undefined when it may. */
export function objection(source: Source, a: AdapterFacts): string | undefined {
  const mesa = mesaVersion(a.description);
  if (/llvmpipe/i.test(a.device + a.description) && mesa && mesa[0] < MIN_MESA)
    return `Mesa ${mesa.join('.')}'s lavapipe is too old: ${MIN_MESA} or newer is needed`;
  if (source === 'gpu' && isSoftware(a)) return `only a software driver: ${label(a)}`;
  if (source === 'system' && !isSoftware(a)) return `no software driver: ${label(a)}`;
  return undefined;
}

/** Tries candidates in order; a thrown error is a candidate's reason to be passed over. */
export async function firstThatWorks<T>(
  order: readonly Source[],
  attempt: (source: Source) => Promise<{ value: T; reason: string }>,
): Promise<{ source: Source; value: T; tried: Verdict[] }> {
  const tried: Verdict[] = [];
  for (const source of order) {
    try {
      const { value, reason } = await attempt(source);
      return { source, value, tried: [...tried, { source, taken: true, reason }] };
    } catch (error) {
      tried.push({ source, taken: false, reason: (error as Error).message });
    }
  }
  throw new NoAdapterError(tried);
}

/** A shape that the adapter's matrix units compute, as `adapter.info.subgroupMatrixConfigs` lists them. */
export interface SubgroupMatrix {
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

/** What planners may use. A CPU driver wants loops and no workgroup memory, everything else tiles. */
export function capsOf(
  limits: Pick<
    GPUSupportedLimits,
    | 'maxComputeInvocationsPerWorkgroup'
    | 'maxComputeWorkgroupStorageSize'
    | 'maxStorageBuffersPerShaderStage'
    | 'maxStorageBufferBindingSize'
  >,
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

// ---- trying --------------------------------------------------------------------------------------------------------

/**
 * allow_unsafe_apis shows experimental features (subgroup matrices); f16 on NVIDIA is off by default for a conformance detail that
 * does not touch compute; timestamps are not rounded to 65 µs.
 */
const DAWN = [
  'enable-dawn-features=allow_unsafe_apis,vulkan_enable_f16_on_nvidia',
  'disable-dawn-features=timestamp_quantization',
];
const FAST: GPURequestAdapterOptions = { powerPreference: 'high-performance' };
const SOFTWARE: GPURequestAdapterOptions = { forceFallbackAdapter: true };
const FACTS = ['vendor', 'architecture', 'device', 'description', 'isFallbackAdapter'] as const;

const variables = (driver: Driver): Record<string, string> => {
  const icds = driver.icds.join(':');
  return icds ? { VK_DRIVER_FILES: icds, VK_ICD_FILENAMES: icds } : {};
};

/** Opens a driver in a child process: a driver that crashes takes only the child with it. */
const trial: Trial = async (driver) => {
  const child = await runScript(
    `
    import process from 'node:process';
    for (const file of ${JSON.stringify(driver.libraries)}) {
      if (globalThis.Deno) Deno.dlopen(file, {});
      else try { process.dlopen({ exports: {} }, file, ${DLOPEN_KEEP}); }
      catch (error) { if (!error.message.includes('did not self-register')) throw error; }
    }
    const { create } = await import(${JSON.stringify(dawnUrl())});
    const gpu = globalThis.gpu = create(${JSON.stringify(DAWN)});
    const adapters = [];
    for (const options of ${JSON.stringify([FAST, SOFTWARE])}) {
      const adapter = await gpu.requestAdapter(options);
      if (adapter) adapters.push(Object.fromEntries(${JSON.stringify(FACTS)}.map((key) => [key, adapter.info[key]])));
    }
    console.log('@' + JSON.stringify(adapters));`,
    { env: variables(driver), timeoutMs: 60_000 },
  );
  const answer = child.stdout.split('\n').find((line) => line.startsWith('@'));
  if (!answer) {
    const error = child.stderr.split('\n').find((line) => /Error/.test(line));
    return { failure: child.signal ? `it crashes Dawn (${child.signal})` : (error ?? `exit code ${child.code}`) };
  }
  const adapters = JSON.parse(answer.slice(1)) as AdapterFacts[];
  return adapters.length ? { adapters } : { failure: 'Dawn finds no adapter in it' };
};

/** Adapters of a driver are asked for again and again; its instance is made once. */
const opened = new Map<string, GPU>();

async function requestAdapter(
  driver: Driver,
  request: GPURequestAdapterOptions,
  options = DAWN,
): Promise<{ gpu: GPU; adapter: GPUAdapter }> {
  const failure = preload(driver.libraries);
  if (failure) throw new Error(failure);
  return withEnv(variables(driver), async () => {
    let gpu = opened.get(driver.name);
    if (!gpu) opened.set(driver.name, (gpu = await createDawn(options)));
    const adapter = await gpu.requestAdapter(request);
    if (!adapter) throw new Error(`Dawn finds no adapter in ${driver.name}`);
    return { gpu, adapter };
  });
}

let systemTrial: ReturnType<Trial> | undefined;

/** The system's own driver, tried in a child process where it is Vulkan's and not the user's explicit wish. */
async function systemDriver(source: Source): Promise<Driver> {
  const driver: Driver = { name: 'the system', libraries: [], icds: [] };
  if (platform !== 'linux') return driver;
  const { loader, icds, hidden } = systemVulkan();
  const user = userVulkan();
  if (!user && !icds.length) throw new Error('no Vulkan driver is installed (no ICD manifest)');
  if (!loader) {
    // Containers often get the GPU's driver mounted without a Vulkan loader: lend ours.
    driver.libraries = (await swiftshader()).libraries;
  }
  if (user) return driver;
  if (hidden) driver.icds = icds;
  const found = await (systemTrial ??= trial(driver));
  if ('failure' in found) throw new Error(found.failure);
  const reasons = found.adapters.map((a) => objection(source, a));
  if (reasons.every((reason) => reason)) throw new Error(reasons[0]);
  return driver;
}

async function attempt(
  source: Source,
  insist: boolean,
  log: Log,
): Promise<{ value: { gpu: GPU; adapter: GPUAdapter }; reason: string }> {
  if (source === 'native') {
    const gpu = nativeGpu();
    const adapter = await gpu?.requestAdapter(FAST);
    if (!gpu || !adapter) throw new Error(`${runtime} has no WebGPU adapter of its own`);
    return { value: { gpu, adapter }, reason: `${runtime}'s own WebGPU` };
  }
  if (!dawnUrl()) throw new Error('the npm package webgpu is not installed');
  if (source === 'null') {
    const nothing: Driver = { name: 'null', libraries: [], icds: [] };
    return {
      value: await requestAdapter(nothing, {}, [...DAWN, 'backend=null']),
      reason: 'validates, computes nothing',
    };
  }
  const user = userVulkan();
  if (source === 'gpu' || source === 'system') {
    const driver = await systemDriver(source);
    const value = await requestAdapter(driver, source === 'gpu' ? FAST : SOFTWARE);
    const reason = objection(source, value.adapter.info as AdapterFacts);
    if (reason) throw new Error(reason);
    return {
      value,
      reason: user ? `as ${user} says` : source === 'gpu' ? 'a real GPU' : "a software driver of the system's",
    };
  }
  if (user) throw new Error(`${user} is set and decides`);
  const driver =
    source === 'lavapipe' ? await lavapipe({ fetch: !flags.NO_FETCH, insist, trial, log }) : await swiftshader();
  return { value: await requestAdapter(driver, FAST), reason: `${driver.name} from the user's cache` };
}

// ---- opening -------------------------------------------------------------------------------------------------------

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
    name: facts.device || facts.description || source,
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

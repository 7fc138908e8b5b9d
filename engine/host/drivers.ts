/**
 * Where adapters come from under Node and Deno: the system's drivers through Dawn, each tried in a child process first, software
 * drivers that we bring, and the runtime's own WebGPU. A browser has browser/drivers.ts in this file's place.
 */
import { objection, userVulkan, type AdapterFacts, type Choice, type Log, type Source } from './choose.ts';
import { flags } from './flags.ts';
import {
  createDawn,
  dawnUrl,
  DLOPEN_KEEP,
  nativeGpu,
  platform,
  preload,
  runScript,
  runtime,
  withEnv,
} from './runtime.ts';
import { lavapipe, swiftshader, systemVulkan, type Driver, type Trial } from './software.ts';

export const candidates = (choice: Choice): Source[] =>
  choice === 'auto' ? ['gpu', 'system', 'lavapipe', 'swiftshader', 'native'] : [choice];

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

/** Opens one candidate. @throws why it cannot be taken */
export async function attempt(
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

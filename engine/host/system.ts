/**
 * The system's own drivers through Dawn: each tried in a child process first, what adapters they have, and which of these is taken.
 */
import {
  fastestFirst,
  LISTED,
  named,
  objection,
  userVulkan,
  type AdapterFacts,
  type Listed,
  type Source,
} from './choose.ts';
import { flags } from './flags.ts';
import { createDawn, dawnUrl, DLOPEN_KEEP, platform, preload, runScript, withEnv } from './runtime.ts';
import { swiftshader, systemVulkan, type Driver, type Trial } from './software.ts';

/**
 * Windows: HLSL is compiled by DXC, which ships with Dawn; the older compiler takes a hundred times as long, and knows neither
 * f16 nor subgroups. allow_unsafe_apis shows experimental features (subgroup matrices); f16 on NVIDIA is off by default for a
 * conformance detail that does not touch compute; timestamps are not rounded to 65 µs.
 */
const DAWN = [
  `enable-dawn-features=allow_unsafe_apis,vulkan_enable_f16_on_nvidia${platform === 'win32' ? ',use_dxc' : ''}`,
  'disable-dawn-features=timestamp_quantization',
];
export const FAST: GPURequestAdapterOptions = { powerPreference: 'high-performance' };
/** A name that no adapter has: Dawn answers with those there are. */
const NOBODY = 'adapter=?';
/** Tried first where it is there: on Windows Vulkan has what D3D12 has not, matrix units among it. */
const PREFERRED = platform === 'win32' ? 'vulkan' : undefined;
const FACTS = ['vendor', 'architecture', 'device', 'description', 'isFallbackAdapter'] as const;

const variables = (driver: Driver): Record<string, string> => {
  const icds = driver.icds.join(':');
  return icds ? { VK_DRIVER_FILES: icds, VK_ICD_FILENAMES: icds } : {};
};

/** Opens a driver in a child process: a driver that crashes takes only the child with it. */
export const trial: Trial = async (driver) => {
  const child = await runScript(
    `
    import process from 'node:process';
    for (const file of ${JSON.stringify(driver.libraries)}) {
      if (globalThis.Deno) Deno.dlopen(file, {});
      else try { process.dlopen({ exports: {} }, file, ${DLOPEN_KEEP}); }
      catch (error) { if (!error.message.includes('did not self-register')) throw error; }
    }
    const { create } = await import(${JSON.stringify(dawnUrl())});
    const keep = globalThis.instances = [];
    const instance = (...options) => keep[keep.push(create([...${JSON.stringify(DAWN)}, ...options])) - 1];
    const list = await (async () => instance('${NOBODY}').requestAdapter())().then(() => '', (error) => error.message);
    const adapters = [];
    for (const [, backend, name] of list.matchAll(${LISTED})) {
      const adapter = await instance('backend=' + backend, 'adapter=' + name).requestAdapter();
      const facts = Object.fromEntries(${JSON.stringify(FACTS)}.map((key) => [key, adapter?.info[key]]));
      if (adapter) adapters.push({ backend, name, facts });
    }
    console.log('@' + JSON.stringify(adapters));`,
    { env: variables(driver), timeoutMs: 60_000 },
  );
  const answer = child.stdout.split('\n').find((line) => line.startsWith('@'));
  if (!answer) {
    const error = child.stderr.split('\n').find((line) => /Error/.test(line));
    return { failure: child.signal ? `it crashes Dawn (${child.signal})` : (error ?? `exit code ${child.code}`) };
  }
  const adapters = JSON.parse(answer.slice(1)) as Listed[];
  return adapters.length ? { adapters } : { failure: 'Dawn finds no adapter in it' };
};

/** Adapters of a driver are asked for again and again; its instance is made once. */
const opened = new Map<string, GPU>();

const only = ({ backend, name }: Pick<Listed, 'backend' | 'name'>): string[] => [
  `backend=${backend}`,
  `adapter=${name}`,
];

export async function requestAdapter(
  driver: Driver,
  options: readonly string[] = [],
): Promise<{ gpu: GPU; adapter: GPUAdapter }> {
  const failure = preload(driver.libraries);
  if (failure) throw new Error(failure);
  return withEnv(variables(driver), async () => {
    const key = [driver.name, ...options].join(' ');
    let gpu = opened.get(key);
    if (!gpu) opened.set(key, (gpu = await createDawn([...DAWN, ...options])));
    const adapter = await gpu.requestAdapter(FAST);
    if (!adapter) throw new Error(`Dawn finds no adapter in ${driver.name}`);
    return { gpu, adapter };
  });
}

let systemTrial: ReturnType<Trial> | undefined;

/** The system's own driver; on Linux Vulkan's, with what is needed to reach it. @throws where there is none */
async function systemDriver(): Promise<Driver> {
  const driver: Driver = { name: 'the system', libraries: [], icds: [] };
  if (platform !== 'linux') return driver;
  const { loader, icds, hidden } = systemVulkan();
  const user = userVulkan();
  if (!user && !icds.length) throw new Error('no Vulkan driver is installed (no ICD manifest)');
  if (!loader) {
    // Containers often get the GPU's driver mounted without a Vulkan loader: lend ours.
    driver.libraries = (await swiftshader()).libraries;
  }
  if (hidden && !user) driver.icds = icds;
  return driver;
}

/** What a driver has, found in this process. */
async function listed(driver: Driver): Promise<Listed[]> {
  const list = await requestAdapter(driver, [NOBODY]).then(
    () => '',
    (error: Error) => error.message,
  );
  const found: Listed[] = [];
  for (const [, backend, name] of list.matchAll(LISTED)) {
    const { adapter } = await requestAdapter(driver, only({ backend: backend!, name: name! }));
    found.push({ backend: backend!, name: name!, facts: adapter.info as AdapterFacts });
  }
  return found;
}

/**
 * The adapters of the system's own drivers, numbered from 1 by VPAE_DEVICE. Tried in
 * a child process where the user has not wished for them.
 */
export async function systemAdapters(): Promise<{ driver: Driver; adapters: Listed[] }> {
  const driver = await systemDriver();
  if (platform !== 'linux' || userVulkan()) return { driver, adapters: await listed(driver) };
  const found = await (systemTrial ??= trial(driver));
  if ('failure' in found) throw new Error(found.failure);
  return { driver, adapters: found.adapters };
}

/** The adapter of the system's that is wanted: by name, by backend, or whichever Dawn takes for the fastest. */
export async function systemAdapter(source: Source): Promise<{ gpu: GPU; adapter: GPUAdapter }> {
  const { driver, adapters } = await systemAdapters();
  const may = ({ facts }: Listed): boolean => objection(source, facts) === undefined;
  const wanted = flags.VPAE_DEVICE ? [named(flags.VPAE_DEVICE, adapters)] : fastestFirst(adapters);
  const reasons = wanted.map(({ facts }) => objection(source, facts));
  if (reasons.every((reason) => reason)) throw new Error(reasons[0] ?? 'Dawn finds no adapter in the system');
  if (flags.VPAE_DEVICE || source === 'system') return requestAdapter(driver, only(wanted.find(may)!));
  const preferred = wanted.find((a) => may(a) && a.backend === PREFERRED);
  const fastest = await requestAdapter(driver, preferred ? [`backend=${preferred.backend}`] : []);
  return may({ ...adapters[0]!, facts: fastest.adapter.info as AdapterFacts })
    ? fastest
    : requestAdapter(driver, only(wanted.find(may)!));
}

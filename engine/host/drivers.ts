/**
 * Where adapters come from under Node and Deno: the system's drivers through Dawn, software drivers that we bring, and the runtime's own
 * WebGPU. A browser has browser/drivers.ts in this file's place.
 */
import { userVulkan, type Choice, type Log, type Source } from './choose.ts';
import { flags } from './flags.ts';
import { dawnUrl, nativeGpu, runtime } from './runtime.ts';
import { lavapipe, swiftshader, type Driver } from './software.ts';
import { FAST, requestAdapter, systemAdapter, trial } from './system.ts';

/** Who names an adapter of the system's wants no other. */
export const candidates = (choice: Choice, device = flags.VPAE_DEVICE): Source[] => {
  if (choice !== 'auto') return [choice];
  return device ? ['gpu', 'system'] : ['gpu', 'system', 'lavapipe', 'swiftshader', 'native'];
};

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
    return { value: await requestAdapter(nothing, ['backend=null']), reason: 'validates, computes nothing' };
  }
  const user = userVulkan();
  if (source === 'gpu' || source === 'system') {
    const value = await systemAdapter(source);
    return {
      value,
      reason: flags.VPAE_DEVICE
        ? `as VPAE_DEVICE=${flags.VPAE_DEVICE} says`
        : user
          ? `as ${user} says`
          : source === 'gpu'
            ? 'a real GPU'
            : "a software driver of the system's",
    };
  }
  if (user) throw new Error(`${user} is set and decides`);
  const driver =
    source === 'lavapipe' ? await lavapipe({ fetch: !flags.NO_FETCH, insist, trial, log }) : await swiftshader();
  return { value: await requestAdapter(driver), reason: `${driver.name} from the user's cache` };
}

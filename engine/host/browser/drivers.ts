/** Where adapters come from in a page: the browser's own WebGPU, and nothing else. */
import type { Choice, Log, Source } from '../choose.ts';
import { nativeGpu } from './runtime.ts';

export const candidates = (choice: Choice): Source[] => [choice === 'auto' ? 'native' : choice];

/** Opens one candidate. @throws why it cannot be taken */
export async function attempt(
  source: Source,
  _insist: boolean,
  _log: Log,
): Promise<{ value: { gpu: GPU; adapter: GPUAdapter }; reason: string }> {
  if (source !== 'native') throw new Error(`a browser has its own WebGPU only, not ${source}`);
  const gpu = nativeGpu();
  if (!gpu) throw new Error('this browser has no WebGPU');
  const adapter = await gpu.requestAdapter({ powerPreference: 'high-performance' });
  if (!adapter) throw new Error('this browser has WebGPU, but no adapter for it: its graphics driver may be blocked');
  return { value: { gpu, adapter }, reason: "this browser's own WebGPU" };
}

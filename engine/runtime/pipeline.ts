/**
 * Pipelines on layouts that kernels share. An automatic layout is one a kernel: it carries the sizes that the
 * kernel's own types ask for, and a driver sets places for some hundred bind groups aside for each (Mesa's on
 * the CPU a memory mapping each, of which Linux gives a process 65530).
 */
import { waiting } from '../host/runtime.ts';

const COMPUTE = 0x4;
const STORAGE = /@binding\(\d+\) var<storage, (\w+)>/g;

const layouts = new WeakMap<GPUDevice, Map<string, GPUPipelineLayout>>();

/** The uniform at binding 0, storage as the module declares it from binding 1 on. */
function layoutOf(gpu: GPUDevice, wgsl: string): GPUPipelineLayout {
  const types = Array.from(wgsl.matchAll(STORAGE), ([, access]): GPUBufferBindingType =>
    access === 'read' ? 'read-only-storage' : 'storage',
  );
  const key = types.join();
  let known = layouts.get(gpu);
  if (!known) layouts.set(gpu, (known = new Map<string, GPUPipelineLayout>()));
  let layout = known.get(key);
  if (!layout) {
    const entries = (['uniform', ...types] as const).map((type, binding) => ({
      binding,
      visibility: COMPUTE,
      buffer: { type },
    }));
    layout = gpu.createPipelineLayout({ bindGroupLayouts: [gpu.createBindGroupLayout({ entries })] });
    known.set(key, layout);
  }
  return layout;
}

/** Compiles a module of `shader`'s form, whose every binding must be bound. */
export const pipelineOf = (
  gpu: GPUDevice,
  { wgsl, label = '' }: { wgsl: string; label?: string },
  module = gpu.createShaderModule({ code: wgsl, label }),
): Promise<GPUComputePipeline> =>
  waiting(gpu.createComputePipelineAsync({ layout: layoutOf(gpu, wgsl), label, compute: { module } }));

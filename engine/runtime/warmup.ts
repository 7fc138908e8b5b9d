/**
 * CPU drivers of Mesa compile a kernel when it is first launched, one after another on one core. Here they are launched on nothing
 * before a program's first run, and when that takes long on further devices too: what those compile is found in the driver's cache.
 */
import type { Dispatch } from '../../kernels/kernel.ts';
import { pause, waiting } from '../host/runtime.ts';
import { pipelineOf } from './pipeline.ts';

/** A device that launches fewer kernels than FAST in this time compiles them: from the cache one takes some 2 ms. */
const PATIENCE_MS = 100;
const FAST = 8;
const MAX_DEVICES = 4;
const USAGE = { indirect: 0x100, uniform: 0x40, storage: 0x80 };
/** More than any kernel's uniform, and room for any binding's first element. */
const BYTES = 4096;

export interface Kernel {
  dispatch: Pick<Dispatch, 'wgsl' | 'bind'>;
  pipeline: GPUComputePipeline;
}

export class Warmup {
  private readonly known = new Set<string>();
  private readonly another: () => Promise<GPUDevice>;
  private readonly count: number;
  private readonly more: Promise<GPUDevice | undefined>[] = [];

  /** @param cores of the processor: the devices are as many, MAX_DEVICES at most */
  constructor(another: () => Promise<GPUDevice>, cores: number) {
    this.another = another;
    this.count = Math.min(cores, MAX_DEVICES) - 1;
  }

  /** Compiles what `gpu` has not launched yet. */
  async compile(gpu: GPUDevice, kernels: readonly Kernel[]): Promise<void> {
    const left = [...new Map(kernels.map((k) => [k.dispatch.wgsl, k])).values()].filter(
      (k) => !this.known.has(k.dispatch.wgsl),
    );
    for (const k of left) this.known.add(k.dispatch.wgsl);
    const taken: Kernel[] = [];
    const own = drain(gpu, left, async (k) => k.pipeline);
    let before: number;
    do {
      before = left.length;
      await Promise.race([own, pause(PATIENCE_MS)]);
    } while (left.length && before - left.length >= FAST);
    const others: Promise<void>[] = [];
    if (left.length && this.count) {
      while (this.more.length < this.count) this.more.push(this.another().catch(() => undefined)); // without it the rest takes longer
      others.push(
        ...this.more.map(async (opening) => {
          const device = await opening;
          if (device)
            await drain(device, left, (k) => {
              taken.push(k);
              return pipelineOf(device, k.dispatch);
            });
        }),
      );
    }
    await Promise.all([own, ...others]);
    await drain(gpu, taken, async (k) => k.pipeline);
  }

  close(): void {
    for (const device of this.more) void device.then((d) => d && destroyIdle(d));
  }
}

/** Destroys a device when all that it was given is done. */
export async function destroyIdle(gpu: GPUDevice): Promise<void> {
  try {
    await waiting(gpu.queue.onSubmittedWorkDone());
  } catch {
    // it was lost: there is nothing to wait for
  }
  gpu.destroy();
}

/** Launches one kernel after the other until none is left. Whoever else drains the list takes others. */
async function drain(gpu: GPUDevice, left: Kernel[], made: (k: Kernel) => Promise<GPUComputePipeline>): Promise<void> {
  if (!left.length) return;
  const buffers: GPUBuffer[] = [];
  const buffer = (at: number, usage: number): GPUBuffer => (buffers[at] ??= gpu.createBuffer({ size: BYTES, usage }));
  for (let k = left.shift(); k; k = left.shift()) {
    const pipeline = await made(k);
    const storage = k.dispatch.bind.map((_, i) => ({
      binding: i + 1,
      resource: { buffer: buffer(i + 2, USAGE.storage) },
    }));
    const entries = [{ binding: 0, resource: { buffer: buffer(1, USAGE.uniform) } }, ...storage];
    const encoder = gpu.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, gpu.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }));
    pass.dispatchWorkgroupsIndirect(buffer(0, USAGE.indirect), 0); // no workgroups: Dawn warns of them where it can see it
    pass.end();
    gpu.queue.submit([encoder.finish()]);
    await waiting(gpu.queue.onSubmittedWorkDone());
  }
  for (const b of buffers) b?.destroy();
}

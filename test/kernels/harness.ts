/** Runs a family's Launch on a bare device, with sentinels around every slot, and validates WGSL on Dawn's null backend. */
import { openAdapter } from '../../engine/host/adapter.ts';
import { pipelineOf } from '../../engine/runtime/pipeline.ts';
import type { Launch } from '../../kernels/kernel.ts';

const GUARD = 256; // bytes in front of and behind every slot
const SENTINEL = 0x7fbadbad;

let real: ReturnType<typeof openAdapter> | undefined;
let nil: ReturnType<typeof openAdapter> | undefined;
/** The best adapter of this machine. */
export const openTest = () => (real ??= openAdapter());
/** A device that checks everything and runs nothing, with the features of every tier. */
export const openNull = () => (nil ??= openAdapter({ adapter: 'null' }));

/** Made once: some drivers compile for a second. */
const pipelines = new Map<string, GPUComputePipeline>();

type Data = Float32Array | Uint32Array | Int32Array | Uint16Array | Uint8Array;

/** Runs the launch: `inputs` fill the first slots, `outputs` are byte sizes of the next; gives each output's raw bytes. */
export async function launch(l: Launch, inputs: Data[], outputs: number[]): Promise<ArrayBuffer[]> {
  const { device } = await openTest();
  const sizes = [...inputs.map((d) => d.byteLength), ...outputs, ...l.scratch].map((n) => Math.ceil(n / 4) * 4);
  const buffers = sizes.map((size) => {
    const b = device.createBuffer({ size: size + 2 * GUARD, usage: 0x80 | 0x4 | 0x8 });
    device.queue.writeBuffer(b, 0, new Uint32Array((size + 2 * GUARD) / 4).fill(SENTINEL));
    return b;
  });
  inputs.forEach((d, i) =>
    device.queue.writeBuffer(buffers[i]!, GUARD, d.byteLength % 4 ? pad(d) : (d as Uint32Array)),
  );
  device.pushErrorScope('validation');
  const encoder = device.createCommandEncoder();
  for (const d of l.dispatches) {
    let pipeline = pipelines.get(d.wgsl);
    if (!pipeline) {
      const module = device.createShaderModule({ code: d.wgsl });
      const errors = (await module.getCompilationInfo()).messages.filter((m) => m.type === 'error');
      if (errors.length)
        throw new Error(`${d.label}: ${errors.map((m) => `${m.lineNum}: ${m.message}`).join('; ')}\n${d.wgsl}`);
      pipelines.set(d.wgsl, (pipeline = await pipelineOf(device, d, module)));
    }
    const words = new Uint32Array(Math.ceil(Math.max(d.params.length, 1) / 4) * 4);
    words.set(d.params);
    const uniform = device.createBuffer({ size: words.byteLength, usage: 0x40 | 0x8 });
    device.queue.writeBuffer(uniform, 0, words);
    const entries = [
      { binding: 0, resource: { buffer: uniform } },
      ...d.bind.map((slot, i) => ({
        binding: i + 1,
        resource: { buffer: buffers[slot]!, offset: GUARD, size: sizes[slot]! },
      })),
    ];
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }));
    pass.dispatchWorkgroups(...d.grid);
    pass.end();
  }
  const reads = sizes.map((size) => device.createBuffer({ size: size + 2 * GUARD, usage: 0x1 | 0x8 }));
  buffers.forEach((b, i) => encoder.copyBufferToBuffer(b, 0, reads[i]!, 0, sizes[i]! + 2 * GUARD));
  device.queue.submit([encoder.finish()]);
  const error = await device.popErrorScope();
  if (error) throw new Error(error.message);
  const results: ArrayBuffer[] = [];
  for (const [i, r] of reads.entries()) {
    await r.mapAsync(1);
    const bytes = r.getMappedRange().slice(0);
    const words = new Uint32Array(bytes);
    for (let w = 0; w < GUARD / 4; w++) {
      if (words[w] !== SENTINEL || words[words.length - 1 - w] !== SENTINEL)
        throw new Error(`${l.dispatches.map((d) => d.label).join(' | ')}: slot ${i} was written outside its bounds`);
    }
    if (i >= inputs.length && i < inputs.length + outputs.length)
      results.push(bytes.slice(GUARD, GUARD + outputs[i - inputs.length]!));
    r.unmap();
  }
  for (const b of [...buffers, ...reads]) b.destroy();
  return results;
}

function pad(d: Data): Uint32Array {
  const out = new Uint8Array(Math.ceil(d.byteLength / 4) * 4);
  out.set(new Uint8Array(d.buffer, d.byteOffset, d.byteLength));
  return new Uint32Array(out.buffer);
}

/** Compiles the text on the null backend (all features of every tier): throws Tint's message. */
export async function validate(label: string, wgsl: string): Promise<void> {
  const { device } = await openNull();
  const module = device.createShaderModule({ code: wgsl });
  const errors = (await module.getCompilationInfo()).messages.filter((m) => m.type === 'error');
  if (errors.length)
    throw new Error(`${label}: ${errors.map((m) => `${m.lineNum}:${m.linePos} ${m.message}`).join('; ')}\n${wgsl}`);
}

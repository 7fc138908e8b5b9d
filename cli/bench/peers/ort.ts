/** onnxruntime: its CPU provider, the measure of what this processor can do, and its WebGPU provider for browsers. */
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { Work } from '../works.ts';
import { modelOf } from './onnx.ts';
import { lendWebGPU, load, resolve, settled, versionOf, type Peer, type PeerRun } from './peer.ts';

/** The parts of onnxruntime that are used. */
interface Value {
  getData(): Promise<Float32Array>;
  dispose(): void;
}
interface Ort {
  env: { webgpu: { device?: GPUDevice }; wasm: { numThreads: number } };
  Tensor: (new (type: 'float32', data: Float32Array, shape: readonly number[]) => Value) & {
    fromGpuBuffer(buffer: GPUBuffer, options: { dataType: 'float32'; dims: readonly number[] }): Value;
  };
  InferenceSession: {
    create(model: Uint8Array, options: object): Promise<{ run(feeds: Record<string, Value>): Promise<{ y: Value }> }>;
  };
}

const WEBGPU = { executionProviders: ['webgpu'], preferredOutputLocation: 'gpu-buffer' };

/** Where a session runs, how numbers come there, and when it is done. */
interface Provider {
  ort: Ort;
  options: object;
  input: (x: Float32Array, shape: readonly number[]) => Value;
  settle: PeerRun['settle'];
}

/** @param fused attention by its fused operator, not by products and softmax */
async function open(
  { ort, options, input, settle }: Provider,
  work: Work,
  fused: boolean,
  numbers: readonly Float32Array[],
): Promise<PeerRun | undefined> {
  const model = modelOf(work, fused);
  if (!model) return undefined;
  const session = await ort.InferenceSession.create(model.bytes, options);
  const feeds = Object.fromEntries(numbers.map((x, i) => [`x${i}`, input(x, model.inputs[i]!)]));
  let y: Value | undefined;
  return {
    settle,
    answer: async () => [await y!.getData()],
    async call() {
      y?.dispose();
      ({ y } = await session.run(feeds));
    },
  };
}

/** Attention is its fused operator. */
export async function cpu(): Promise<Peer> {
  const ort = load('onnxruntime-node') as Ort;
  return {
    version: versionOf('onnxruntime-node'),
    on: 'CPU',
    open: (work, numbers) =>
      open(
        {
          ort,
          options: { executionProviders: ['cpu'] },
          input: (x, shape) => new ort.Tensor('float32', x, shape),
          settle: async () => {},
        },
        work,
        true,
        numbers,
      ),
  };
}

/** dawn.node takes no view on shared memory, which its WebAssembly heap is: such data are copied first. */
function copyShared(queue: GPUQueue): void {
  const write = queue.writeBuffer.bind(queue) as (...args: unknown[]) => undefined;
  queue.writeBuffer = (
    buffer: GPUBuffer,
    offset: number,
    data: GPUAllowSharedBufferSource,
    start?: number,
    size?: number,
  ) => {
    const view = ArrayBuffer.isView(data) ? data : new Uint8Array(data);
    if (!(view.buffer instanceof SharedArrayBuffer)) return write(buffer, offset, data, start, size);
    const unit = 'BYTES_PER_ELEMENT' in view ? (view.BYTES_PER_ELEMENT as number) : 1;
    const raw = new Uint8Array(
      view.buffer,
      view.byteOffset + (start ?? 0) * unit,
      size === undefined ? view.byteLength - (start ?? 0) * unit : size * unit,
    );
    return write(buffer, offset, raw.slice());
  };
}

export const web = (fused: boolean) => async (): Promise<Peer> => {
  const device = await lendWebGPU(copyShared);
  const bundle = join(dirname(resolve('onnxruntime-web')!), 'ort.webgpu.bundle.min.mjs');
  const ort = (await import(pathToFileURL(bundle).href)) as Ort;
  return {
    version: versionOf('onnxruntime-web'),
    on: 'WebGPU',
    async open(work, numbers) {
      if (fused && work.name !== 'attention') return undefined;
      const input = (x: Float32Array, dims: readonly number[]): Value => {
        const buffer = device().createBuffer({
          size: x.byteLength,
          usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST,
        });
        device().queue.writeBuffer(buffer, 0, x as Float32Array<ArrayBuffer>);
        return ort.Tensor.fromGpuBuffer(buffer, { dataType: 'float32', dims });
      };
      return await open({ ort, options: WEBGPU, input, settle: settled(device) }, work, fused, numbers);
    },
  };
};

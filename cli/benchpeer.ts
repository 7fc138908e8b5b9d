/** gpu.js, an independent library that runs on WebGPU or the CPU: a second opinion on our matmul's answer, and a peer in speed. */
import { createRequire } from 'node:module';
import { openAdapter } from '../engine/adapter.ts';
import type { Device } from '../engine/device.ts';
import type { Tensor } from '../engine/tensor.ts';
import { noise } from './steps.ts';

export interface Peer { version: string; mode: string; size: number; ms: number; ourMs: number; difference: number }

/** The parts of gpu.js that are used. */
interface GpuJs {
  GPU: new (settings: { mode: string }) => { createKernel(fn: (...x: never[]) => number, settings: object): Kernel; destroy(): Promise<void> };
  input: (data: Float32Array, size: readonly number[]) => unknown;
}
type Kernel = (...inputs: unknown[]) => unknown;
/** What gpu.js makes of a kernel's `this` and its two-dimensional arguments. */
interface Thread { thread: { x: number; y: number }; constants: { size: number } }

const REPEATS = 7;

/** Gives gpu.js an adapter like ours, where a browser would have it; false where there is none to give. */
async function lendAdapter(software: boolean): Promise<boolean> {
  const { gpu, device } = await openAdapter();
  device.destroy(); // its adapter is used up: gpu.js makes a device of its own
  const request = { powerPreference: 'high-performance', forceFallbackAdapter: software } as const;
  if (!await gpu.requestAdapter(request)) return false;
  const lent = { requestAdapter: () => gpu.requestAdapter(request), getPreferredCanvasFormat: () => 'rgba8unorm' };
  Object.defineProperty(globalThis, 'navigator', { value: { gpu: lent }, configurable: true });
  return true;
}

/** Both multiply the same [size, size] matrices, from host memory and back, by turns; medians. */
export async function matmulOfGpuJs(device: Device, size: number): Promise<Peer> {
  const require = createRequire(import.meta.url);
  const { GPU, input } = require('gpu.js') as GpuJs;
  const { version } = require('gpu.js/package.json') as { version: string };
  const [a, b] = [noise([size, size], 1), noise([size, size], 2)];
  const mode = await lendAdapter(device.info.kind === 'software') ? 'webgpu' : 'cpu';

  const ours = device.compile((x: Tensor, y: Tensor) => x.matmul(y), { name: 'matmul' });
  const gpu = new GPU({ mode });
  const theirs = gpu.createKernel(function (this: Thread, x: number[][], y: number[][]) {
    let sum = 0;
    for (let i = 0; i < this.constants.size; i++) sum += x[this.thread.y]![i]! * y[i]![this.thread.x]!;
    return sum;
  } as never, { output: [size, size], constants: { size }, loopMaxIterations: size });
  const inputs = [a, b].map((t) => input(t.data as Float32Array, [size, size]));

  const times: [ours: number, theirs: number][] = [];
  let answers: [Float32Array, Float32Array[]] | undefined;
  for (let i = 0; i <= REPEATS; i++) {
    const start = performance.now();
    const mine = await (await ours(a, b)).read();
    const between = performance.now();
    const its = await theirs(...inputs) as Float32Array[];
    if (i) times.push([between - start, performance.now() - between]); // the first compiles
    answers = [mine, its];
  }
  await ours.free();
  await gpu.destroy();
  const median = (k: 0 | 1): number => times.map((t) => t[k]).sort((x, y) => x - y)[Math.floor(REPEATS / 2)]!;
  const [mine, its] = answers!;
  const difference = mine.reduce((worst, v, i) => Math.max(worst, Math.abs(v - its[Math.floor(i / size)]![i % size]!)), 0);
  if (!(difference < 1e-3 * size)) throw new Error(`[bench] gpu.js and we disagree: the answers differ by up to ${difference}`);
  return { version, mode, size, ms: median(1), ourMs: median(0), difference };
}

/** gpu.js, an independent WebGPU and CPU library, on our matmul's numbers: a second opinion on the answer and a peer in speed. */
import { createRequire } from 'node:module';
import { openAdapter } from '../engine/adapter.ts';
import type { Device } from '../engine/device.ts';
import type { Tensor } from '../engine/tensor.ts';
import { noise } from './steps.ts';

export interface Peer { version: string; mode: string; size: number; ms: number; ourMs: number; difference: number }

/** The parts of gpu.js that are used; its own types are of another age. */
interface GpuJs { mode: string; createKernel(fn: Function, settings: object): { (...args: unknown[]): unknown; exec?(...args: unknown[]): Promise<unknown> }; destroy(): Promise<void> }

const REPEATS = 5;

async function median(run: () => Promise<unknown>): Promise<number> {
  await run();
  const times: number[] = [];
  for (let i = 0; i < REPEATS; i++) {
    const start = performance.now();
    await run();
    times.push(performance.now() - start);
  }
  return times.sort((a, b) => a - b)[Math.floor(REPEATS / 2)]!;
}

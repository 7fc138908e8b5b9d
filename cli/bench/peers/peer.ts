/** What a peer is to the comparison, where its package is found, and how it is lent a WebGPU adapter. Runs in a child process. */
import { createRequire } from 'node:module';
import { join } from 'node:path';
import process from 'node:process';
import { pathToFileURL } from 'node:url';
import { openAdapter } from '../../../engine/host/adapter.ts';
import { env } from '../../../engine/host/runtime.ts';
import type { Sample, Timed } from '../clock.ts';
import type { Work } from '../works.ts';

interface Answering {
  /** The outputs of the last call; of a training step, its loss. */
  answer: () => Promise<ArrayLike<number>[]>;
}

/** It runs in this process, which times it. */
export interface PeerRun extends Timed, Answering {}

/** It runs in a process of its own, and times itself there. */
export interface DistantRun extends Answering {
  sample: (calls: number) => Promise<Sample & { peakBytes: number }>;
}

export interface Peer {
  version: string;
  /** What runs where, as `WebGPU` or `CPU`. */
  on: string;
  /** Inputs go to the device here, once. undefined: it has no such operation. */
  open(work: Work, numbers: readonly Float32Array[]): Promise<PeerRun | DistantRun | undefined>;
}

/** Folders whose node_modules may hold a peer. */
const places = (): string[] => [...(env('VPAE_PEERS') ? [env('VPAE_PEERS')!] : []), process.cwd()];

/** Its CommonJS entry point. */
export function resolve(name: string): string | undefined {
  const tries = [...places().map((dir) => pathToFileURL(join(dir, 'any.js'))), import.meta.url];
  for (const from of tries) {
    try {
      return createRequire(from).resolve(name);
    } catch {
      /* not there */
    }
  }
  return undefined;
}

export const isInstalled = (name: string): boolean => resolve(name) !== undefined;

/** A peer's module. Every one has a CommonJS form, which needs no loader of ours. @throws where it is not installed */
export function load(name: string): unknown {
  const file = resolve(name);
  if (!file) throw new Error(`${name} is not installed`);
  return createRequire(file)(file) as unknown;
}

/** The version in the package.json of `name`, found above its entry point. */
export function versionOf(name: string): string {
  const entry = resolve(name)!;
  const root = entry.slice(0, entry.lastIndexOf(`node_modules/${name}/`)) + `node_modules/${name}/package.json`;
  return (createRequire(root)(root) as { version: string }).version;
}

/**
 * Puts WebGPU where a browser has it, with the adapter we would use. The answer gives the device that the peer makes.
 * @param mend what a peer needs changed about its queue
 */
export async function lendWebGPU(mend: (queue: GPUQueue) => void = () => {}): Promise<() => GPUDevice> {
  const { gpu, device, info } = await openAdapter();
  device.destroy(); // its adapter is used up: the peer makes a device of its own
  let made: GPUDevice | undefined;
  const lent = {
    wgslLanguageFeatures: gpu.wgslLanguageFeatures,
    getPreferredCanvasFormat: () => 'rgba8unorm',
    async requestAdapter(): Promise<GPUAdapter | null> {
      const adapter = await gpu.requestAdapter({
        powerPreference: 'high-performance',
        forceFallbackAdapter: info.kind === 'software',
      });
      if (!adapter) return null;
      const request = adapter.requestDevice.bind(adapter);
      adapter.requestDevice = async (wanted) => {
        made = await request(wanted);
        mend(made.queue);
        made.addEventListener('uncapturederror', (event) => {
          throw new Error((event as GPUUncapturedErrorEvent).error.message);
        });
        return made;
      };
      return adapter;
    },
  };
  Object.defineProperty(globalThis, 'navigator', {
    value: { gpu: lent, userAgent: 'node', hardwareConcurrency: 1 },
    configurable: true,
  });
  return () => {
    if (!made) throw new Error('the peer has made no WebGPU device');
    return made;
  };
}

/** Waits for everything that was submitted to the device a peer made. */
export const settled = (device: () => GPUDevice) => (): Promise<unknown> => device().queue.onSubmittedWorkDone();

/** Rows and columns of an array of this shape, its axes in another order. */
export function permuted(data: ArrayLike<number>, shape: readonly number[], axes: readonly number[]): Float32Array {
  const out = new Float32Array(data.length);
  const strides = shape.map((_, i) => shape.slice(i + 1).reduce((a, b) => a * b, 1));
  const sizes = axes.map((a) => shape[a]!);
  const index = axes.map(() => 0);
  for (let i = 0; i < out.length; i++) {
    out[i] = data[axes.reduce((at, a, k) => at + index[k]! * strides[a]!, 0)]!;
    for (let k = axes.length - 1; k >= 0; k--) {
      if (++index[k]! < sizes[k]!) break;
      index[k] = 0;
    }
  }
  return out;
}

/** What `bench` runs: kernels at named shapes (square ones and the preset's own), and the preset's training steps. */
import type { Device } from '../engine/device.ts';
import { attention, conv3d, gelu } from '../engine/functional.ts';
import type { NDArray } from '../engine/ndarray.ts';
import type { Tensor } from '../engine/tensor.ts';
import { initDiT } from '../model/wan/dit.ts';
import { tokenGrid } from '../model/wan/tables.ts';
import { freeTree, toDevice, type State } from '../train/checkpoint.ts';
import { ditConfigOf, latentShape } from '../train/conditions.ts';
import { teacherJob, vaeJob, type OpenJob } from '../train/jobs.ts';
import { equilibriumJob, primingJob } from '../train/phases.ts';
import type { Preset } from '../train/presets/index.ts';
import { noise, noiseShards } from './steps.ts';

export interface Opened { flops: number; traffic: number; call: () => Promise<unknown>; close: () => Promise<void> }
export interface Case { name: string; shape: string; open(): Promise<Opened> }

type Shape = readonly number[];
const thrice = (s: Shape): Shape[] => [s, s, s];

function kernel(device: Device, name: string, shape: string, inputs: readonly Shape[], fn: (...x: Tensor[]) => Tensor): Case {
  return {
    name, shape,
    async open() {
      const xs = inputs.map((s, i): NDArray => device.tensor(noise(s, i).data, s));
      const program = device.compile(fn, { name });
      const { flops, traffic } = await program.plan(...xs);
      return {
        flops, traffic, call: () => program(...xs),
        async close() {
          await program.free();
          freeTree(xs);
        },
      };
    },
  };
}

export function kernelCases(device: Device, p: Preset): Case[] {
  const { dim, ffn_dim: ffn, num_heads: heads } = p.dit;
  const batch = p.teacher.batch;
  const tokens = tokenGrid(ditConfigOf(p), latentShape(p)).reduce((a, b) => a * b, 1);
  const rows = batch * tokens;
  const matmul = (name: string, m: number, k: number, n: number) =>
    kernel(device, name, `${m}x${k} · ${k}x${n}`, [[m, k], [n, k]], (a, b) => a!.matmul(b!, { transB: true }));
  const { frames, size } = p.data;
  const video = [p.trainVae.batch, p.vae.dim, frames, size, size];
  const head = dim / heads;
  return [
    matmul('matmul', 512, 512, 512),
    matmul('matmul', 1024, 1024, 1024),
    matmul('projection', rows, dim, dim),
    matmul('feed-forward', rows, dim, ffn),
    kernel(device, 'weight gradient', `${dim}x${rows} · ${rows}x${ffn}`, [[rows, dim], [rows, ffn]], (x, g) => x!.matmul(g!, { transA: true })),
    kernel(device, 'self-attention', `${batch} of ${tokens} tokens, ${heads} heads of ${head}`, thrice([batch, tokens, heads, head]), (q, k, v) => attention(q!, k!, v!)),
    kernel(device, 'long attention', '1 of 1024 tokens, 4 heads of 64', thrice([1, 1024, 4, 64]), (q, k, v) => attention(q!, k!, v!)),
    kernel(device, 'causal conv3d', `[${video.join()}], ${p.vae.dim} channels, 3³`, [video, [p.vae.dim, p.vae.dim, 3, 3, 3]], (x, w) => conv3d(x!, w!, undefined, { padLo: [2, 1, 1], padHi: [0, 1, 1] })),
    kernel(device, 'layer norm', `${rows}x${dim}`, [[rows, dim]], (x) => x!.layerNorm()),
    kernel(device, 'layer norm', '4096x1024', [[4096, 1024]], (x) => x!.layerNorm()),
    kernel(device, 'GELU', `${rows}x${ffn}`, [[rows, ffn], [ffn]], (x, b) => gelu(x!.add(b!))),
    kernel(device, 'add', '16M numbers', [[2 ** 24], [2 ** 24]], (a, b) => a!.add(b!)),
  ];
}

/** Times step `n` of a job again and again; the state goes on from call to call. */
function step(device: Device, name: string, shape: string, n: number, make: () => OpenJob): Case {
  return {
    name, shape,
    async open() {
      const job = make();
      let state: State = toDevice(device, await job.initial()) as State;
      return {
        flops: 0, traffic: 0,
        async call() { ({ state } = await job.advance(state, n)); },
        async close() {
          freeTree(state);
          await job.close();
        },
      };
    },
  };
}

export function stepCases(device: Device, p: Preset): Case[] {
  const shards = noiseShards(p);
  const net = initDiT(ditConfigOf(p), p.seed);
  const { fake } = p.phase1;
  return [
    step(device, 'VAE step', `batch ${p.trainVae.batch}`, 0, () => vaeJob(device, p)),
    step(device, 'teacher step', `batch ${p.teacher.batch}`, 0, () => teacherJob(device, p, shards)),
    step(device, 'priming step', `batch ${p.phase1.batch}, ${fake.updates} of the fake model`, fake.warmup, () => primingJob(device, p, shards, net)),
    step(device, 'equilibrium step', `batch ${p.phase2.batch}, with the discriminator's`, p.phase2.head.warmup, () => equilibriumJob(device, p, shards, net, net)),
  ];
}

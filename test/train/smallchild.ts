/**
 * A job of a moment, as the training commands drive theirs, on as many ranks as it is started with: `smallchild.ts OUT STEPS [FAULT]`.
 * Rank 0 says every step, and writes OUT/weights.safetensors at the end. At step 5 rank FAULT loses its device; `full`: all disks are.
 */
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { join } from 'node:path';
import process from 'node:process';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { host } from '../../engine/frontend/tree.ts';
import { fail } from '../../cli/common/errors.ts';
import { together, type Together } from '../../cli/common/together.ts';
import { saveTensors } from '../../model/files/safetensors.ts';
import type { Device } from '../../engine/runtime/device.ts';
import { freeTree, type State } from '../../train/loop/checkpoint.ts';
import { accumulated, turns } from '../../train/loop/accumulate.ts';
import { drive } from '../../train/loop/loop.ts';
import { update, type Rates, type Trained } from '../../train/loop/optim.ts';
import { compileStep } from '../../train/loop/step.ts';
import { start } from '../../train/methods/jobs.ts';

const [out, count, fault] = process.argv.slice(2) as [string, string, string?];
const BATCHING = { batch: 4, accumulate: 4 };
const adam = { lr: 0.1, beta1: 0.9, beta2: 0.99, eps: 1e-8, weightDecay: 0.1, clip: 0.5 };

const wave = (k: number, shape: number[]) =>
  host(
    Float32Array.from({ length: shape.reduce((a, b) => a * b) }, (_, i) => Math.sin(i + 10 * k)),
    shape,
  );
const weights = {
  'a.weight': wave(0, [200, 160]),
  'b.weight': wave(1, [16, 8]),
  'b.bias': wave(2, [64]),
  c: wave(3, [3]),
};

interface Inputs extends Rates {
  slope: Tensor;
}

function strike(device: Device, rank: number): void {
  if (rank === Number(fault)) device.gpu.destroy();
  if (fault !== 'full') return;
  fs.writeSync = () => {
    throw Object.assign(new Error('no space'), { code: 'ENOSPC' });
  };
  syncBuiltinESMExports();
}

async function train({ device, signal, ranks }: Together): Promise<void> {
  const step = compileStep(
    device,
    'small',
    (s: Trained, { slope, ...rates }: Inputs) => {
      const grads = Object.fromEntries(Object.entries(s.params).map(([name, w]) => [name, w.mul(slope).add(0.3)]));
      const { state, norm, skipped } = update(s, grads, adam, rates);
      return { ...state, metrics: { slope, norm, skipped } };
    },
    { accumulate: BATCHING.accumulate, ranks },
  );
  const { rank } = ranks ?? { rank: 0 };
  const job = {
    name: 'small',
    steps: Number(count),
    initial: async () => ({ net: await start(device, weights, { m: true, ema: true }) }),
    async advance(before: State, n: number) {
      if (n === 5) strike(device, rank);
      const { state: net, metrics } = await accumulated(
        before['net']!,
        turns(BATCHING, n, ranks),
        (s, { at, rates }) => step(s, { slope: Math.sin(at), lr: 0.1, decay: 0.5, count: n + 1, ...rates }),
        ranks && { ranks, accumulate: BATCHING.accumulate },
      );
      return { state: { net }, metrics };
    },
  };
  const { state, done } = await drive(job, {
    device,
    folder: join(out, 'small'),
    config: { job: 'small' },
    environment: {},
    saveEvery: 2,
    maxSkipped: 10,
    signal,
    ranks,
    onProgress: ({ step: n }) => console.error(`step ${n}`),
  });
  if (done && rank === 0) await saveTensors(join(out, 'weights.safetensors'), { ...state['net']!.params });
  freeTree(state);
  await step.free();
}

try {
  await together('stopped; the same command goes on', train);
} catch (error) {
  await fail(error);
}

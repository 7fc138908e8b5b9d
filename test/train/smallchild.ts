/**
 * A job of a moment, as the training commands drive theirs, on as many ranks as it is started with: `smallchild.ts OUT STEPS`. Rank 0
 * says every step, and writes OUT/weights.safetensors at the end.
 */
import { join } from 'node:path';
import process from 'node:process';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { host } from '../../engine/frontend/tree.ts';
import { open } from '../../engine/runtime/device.ts';
import { saveTensors } from '../../model/files/safetensors.ts';
import { accumulated, turns } from '../../train/loop/accumulate.ts';
import { drive } from '../../train/loop/loop.ts';
import { update, type Rates, type Trained } from '../../train/loop/optim.ts';
import { compileStep } from '../../train/loop/step.ts';
import { start } from '../../train/methods/jobs.ts';
import { Ranks } from '../../train/ranks/ranks.ts';

const [out, count] = process.argv.slice(2) as [string, string];
const BATCHING = { batch: 4, accumulate: 4 };
const adam = { lr: 0.1, beta1: 0.9, beta2: 0.99, eps: 1e-8, weightDecay: 0.1, clip: 0.5 };
const ranks = await Ranks.join();
const device = await open();

const wave = (k: number, shape: number[]) =>
  host(
    Float32Array.from({ length: shape.reduce((a, b) => a * b) }, (_, i) => Math.sin(i + 10 * k)),
    shape,
  );
const weights = {
  'a.weight': wave(0, [40, 16]),
  'b.weight': wave(1, [16, 8]),
  'b.bias': wave(2, [64]),
  c: wave(3, [3]),
};

interface Inputs extends Rates {
  slope: Tensor;
}
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
const { state } = await drive(
  {
    name: 'small',
    steps: Number(count),
    initial: async () => ({ net: await start(device, weights, { m: true, ema: true }) }),
    async advance(before, n) {
      const { state: net, metrics } = await accumulated(
        before['net']!,
        turns(BATCHING, n, ranks),
        (s, { at, rates }) => step(s, { slope: Math.sin(at), lr: 0.1, decay: 0.5, count: n + 1, ...rates }),
        ranks && { ranks, accumulate: BATCHING.accumulate },
      );
      return { state: { net }, metrics };
    },
  },
  {
    device,
    folder: join(out, 'small'),
    config: { job: 'small' },
    environment: {},
    saveEvery: 2,
    maxSkipped: 10,
    ranks,
    onProgress: ({ step: n }) => (!ranks || ranks.rank === 0) && console.error(`step ${n}`),
  },
);
if (!ranks || ranks.rank === 0) await saveTensors(join(out, 'weights.safetensors'), { ...state['net']!.params });
await ranks?.queue((mpi) => mpi.leave());
device.close();
process.exit(0);

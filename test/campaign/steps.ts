/** A training run without a device, to be killed: every step's number depends on all before it. `steps.ts FOLDER`. */
import type { Device } from '../../engine/runtime/device.ts';
import { numel } from '../../kernels/kernel.ts';
import { drive } from '../../train/loop/loop.ts';

const tensor = (data: Float32Array, shape: readonly number[]) => ({
  data,
  shape,
  dtype: 'f32',
  buffer: data,
  offset: 0,
  read: async () => data,
  free() {},
});
/** Keeps tensors in host memory. */
const memory = {
  tensor,
  empty: (shape: readonly number[]) => tensor(new Float32Array(numel(shape)), shape),
  write: (buffer: unknown, offset: number, data: Float32Array) => (buffer as Float32Array).set(data, offset / 4),
  idle: async () => {},
} as unknown as Device;

const SIZE = 2 ** 16;
const made = (x: Float32Array) => tensor(x, [SIZE]) as never;

await drive(
  {
    name: 'counter',
    steps: 60,
    initial: async () => ({ net: { params: { x: made(new Float32Array(SIZE)) }, v: {}, ema: {} } }),
    async advance(state, step) {
      const x = (await state['net']!.params['x']!.read()).map((v, i) => Math.fround(v * 0.9 + step + i));
      await new Promise((done) => setTimeout(done, 8));
      return {
        state: { net: { params: { x: made(x) }, v: {}, ema: { x: made(x) } } },
        metrics: Promise.resolve({ x: x[step]! }),
      };
    },
    samples: { every: 3, draw: async (state) => new Uint8Array((await state['net']!.params['x']!.read()).buffer) },
    best: {
      every: 4,
      from: 0,
      net: 'net',
      score: async (state) => ({ score: -(await state['net']!.params['x']!.read())[0]! }),
    },
  },
  { device: memory, folder: process.argv[2]!, config: { seed: 1 }, environment: {}, saveEvery: 2, maxSkipped: 3 },
);

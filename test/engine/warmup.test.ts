/**
 * Kernels compiled before their first run, by one device or several: the same results, and a device that cannot be opened only costs time.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { openAdapter } from '../../engine/host/adapter.ts';
import { pause } from '../../engine/host/runtime.ts';
import { pipelineOf } from '../../engine/runtime/pipeline.ts';
import { Warmup, type Kernel } from '../../engine/runtime/warmup.ts';
import { shader } from '../../kernels/kernel.ts';

const { device: gpu, another } = await openAdapter();

/** Kernels that no cache knows: `terms` loads in a text take a driver that compiles at the first launch some time. */
async function unknown(count: number, terms: number): Promise<Kernel[]> {
  const salt = (Date.now() % 1e6) + (performance.now() % 1);
  return Promise.all(
    Array.from({ length: count }, async (_, k) => {
      const sums = Array.from(
        { length: terms },
        (_, i) => `s = s * ${(salt + k + i).toFixed(6)} + xs[(li * ${i + 3}u + p.n) % 64u];`,
      );
      const wgsl = shader({
        params: ['n'],
        workgroup: [64, 1, 1],
        main: `var s = 0.0;\n${sums.join('\n')}\nys[li] = s;`,
        buffers: [
          { name: 'xs', type: 'f32', access: 'read' },
          { name: 'ys', type: 'f32', access: 'read_write' },
        ],
      });
      const pipeline = await pipelineOf(gpu, { wgsl });
      return { dispatch: { wgsl, bind: [0, 1] }, pipeline };
    }),
  );
}

test('every kernel is launched once, on nothing; what takes long is shared with another device', async () => {
  let opened = 0;
  const warmup = new Warmup(async () => {
    opened++;
    return another ? another() : (await openAdapter()).device;
  }, 2);
  const kernels = await unknown(8, 50);
  gpu.pushErrorScope('validation');
  await warmup.compile(gpu, [...kernels, ...kernels]);
  assert.is(await gpu.popErrorScope(), null);
  if (another) assert.is(opened, 1); // other drivers have compiled everything before
  const nothing = undefined as unknown as GPUComputePipeline;
  await warmup.compile(
    gpu,
    kernels.map(({ dispatch }) => ({ dispatch, pipeline: nothing })),
  ); // would throw if it launched one
  warmup.close();
});

test('without another device all is compiled by the first', async () => {
  const warmup = new Warmup(async () => {
    await pause(1);
    throw new Error('no more devices');
  }, 4);
  await warmup.compile(gpu, await unknown(3, 40));
  warmup.close();
});

test.after(() => gpu.destroy());
test.run();

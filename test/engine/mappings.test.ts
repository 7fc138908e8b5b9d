/** What a process holds of its driver does not grow with the kernels it has compiled, nor with the runs of a program. */
import { readFileSync } from 'node:fs';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { open } from '../../engine/runtime/device.ts';
import { pipelineOf } from '../../engine/runtime/pipeline.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { shader } from '../../kernels/kernel.ts';

const device = await open();
/** Mesa's driver on the CPU maps memory for each bind group, and for those it will have room for; Linux ends a process at 65530. */
const mapped = process.platform === 'linux' && /llvmpipe/i.test(device.info.name);
const mappings = (): number => (mapped ? readFileSync('/proc/self/maps', 'latin1').split('\n').length : 0);

test('kernels with as many buffers share a layout, whatever these hold', async () => {
  let layouts = 0;
  const create = device.gpu.createBindGroupLayout.bind(device.gpu);
  device.gpu.createBindGroupLayout = (descriptor) => {
    layouts++;
    return create(descriptor);
  };
  const before = mappings();
  const uniform = device.uniforms(256);
  const buffer = device.buffer(256);
  const groups: GPUBindGroup[] = [];
  for (let n = 0; n < 24; n++) {
    const type = n % 2 ? 'f32' : 'vec4f';
    const wgsl = shader({
      params: Array.from({ length: 1 + 4 * n }, (_, i) => `n${i}`),
      workgroup: [1, 1, 1],
      main: `ys[li] = xs[p.n${4 * n}] + xs[li];`,
      buffers: [
        { name: 'xs', type, access: 'read' },
        { name: 'ys', type, access: 'read_write' },
      ],
    });
    const pipeline = await pipelineOf(device.gpu, { wgsl });
    const entries = [uniform, buffer, device.buffer(256)].map((b, binding) => ({ binding, resource: { buffer: b } }));
    groups.push(device.gpu.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }));
  }
  device.check();
  assert.is(groups.length, 24);
  assert.is(layouts, 1);
  if (mapped) assert.ok(mappings() - before < 500, `${mappings() - before} more mappings`); // a layout each were 4000
});

test('runs on ever new buffers leave no bind groups behind', async () => {
  const sums = device.compile((x: Tensor) => {
    let y = x;
    for (let i = 0; i < 30; i++) y = y.matmul(x).softmax();
    return y;
  });
  for (let i = 0; i < 700; i++) {
    const x = device.tensor(new Float32Array(16).fill(i), [4, 4]);
    await sums(x);
    x.free();
  }
  await device.idle();
  assert.ok(device.counters.bindGroups > 40_000, `${device.counters.bindGroups} bind groups were made`);
  if (mapped) assert.ok(mappings() < 32_000, `${mappings()} mappings`);
});

test.run();

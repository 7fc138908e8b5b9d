/** A command whose kernel runs for minutes: it fails, or waits for its result. Run in a process of its own; says `queued` first. */
import process from 'node:process';
import { fail } from '../../cli/common/errors.ts';
import { orLeave, session } from '../../cli/common/session.ts';

const LONG = `@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  var s = y[id.x];
  for (var i = 0u; i < 2000000000u; i++) { s = fract(s * 1.01 + 0.37); }
  y[id.x] = s;
}`;

try {
  await session('stopped', async ({ device, signal }) => {
    const buffer = device.buffer(4 * 4096);
    const pipeline = await device.pipeline(LONG, 'long');
    const encoder = device.gpu.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(
      0,
      device.gpu.createBindGroup({
        layout: pipeline.getBindGroupLayout(0),
        entries: [device.uniforms(16), buffer].map((each, binding) => ({ binding, resource: { buffer: each } })),
      }),
    );
    pass.dispatchWorkgroups(64);
    pass.end();
    device.gpu.queue.submit([encoder.finish()]);
    setTimeout(() => console.error('queued'), 500);
    const read = device.readBuffer(buffer, 0, 4);
    if (process.argv[2] === 'wait') await orLeave(signal, read, async () => {});
    read.catch(() => {});
    await new Promise((done) => setTimeout(done, 600));
    throw new Error('something else is wrong');
  });
} catch (error) {
  await fail(error);
}

/** Packed matrices as tensors of a device: a layer with an adapter and its gradient, in windows too, and what is refused. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { vjp } from '../../engine/frontend/autodiff.ts';
import { linear } from '../../engine/frontend/functional.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { host } from '../../engine/frontend/tree.ts';
import { open, type Device } from '../../engine/runtime/device.ts';
import { unpack } from '../../model/packed.ts';

const whole = await open();
/** The same device with bindings smaller than a matrix. */
const narrow = Object.assign(Object.create(whole) as Device, { caps: { ...whole.caps, maxBindingBytes: 4096 } });
const [M, N, K, R] = [5, 24, 256, 3];

const noise = (n: number): Float32Array => Float32Array.from({ length: n }, (_, i) => Math.sin(1.7 * i * i + i));
const bytes = Uint8Array.from({ length: 34 * ((N * K) / 32) }, (_, i) =>
  i % 34 === 0 ? 0 : i % 34 === 1 ? 0x20 : (i * 73) & 255,
);

function layer(x: Tensor, w: Tensor, a: Tensor, b: Tensor, dy: Tensor): { y: Tensor; dx: Tensor; da: Tensor } {
  const y = linear(x, w).add(linear(linear(x, a).mul(0.5), b));
  const { x: dx, a: da } = vjp(y, dy, { x, a });
  return { y, dx, da };
}

test('a layer on packed weights is the layer on their values, adapter and gradients too', async () => {
  const rest = [noise(R * K), noise(N * R), noise(M * N)] as const;
  const [x, a, b, dy] = [
    host(noise(M * K), [M, K]),
    host(rest[0], [R, K]),
    host(rest[1], [N, R]),
    host(rest[2], [M, N]),
  ];
  for (const device of [whole, narrow]) {
    const run = device.compile(layer);
    const plain = await run(x, device.tensor(unpack('q8_0', bytes), [N, K]), a, b, dy);
    const want = await Promise.all([plain.y.read(), plain.dx.read(), plain.da.read()]);
    const w = device.tensor(bytes, [N, K], 'q8_0');
    assert.is(w.bytes, bytes.length);
    const packed = await run(x, w, a, b, dy);
    const got = await Promise.all([packed.y.read(), packed.dx.read(), packed.da.read()]);
    for (const [i, values] of want.entries()) {
      const size = values.reduce((m, v) => Math.max(m, Math.abs(v)), 0);
      for (const [at, v] of values.entries())
        assert.ok(Math.abs(v - got[i]![at]!) <= 1e-5 * size, `${i}[${at}]: ${got[i]![at]}, expected ${v}`);
    }
    await run.free();
  }
});

test('what packed matrices are not for is refused in one line', async () => {
  const w = whole.tensor(bytes, [N, K], 'q8_0');
  const refused = async (fn: (w: Tensor) => Tensor, why: RegExp) => {
    try {
      await whole.compile(fn)(w);
    } catch (error) {
      assert.match((error as Error).message, why);
      return;
    }
    assert.unreachable(String(why));
  };
  await refused((t) => t.add(1), /q8_0 is packed: only matmul reads it/);
  await refused((t) => t.slice(0, 0, 2), /q8_0 is packed: only matmul reads it/);
  await refused((t) => t.cast('f32'), /q8_0 is packed: only matmul reads it/);
  assert.throws(() => whole.tensor(bytes, [N * 2, K / 2 - 8], 'q8_0'), /rows of whole blocks of 32/);
  assert.throws(() => whole.tensor(bytes.subarray(1), [N, K], 'q8_0'), /bytes do not fill q8_0/);
  assert.throws(() => whole.tensor(noise(N * K), [N, K], 'q8_0' as 'f32'), /bytes do not fill|takes its bits/);
});

test.run();

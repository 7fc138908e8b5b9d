/**
 * Under a lowered binding limit every kernel gives the numbers that it gives without
 * it, to the bit; what cannot be bound is refused in one line.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { vjp } from '../../engine/frontend/autodiff.ts';
import { open, type Device } from '../../engine/runtime/device.ts';
import { gather } from '../../engine/frontend/functional.ts';
import type { NDArray } from '../../engine/runtime/ndarray.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { flatten, host, type HostTensor } from '../../engine/frontend/tree.ts';
import { numel, storageBytes } from '../../kernels/kernel.ts';
import { ditConfig } from '../../model/config.ts';
import { Scope, type Params } from '../../model/params.ts';
import { block, blockSpecs, type BlockInput } from '../../model/wan/block.ts';
import { noise, scrambled } from '../model/tiny.ts';

const device = await open();

/** The same device with a lower limit. */
function tight(maxBindingBytes: number, maxStorageBuffers = device.caps.maxStorageBuffers): Device {
  return Object.assign(Object.create(device) as Device, {
    caps: { ...device.caps, maxBindingBytes, maxStorageBuffers },
  });
}

async function run(
  on: Device,
  fn: (...args: never[]) => unknown,
  args: readonly unknown[],
): Promise<{ numbers: Float32Array[]; windows: number }> {
  const program = on.compile(fn as (...args: unknown[]) => unknown);
  const { leaves } = flatten<NDArray>(await program(...(args as never[])));
  const numbers: Float32Array[] = [];
  for (const t of leaves) numbers.push(await t.read());
  const { widest } = await program.plan(...(args as never[]));
  await program.free();
  return { numbers, windows: widest!.bindings };
}

async function same(fn: (...args: never[]) => unknown, args: readonly unknown[], limit: number): Promise<void> {
  const largest = Math.max(...flatten<HostTensor>(args).leaves.map((t) => storageBytes(t.dtype, numel(t.shape))));
  assert.ok(largest > limit, `an argument of ${largest} bytes is over the limit`);
  const want = await run(device, fn, args);
  const got = await run(tight(limit), fn, args);
  assert.ok(got.windows > want.windows);
  want.numbers.forEach((w, i) => assert.equal(got.numbers[i], w, `result ${i}`));
}

test('a Wan block and its gradients', async () => {
  const config = ditConfig({
    model_type: 't2v',
    patch_size: [1, 2, 2],
    text_len: 8,
    in_dim: 16,
    out_dim: 16,
    dim: 32,
    ffn_dim: 64,
    freq_dim: 32,
    text_dim: 16,
    num_heads: 2,
    num_layers: 1,
  });
  const tokens = 40; // of 128 bytes: five windows of 1 KiB
  const x = noise('x', [1, tokens, config.dim]);
  const table = noise('table', [1, tokens, config.dim / config.num_heads]);
  const input = {
    e0: noise('e0', [1, 6, config.dim]),
    text: noise('text', [1, config.text_len, config.dim]),
    tables: { cos: table, sin: table },
  };
  await same(
    (params: Params, h: Tensor, given: BlockInput, dy: Tensor) => {
      const y = block(new Scope(params), config, h, given, () => {});
      return [y, vjp(y, dy, { params, h })];
    },
    [scrambled(blockSpecs(config)), x, input, noise('dy', x.shape)],
    device.caps.maxStorageBuffers < 16 ? 6144 : 4096,
  );
});

test('rows of an embedding table, and their gradient', async () => {
  const ids = host(Int32Array.of(0, 99, 40, 99, 7), [5], 'i32');
  await same(
    (table: Tensor, i: Tensor) => {
      const rows = gather(table, i);
      return [rows, vjp(rows, rows.mul(2), { table })];
    },
    [noise('table', [100, 12]), ids],
    1024,
  );
});

test('reductions, views and pointwise code', async () => {
  await same(
    (x: Tensor, y: Tensor) => [
      x.sum([1]),
      x.sum([0]),
      x.permute([1, 0]).mul(y).softmax(),
      x.slice(0, 3, 40).exp(),
      x.mul(x).sum([0, 1]),
    ],
    [noise('x', [50, 30]), noise('y', [30, 50])],
    2048,
  );
});

test('a row that is added to a wide tensor is not written as wide as that: it would take as many bindings', async () => {
  const program = tight(4096, 12).compile((x: Tensor, row: Tensor) => x.add(row));
  const { kernels, widest, memory } = await program.plan(noise('x', [80, 64]), noise('row', [64]));
  assert.equal([kernels, widest!.bindings], [1, 5 + 1 + 5]);
  assert.equal(memory.arenas, []);
});

test('more bindings than there are: one line', async () => {
  const program = tight(1024, 8).compile((x: Tensor, y: Tensor) => x.matmul(y), { name: 'product' });
  const message = await program.plan(noise('x', [64, 64]), noise('y', [64, 64])).then(
    () => '',
    (e: Error) => e.message,
  );
  assert.match(
    message,
    /^\[memory\] product: matmul .* takes \d+ bindings, this adapter has 8 of .* each; use a smaller batch or size \(/,
  );
});

test.run();

/** Operands out of f16's range are counted and named, also where what comes after them is finite again. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { Ranges } from '../../engine/compiler/ranges.ts';
import { vjp } from '../../engine/frontend/autodiff.ts';
import { attention, linear } from '../../engine/frontend/functional.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { Device, open } from '../../engine/runtime/device.ts';

const plain = await open();
const UNIT = { operands: 'f16', M: 8, N: 8, K: 8, lanes: 32, multiple: 32, emulated: true } as const;
const emulated = Object.assign(Object.create(plain) as Device, {
  caps: { ...plain.caps, tier: 'tiled', subgroup: 0, units: [UNIT] },
});
const filled = (shape: readonly number[], of: (i: number) => number): HostTensor =>
  host(
    Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => of(i)),
    shape,
  );
const x = filled([32, 16], (i) => 1 + (i % 3));
const w = filled([16, 16], (i) => 0.1 + 0.01 * (i % 7));

/** What is found of each call with these arguments, and whether its results are finite. */
async function found(
  device: Device,
  fn: (...x: Tensor[]) => Tensor,
  calls: readonly (readonly HostTensor[])[],
): Promise<(Ranges & { finite: boolean })[]> {
  const told: Promise<Ranges>[] = [];
  const program = device.compile(fn, { operands: 'f16', name: 'network', onRanges: (r) => told.push(r) });
  const all: (Ranges & { finite: boolean })[] = [];
  for (const [i, call] of calls.entries()) {
    const numbers = await (await program(...call)).read();
    assert.is(told.length, i + 1);
    all.push({ ...(await told[i]!), finite: numbers.every(Number.isFinite) });
  }
  await program.free();
  return all;
}
const at = (factor: number): HostTensor => filled([1], () => factor);

if (plain.caps.f16) {
  test('an activation above 65504 that a later op makes finite again', async () => {
    const net = (x: Tensor, w: Tensor, f: Tensor) =>
      linear(
        linear(x, w)
          .mul(f.expand([32, 16]))
          .square(),
        w,
      ).tanh();
    const [good, bad] = await found(plain, net, [
      [x, w, at(1)],
      [x, w, at(100)],
    ]);
    assert.equal(good, { overflowed: 0, vanished: 0, finite: true });
    assert.is(`${bad!.overflowed} ${bad!.vanished} ${bad!.finite}`, '1 0 true');
    assert.match(
      bad!.first!,
      /^network: matmul reads an operand whose largest number is (Infinity|\d+) \(.*ranges\.test\.ts:\d+\)$/,
    );
  });

  test("cotangents of any size are in range, but for f32's own ends", async () => {
    const gradient = (x: Tensor, w: Tensor, f: Tensor) => vjp(linear(linear(x, w).tanh(), w), f.expand([32, 16]), w);
    const sizes = [1, 1e-25, 1e25, 0, 1e-36, Infinity, NaN];
    const all = await found(
      plain,
      gradient,
      sizes.map((f) => [x, w, at(f)]),
    );
    assert.equal(
      all.map((r) => `${r.overflowed > 0} ${r.vanished > 0}`),
      ['false false', 'false false', 'false false', 'false false', 'false true', 'true false', 'true false'],
    );
    assert.match(
      all[4]!.first!,
      /^network: the gradient of matmul is given a cotangent whose largest number is 1e-36 \(.*ranges\.test\.ts:\d+\)$/,
    );
  });

  test('queries that attention rounds on units', async () => {
    const [q, k] = [filled([1, 32, 1, 32], (i) => Math.sin(i)), filled([1, 32, 1, 32], (i) => Math.cos(i))];
    const mix = (q: Tensor, k: Tensor, f: Tensor) => attention(q.mul(f.expand(q.shape)), k, k);
    const [good, bad] = await found(emulated, mix, [
      [q, k, filled([1, 1, 1, 1], () => 1)],
      [q, k, filled([1, 1, 1, 1], () => 1e5)],
    ]);
    assert.is(good!.overflowed, 0);
    assert.ok(bad!.overflowed === 1 && bad!.first!.startsWith('network: attention reads'), bad!.first);
  });
}

test.after(() => plain.close());
test.run();

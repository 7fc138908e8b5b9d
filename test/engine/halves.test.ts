/** Weights stored as f16 or bf16: what is computed with them is f32 arithmetic on the rounded weights. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { vjp } from '../../engine/frontend/autodiff.ts';
import { Device, open } from '../../engine/runtime/device.ts';
import { attention, conv3d, gather, linear } from '../../engine/frontend/functional.ts';
import type { NDArray } from '../../engine/runtime/ndarray.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { fromBF16, fromF16, toBF16, toF16 } from '../../model/halves.ts';

const whole = await open();
/** The same adapter without half-precision arithmetic. */
const without = Object.assign(Object.create(whole) as Device, { caps: { ...whole.caps, f16: false } });
const wave = (n: number, step: number): Float32Array =>
  Float32Array.from({ length: n }, (_, i) => Math.sin(i * step + 0.3));

for (const [name, device, dtype] of [
  ['f16', whole, 'f16'],
  ['f16 without arithmetic in it', without, 'f16'],
  ['bf16', whole, 'bf16'],
  ['bf16 without f16', without, 'bf16'],
] as const) {
  test(`${name}: a linear layer, its gradient, reshaped, cast and combined`, async () => {
    const [convert, back] = dtype === 'f16' ? [toF16, fromF16] : [toBF16, fromBF16];
    for (const [rows, inputs, outputs] of [
      [5, 12, 20],
      [3, 7, 9],
    ] as const) {
      const x = device.tensor(wave(rows * inputs, 0.7), [rows, inputs]);
      const bits = convert(wave(outputs * inputs, 0.37));
      const run = device.compile((x: Tensor, w: Tensor) => {
        const y = linear(x, w.reshape([outputs, inputs]));
        const loss = y.square().mean();
        return {
          y,
          dx: vjp(loss, loss.like(1), x),
          wide: w.cast('f32'),
          sum: w.reshape([outputs, inputs]).mul(x.slice(0, 0, 1)),
        };
      });
      const half = await run(x, device.tensor(bits, [outputs, 1, inputs], dtype));
      const got = await Promise.all(Object.values(half).map((t) => t.read()));
      const full = await run(x, device.tensor(back(bits), [outputs, 1, inputs]));
      for (const [i, want] of (await Promise.all(Object.values(full).map((t) => t.read()))).entries()) {
        if (i === 2) assert.equal(got[i], back(bits)); // exact: a cast
        want.forEach((v, j) =>
          assert.ok(
            Math.abs(v - got[i]![j]!) <= 1e-5 * (1 + Math.abs(v)),
            `${Object.keys(full)[i]} ${j}: ${got[i]![j]} for ${v}`,
          ),
        );
      }
      await run.free();
    }
  });
}

test('ops whose kernels read f32 take halves all the same', async () => {
  const fn = (x: Tensor, ids: Tensor) => {
    const [video, heads] = [x.reshape([1, 2, 2, 3, 4]), x.reshape([1, 4, 2, 6])];
    const y = {
      conv: conv3d(video, video.slice(4, 0, 2)),
      attention: attention(heads, heads, heads),
      sum: x.sum([0]),
      largest: x.amax([1]),
      softmax: x.softmax(),
      norm: x.layerNorm(),
      rms: x.rmsNorm(),
      rows: gather(x, ids),
      ...(whole.caps.f16 && { inTurn: x.cast('f32').mul(3).cast('f16').cast('f32').sum([1]) }),
    };
    const computes = x.dtype === 'f32' || (x.dtype === 'f16' && whole.caps.f16); // its gradient is of its type
    return { ...y, ...(computes && { slope: vjp(y.conv, y.conv, x).cast('f32') }) };
  };
  const numbers = wave(48, 0.7);
  const ids = whole.tensor(Int32Array.of(3, 0), [2]);
  for (const [dtype, bits, back] of [
    ['f16', toF16(numbers), fromF16],
    ['bf16', toBF16(numbers), fromBF16],
  ] as const) {
    const got: Record<string, NDArray | undefined> = await whole.compile(fn)(whole.tensor(bits, [8, 6], dtype), ids);
    const want = await whole.compile(fn)(whole.tensor(back(bits), [8, 6]), ids);
    for (const name of Object.keys(got)) {
      const [a, b] = [await got[name]!.read(), await want[name as 'conv']!.read()];
      b.forEach((v, i) =>
        assert.ok(Math.abs(a[i]! - v) <= 2e-3 * (1 + Math.abs(v)), `${name} of ${dtype} at ${i}: ${a[i]} for ${v}`),
      );
    }
  }
});

test('what cannot be computed in bf16 is said', async () => {
  const w = whole.tensor(new Uint16Array(4), [4], 'bf16');
  const refuse = async (fn: (w: Tensor) => Tensor): Promise<string> =>
    whole
      .compile(fn)(w)
      .then(
        () => 'nothing',
        (e: Error) => e.message,
      );
  assert.match(await refuse((x) => x.exp()), /\[exp\] expected f32 or f16, got bf16/);
  assert.match(await refuse((x) => x.cast('f32').cast('bf16')), /bf16 is for storage/);
});

test.run();

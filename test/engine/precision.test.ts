/** Gradients of products with f16 operands: as exact as half precision allows, of cotangents of any size, on units and without. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { vjp } from '../../engine/frontend/autodiff.ts';
import { attention, conv3d, linear } from '../../engine/frontend/functional.ts';
import { checkpoint } from '../../engine/frontend/remat.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { Device, open } from '../../engine/runtime/device.ts';

const plain = await open();
const UNIT = { operands: 'f16', M: 8, N: 8, K: 8, lanes: 32, multiple: 32, emulated: true } as const;
const emulated = Object.assign(Object.create(plain) as Device, {
  caps: { ...plain.caps, tier: 'tiled', subgroup: 0, units: [UNIT] },
});
const wave = (shape: readonly number[], step: number, scale = 1): HostTensor =>
  host(
    Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => scale * Math.sin(i * step + 0.3)),
    shape,
  );

type Gradients = Record<string, Tensor>;
type Case = [name: string, inputs: HostTensor[], fn: (dy: Tensor, ...x: Tensor[]) => Gradients];
const CASES: readonly Case[] = [
  [
    'linear',
    [wave([24, 20], 0.7), wave([24, 36], 0.9), wave([20, 36], 0.37)],
    (dy, x, w) => {
      const [dx, dw] = vjp(linear(x!, w!), dy, [x!, w!]) as [Tensor, Tensor];
      return { dx, dw };
    },
  ],
  [
    'linear, made again',
    [wave([24, 20], 0.7), wave([24, 36], 0.9), wave([20, 36], 0.37)],
    (dy, x, w) => {
      const block = checkpoint((a: Tensor) => linear(linear(a, w!).tanh(), w!.permute([1, 0])));
      const [dx, dw] = vjp(linear(block(x!), w!), dy, [x!, w!]) as [Tensor, Tensor];
      return { dx, dw };
    },
  ],
  [
    'attention',
    [wave([1, 32, 1, 32], 0.7), wave([1, 32, 1, 32], 0.9), wave([1, 32, 1, 32], 0.37), wave([1, 32, 1, 32], 0.23)],
    (dy, q, k, v) => {
      const [dq, dk, dv] = vjp(attention(q!, k!, v!), dy, [q!, k!, v!]) as [Tensor, Tensor, Tensor];
      return { dq, dk, dv };
    },
  ],
  [
    'convolution',
    [wave([1, 32, 2, 4, 4], 0.7), wave([1, 32, 2, 4, 4], 0.9), wave([32, 32, 1, 3, 3], 0.37)],
    (dy, x, w) => {
      const y = conv3d(x!, w!, undefined, { padLo: [0, 1, 1] });
      const [dx, dw] = vjp(y, dy, [x!, w!]) as [Tensor, Tensor];
      return { dx, dw };
    },
  ],
];

/** Of a cotangent multiplied by each of the scales in turn. */
async function gradients(
  device: Device,
  [name, [dy, ...x], fn]: Case,
  operands: 'f16' | 'f32',
  scales: readonly number[] = [1],
): Promise<Record<string, Float32Array>[]> {
  const program = device.compile((d: Tensor, a: Tensor[]) => fn(d, ...a), { operands, name });
  const all: Record<string, Float32Array>[] = [];
  for (const scale of scales) {
    const out = await program(times(scale, dy!), x);
    const read = await Promise.all(Object.entries(out).map(async ([key, t]) => [key, await t.read()] as const));
    all.push(Object.fromEntries(read) as Record<string, Float32Array>);
  }
  await program.free();
  return all;
}
const times = (scale: number, { data, shape }: HostTensor): HostTensor =>
  host(
    (data as Float32Array).map((v) => scale * v),
    shape,
  );
const SCALES = [2 ** -40, 2 ** 40];
const distance = (a: Float32Array, b: Float32Array): number =>
  Math.hypot(...a.map((v, i) => v - b[i]!)) / Math.hypot(...b);

if (plain.caps.f16)
  for (const [on, device] of [
    ['f16', plain],
    ['emulated units', emulated],
  ] as const)
    for (const each of CASES) {
      test(`${each[0]} on ${on}: within half precision of f32, and the same of a cotangent 2^40 as large or as small`, async () => {
        const [want] = await gradients(plain, each, 'f32');
        const [got, ...far] = await gradients(device, each, 'f16', [1, ...SCALES]);
        for (const [name, numbers] of Object.entries(want!)) {
          const error = distance(got![name]!, numbers);
          assert.ok(error < 2e-3, `${name} is ${error} away`);
          if (device === emulated) assert.ok(error > 1e-6, `${name} was not rounded: ${error}`);
          far.forEach((other, i) =>
            assert.equal(
              other[name],
              got![name]!.map((v) => SCALES[i]! * v),
              name,
            ),
          );
        }
      });
    }

test.after(() => plain.close());
test.run();

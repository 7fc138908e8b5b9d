/** Convolution and both gradients against float64 loops: odd sizes, strides, asymmetric pads, every tier. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { f32bits, numel, type Caps, type Epilogue, type Launch } from '../../kernels/kernel.ts';
import { conv3d, conv3dInput, conv3dWeight, type Conv3dProblem, type Triple } from '../../kernels/conv3d/index.ts';
import { unitName } from '../../kernels/mma.ts';
import type { Tuning } from '../../kernels/tuning.ts';
import { fromF16, toF16 } from '../../model/halves.ts';
import { launch, openTest, validate } from './harness.ts';
import { emulated, UNITS } from './units.ts';

const { caps } = await openTest();
const tiers: [string, Caps][] = [
  ['scalar', { ...caps, tier: 'scalar' }],
  ['scalar without subgroups', { ...caps, tier: 'scalar', subgroup: 0 }],
  ['tiled', { ...caps, tier: 'tiled' }],
];
const noise = (n: number, seed: number) =>
  Float32Array.from({ length: n }, (_, i) => (Math.sin(i * 12.9898 + seed) * 43758.5453) % 1);

type Case = [
  name: string,
  N: number,
  C: number,
  O: number,
  size: Triple,
  kernel: Triple,
  stride: Triple,
  padLo: Triple,
  padHi: Triple,
];
const CASES: Case[] = [
  ['causal 3x3x3', 2, 3, 18, [3, 5, 7], [3, 3, 3], [1, 1, 1], [2, 1, 1], [0, 1, 1]],
  ['spatial stride 2, pad (0, 1)', 2, 5, 4, [2, 8, 9], [1, 3, 3], [1, 2, 2], [0, 0, 0], [0, 1, 1]],
  ['temporal stride 2', 1, 9, 17, [5, 3, 6], [3, 1, 1], [2, 1, 1], [0, 0, 0], [0, 0, 0]],
  ['patches 1x2x2', 1, 6, 20, [2, 6, 10], [1, 2, 2], [1, 2, 2], [0, 0, 0], [0, 0, 0]],
  ['1x1x1', 2, 19, 33, [2, 3, 11], [1, 1, 1], [1, 1, 1], [0, 0, 0], [0, 0, 0]],
  ['stride 2 everywhere, crooked pads', 1, 2, 3, [4, 7, 5], [3, 3, 3], [2, 2, 2], [1, 0, 2], [1, 2, 0]],
  ['stride over unread rows', 1, 2, 2, [3, 5, 7], [1, 1, 1], [2, 2, 3], [0, 0, 0], [0, 0, 0]],
  ['split voxels', 2, 8, 16, [3, 8, 20], [3, 3, 3], [1, 1, 1], [2, 1, 1], [0, 1, 1]],
  ['whole rows in a subgroup', 2, 3, 6, [2, 3, 16], [3, 3, 3], [1, 1, 1], [2, 1, 1], [0, 1, 1]],
  ['more taps than bits of a word', 1, 4, 3, [2, 3, 14], [1, 2, 12], [1, 1, 1], [0, 1, 5], [0, 0, 6]],
  ['whole rows, longer out than in', 1, 3, 18, [2, 3, 12], [1, 3, 3], [1, 1, 1], [0, 1, 2], [0, 1, 2]],
];

function problemOf([, N, C, O, size, kernel, stride, padLo, padHi]: Case): Conv3dProblem {
  const out = [0, 1, 2].map(
    (d) => Math.floor((size[d]! + padLo[d]! + padHi[d]! - kernel[d]!) / stride[d]!) + 1,
  ) as unknown as Triple;
  return { N, C, O, in: size, out, kernel, stride, padLo, access: 'read' };
}

/** All three at once: walks every product of the convolution. */
function reference(q: Conv3dProblem, x: Float32Array, w: Float32Array, dy: Float32Array) {
  const [T, H, W] = q.in,
    [ot, oh, ow] = q.out,
    [kt, kh, kw] = q.kernel;
  const y = new Float64Array(dy.length),
    dx = new Float64Array(x.length),
    dw = new Float64Array(w.length);
  for (let n = 0; n < q.N; n++)
    for (let o = 0; o < q.O; o++)
      for (let c = 0; c < q.C; c++) {
        for (let k = 0; k < kt * kh * kw; k++) {
          const a = Math.floor(k / kh / kw),
            b = Math.floor(k / kw) % kh,
            e = k % kw;
          const wi = (o * q.C + c) * kt * kh * kw + k;
          for (let t = 0; t < ot; t++)
            for (let h = 0; h < oh; h++)
              for (let v = 0; v < ow; v++) {
                const it = t * q.stride[0] + a - q.padLo[0],
                  ih = h * q.stride[1] + b - q.padLo[1],
                  iw = v * q.stride[2] + e - q.padLo[2];
                if (it < 0 || it >= T || ih < 0 || ih >= H || iw < 0 || iw >= W) continue;
                const xi = (((n * q.C + c) * T + it) * H + ih) * W + iw;
                const yi = (((n * q.O + o) * ot + t) * oh + h) * ow + v;
                y[yi]! += x[xi]! * w[wi]!;
                dx[xi]! += dy[yi]! * w[wi]!;
                dw[wi]! += dy[yi]! * x[xi]!;
              }
        }
      }
  return { y, dx, dw };
}

async function check(l: Launch, inputs: Float32Array[], want: Float64Array, tolerance: number) {
  const label = l.dispatches.map((d) => d.label).join(' | ');
  const [out] = await launch(l, inputs, [4 * want.length]);
  const got = new Float32Array(out!);
  const scale = Math.sqrt(want.reduce((s, v) => s + v * v, 0) / want.length);
  for (let i = 0; i < want.length; i++) {
    assert.ok(
      Math.abs(got[i]! - want[i]!) <= tolerance * (scale + Math.abs(want[i]!)),
      `${label} [${i}]: ${got[i]} for ${want[i]}`,
    );
  }
  return got;
}

for (const c of CASES) {
  const q = problemOf(c);
  const x = noise(q.N * q.C * numel(q.in), 1),
    w = noise(q.O * q.C * numel(q.kernel), 2),
    dy = noise(q.N * q.O * numel(q.out), 3);
  const { y, dx, dw } = reference(q, x, w, dy);
  for (const [tier, cap] of tiers) {
    test(`${c[0]}, ${tier}`, async () => {
      const launches = [conv3d(cap, q), conv3dInput(cap, q), conv3dWeight(cap, q)];
      for (const l of launches) for (const d of l.dispatches) await validate(d.label, d.wgsl);
      await check(launches[0]!, [x, w], y, 1e-5);
      await check(launches[1]!, [dy, w], dx, 1e-5);
      const first = await check(launches[2]!, [x, dy], dw, 2e-5);
      if (launches[2]!.dispatches.length > 1) assert.equal(first, await check(launches[2]!, [x, dy], dw, 2e-5));
    });
  }
}

test('every tile of workgroup memory computes the same', async () => {
  const q = problemOf(['', 1, 5, 70, [2, 9, 11], [3, 3, 3], [1, 1, 1], [2, 1, 1], [0, 1, 1]]);
  const x = noise(q.N * q.C * numel(q.in), 1),
    w = noise(q.O * q.C * numel(q.kernel), 2),
    dy = noise(q.N * q.O * numel(q.out), 3);
  const { y, dx, dw } = reference(q, x, w, dy);
  const seen = new Set<string>();
  for (let i = 0; i < 8; i++) {
    const tuning: Tuning = {
      find: ({ family, options }) => (family.startsWith('conv3d') ? (options()[i] as never) : undefined),
    };
    const on: Caps = { ...caps, tier: 'tiled', subgroup: 32, maxInvocations: 256, maxWorkgroupBytes: 32768, tuning };
    for (const [l, a, b, want] of [
      [conv3d(on, q), x, w, y],
      [conv3dInput(on, q), dy, w, dx],
      [conv3dWeight(on, q), x, dy, dw],
    ] as const) {
      await validate(l.dispatches[0]!.label, l.dispatches[0]!.wgsl);
      await check(l, [a, b], want, 2e-5);
      seen.add(l.dispatches[0]!.label.split(' ')[2]!);
    }
  }
  assert.is(seen.size, 8);
});

test('tiles fit a device of 16 KiB of workgroup memory, and sums the registers of a small subgroup', () => {
  const q = problemOf(['', 1, 96, 96, [2, 9, 12], [3, 3, 3], [1, 1, 1], [2, 1, 1], [0, 1, 1]]);
  const tile = (c: Partial<Caps>) => conv3d({ ...caps, tier: 'tiled', subgroup: 32, ...c }, q).dispatches[0]!.label;
  assert.match(tile({ maxWorkgroupBytes: 32768 }), '96x128x16/12x8');
  assert.match(tile({ maxWorkgroupBytes: 16384 }), '96x64x16/8x4');
  assert.match(tile({ maxWorkgroupBytes: 32768, subgroup: 16 }), '96x64x16/8x4');
});

test('matrix units, emulated: operands that are halves give what f32 gives', async () => {
  for (const unit of [UNITS.nvidia, UNITS.intel, UNITS.apple])
    for (const c of [
      ['causal', 1, 20, 18, [3, 5, 7], [3, 3, 3], [1, 1, 1], [2, 1, 1], [0, 1, 1]],
      ['strided', 2, 17, 35, [2, 8, 9], [1, 3, 3], [1, 2, 2], [0, 0, 0], [0, 1, 1]],
    ] satisfies Case[]) {
      const on: Caps = { ...caps, tier: 'tiled', units: [emulated(unit)] };
      const q: Conv3dProblem = { ...problemOf(c), half: unit.operands === 'f16' };
      const [x, w, dy] = [q.N * q.C * numel(q.in), q.O * q.C * numel(q.kernel), q.N * q.O * numel(q.out)].map((n, i) =>
        fromF16(toF16(noise(n, i))),
      ) as [Float32Array, Float32Array, Float32Array];
      const want = reference(q, x, w, dy);
      for (const [l, a, b, right] of [
        [conv3d(on, q), x, w, want.y],
        [conv3dInput(on, q), dy, w, want.dx],
        [conv3dWeight(on, q), x, dy, want.dw],
      ] as const) {
        assert.match(
          l.dispatches[0]!.label,
          new RegExp(`^conv3d\\w* matrix ${unitName(emulated(unit))} (32x64x32/1x2|64x64x32/2x2|32x32x16/1x1)`),
        );
        assert.equal(await check(l, [a, b], right, 2e-5), await check(l, [a, b], right, 2e-5));
      }
    }
});

test('units serve halves and channels enough; every tile of theirs is valid under base limits', async () => {
  const q: Conv3dProblem = {
    ...problemOf(['', 1, 96, 96, [4, 20, 20], [3, 3, 3], [1, 1, 1], [2, 1, 1], [0, 1, 1]]),
    half: true,
  };
  const tier = (p: Partial<Conv3dProblem>) =>
    conv3d(
      { ...caps, tier: 'tiled', units: [UNITS.nvidia], maxInvocations: 1024, maxWorkgroupBytes: 49152 },
      { ...q, ...p },
    ).dispatches[0]!.label.split(' ')[1];
  assert.equal([tier({}), tier({ half: false }), tier({ O: 12 })], ['matrix', 'tiled', 'tiled']);
  for (const unit of Object.values(UNITS))
    for (let i = 0; i < 3; i++) {
      const tuning: Tuning = { find: ({ options }) => options().filter((o) => 'rows' in o)[i] as never };
      const on: Caps = {
        ...caps,
        tier: 'tiled',
        f16: true,
        units: [unit],
        maxInvocations: 256,
        maxWorkgroupBytes: 16384,
        tuning,
      };
      for (const d of [conv3d(on, q), conv3dInput(on, q), conv3dWeight(on, q)]
        .flatMap((l) => l.dispatches)
        .filter((l) => !l.label.startsWith('reduce'))) {
        assert.match(d.label, `matrix ${unitName(unit)}`);
        await validate(d.label, d.wgsl);
      }
    }
});

/** Bias by channel and a scale; the bias takes slot 3, behind the output, which the harness wants last. */
test('an epilogue on each of them', async () => {
  const q = problemOf(CASES[7]!);
  const x = noise(q.N * q.C * numel(q.in), 1),
    w = noise(q.O * q.C * numel(q.kernel), 2),
    dy = noise(q.N * q.O * numel(q.out), 3);
  const ref = reference(q, x, w, dy);
  for (const [, cap] of tiers) {
    for (const [make, a, b, want] of [
      [conv3d, x, w, ref.y],
      [conv3dInput, dy, w, ref.dx],
      [conv3dWeight, x, dy, ref.dw],
    ] as const) {
      const bias = noise(16, 4);
      const inner = want.length / (want === ref.dw ? 16 : 16 * q.N);
      const epilogue: Epilogue = {
        buffers: [{ name: 'bias', type: 'f32', access: 'read' }],
        params: [
          ['e_inner', inner],
          ['e_gain', f32bits(0.5)],
        ],
        body: () => '  return v * bitcast<f32>(p.e_gain) + bias[i / p.e_inner % 16u];',
      };
      const l = make(cap, { ...q, epilogue });
      const swapped = {
        ...l,
        dispatches: l.dispatches.map((d) => ({ ...d, bind: d.bind.map((s) => (s === 2 ? 3 : s === 3 ? 2 : s)) })),
      };
      await check(
        swapped,
        [a, b, bias],
        want.map((v, i) => v * 0.5 + bias[Math.floor(i / inner) % 16]!),
        2e-5,
      );
    }
  }
});

test.run();

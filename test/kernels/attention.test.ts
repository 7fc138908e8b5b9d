/** Attention and its gradient against float64: odd sizes, cross lengths, masked keys, every tier; same bits twice. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { Caps } from '../../kernels/kernel.ts';
import { attention, attentionGrad, type AttentionProblem } from '../../kernels/attention/index.ts';
import { fromF16, toF16 } from '../../model/halves.ts';
import { launch, openNull, openTest, validate } from './harness.ts';
import { emulated, UNITS } from './units.ts';

const { caps } = await openTest();
const TIERS: Record<string, Caps> = {
  scalar: caps,
  registers: { ...caps, subgroup: 0 },
  tiled: { ...caps, tier: 'tiled' },
};

function random(n: number, seed: number, scale = 1): Float32Array {
  let s = seed;
  return Float32Array.from(
    { length: n },
    () => scale * ((s = (Math.imul(s, 1664525) + 1013904223) >>> 0) / 2 ** 31 - 1),
  );
}

interface Size {
  B: number;
  N: number;
  L: number;
  H: number;
  D: number;
}

/** Everything in float64: o, lse, dq, dk, dv. */
function reference(
  { B, N, L, H, D }: Size,
  scale: number,
  q: Float32Array,
  k: Float32Array,
  v: Float32Array,
  dy: Float32Array,
  lengths?: Uint32Array,
) {
  const o = new Float64Array(q.length),
    lse = new Float64Array(B * H * N),
    dq = new Float64Array(q.length);
  const dk = new Float64Array(k.length),
    dv = new Float64Array(k.length);
  for (let b = 0; b < B; b++)
    for (let h = 0; h < H; h++)
      for (let n = 0; n < N; n++) {
        const len = lengths ? Math.min(lengths[b]!, L) : L,
          iq = ((b * N + n) * H + h) * D;
        const ik = (l: number) => ((b * L + l) * H + h) * D;
        if (!len) {
          lse[(b * H + h) * N + n] = -3.4e38;
          continue;
        }
        const s = Array.from({ length: len }, (_, l) => {
          let x = 0;
          for (let d = 0; d < D; d++) x += q[iq + d]! * k[ik(l) + d]!;
          return x * scale;
        });
        const top = Math.max(...s),
          total = s.reduce((a, x) => a + Math.exp(x - top), 0);
        const w = s.map((x) => Math.exp(x - top) / total);
        lse[(b * H + h) * N + n] = top + Math.log(total);
        let delta = 0;
        for (let d = 0; d < D; d++) {
          for (let l = 0; l < len; l++) o[iq + d]! += w[l]! * v[ik(l) + d]!;
          delta += o[iq + d]! * dy[iq + d]!;
        }
        for (let l = 0; l < len; l++) {
          let e = 0;
          for (let d = 0; d < D; d++) {
            e += dy[iq + d]! * v[ik(l) + d]!;
            dv[ik(l) + d]! += w[l]! * dy[iq + d]!;
          }
          const ds = w[l]! * (e - delta) * scale;
          for (let d = 0; d < D; d++) {
            dq[iq + d]! += ds * k[ik(l) + d]!;
            dk[ik(l) + d]! += ds * q[iq + d]!;
          }
        }
      }
  return { o, lse, dq, dk, dv };
}

function close(label: string, got: Float32Array, want: Float64Array, tolerance: number) {
  let largest = 1;
  for (const w of want) if (Math.abs(w) < 1e30) largest = Math.max(largest, Math.abs(w));
  for (let i = 0; i < want.length; i++) {
    const limit = Math.abs(want[i]!) > 1e30 ? 1e32 : tolerance * largest;
    if (!(Math.abs(got[i]! - want[i]!) <= limit))
      assert.unreachable(`${label} [${i}]: expected ${want[i]}, got ${got[i]}`);
  }
}

/** @param limit of o and of the gradients, in their largest number */
async function check(
  on: Caps,
  size: Size,
  lengths?: number[],
  spread = 1,
  half = false,
  limit = { o: 3e-6, grad: 1e-5 },
) {
  const { B, N, L, H, D } = size,
    scale = 1 / Math.sqrt(D);
  const made = [
    random(B * N * H * D, 3, spread),
    random(B * L * H * D, 5, spread),
    random(B * L * H * D, 7),
    random(B * N * H * D, 9),
  ];
  const [q, k, v, dy] = half ? made.map((x) => fromF16(toF16(x))) : made;
  const len = lengths && new Uint32Array(lengths);
  const want = reference(size, scale, q!, k!, v!, dy!, len);
  const p: AttentionProblem = { ...size, scale, half, lengths: !!len, access: Array(7).fill('read') };
  const twice = async (l: ReturnType<typeof attention>, inputs: (Float32Array | Uint32Array)[], bytes: number[]) => {
    const [a, b] = [await launch(l, inputs, bytes), await launch(l, inputs, bytes)];
    a.forEach((x, i) =>
      assert.equal(new Uint8Array(x), new Uint8Array(b[i]!), `${l.dispatches[0]!.label}: two runs differ`),
    );
    return a.map((x) => new Float32Array(x));
  };
  const more = len ? [len] : [];
  const f = attention(on, { ...p, access: p.access.slice(0, 3 + more.length) });
  const [o, lse] = await twice(f, [q!, k!, v!, ...more], [q!.byteLength, 4 * B * H * N]);
  close(`${f.dispatches[0]!.label} o`, o!, want.o, limit.o * spread);
  close(`${f.dispatches[0]!.label} lse`, lse!, want.lse, 3e-6);
  const g = attentionGrad(on, { ...p, access: p.access.slice(0, 6 + more.length) });
  const grads = await twice(g, [q!, k!, v!, o!, lse!, dy!, ...more], [q!.byteLength, k!.byteLength, k!.byteLength]);
  (['dq', 'dk', 'dv'] as const).forEach((n, i) =>
    close(`${g.dispatches[1]!.label} ${n}`, grads[i]!, want[n], limit.grad * spread),
  );
  return [...f.dispatches, ...g.dispatches].map((d) => d.label);
}

for (const [name, on] of Object.entries(TIERS)) {
  test(`${name}: self and cross attention`, async () => {
    await check(on, { B: 2, N: 40, L: 40, H: 2, D: 36 });
    await check(on, { B: 1, N: 37, L: 75, H: 3, D: 36 });
    await check(on, { B: 1, N: 70, L: 1, H: 1, D: 36 });
    await check(on, { B: 1, N: 37, L: 41, H: 2, D: 36 }, undefined, 8); // sharp: scores of ±100
  });
  test(`${name}: D not a multiple of 4, one query`, async () => {
    await check(on, { B: 2, N: 33, L: 19, H: 2, D: 7 });
    await check(on, { B: 1, N: 1, L: 35, H: 2, D: 7 });
  });
  test(`${name}: masked keys, and none left`, async () => {
    await check(on, { B: 4, N: 35, L: 40, H: 2, D: 36 }, [40, 17, 0, 99]);
  });
}

/** Operands are exact halves: what is left is the rounding of the weights to 11 bits. */
const HALF = { o: 5e-4, grad: 1e-3 };

test('matrix units, emulated: statistics as exact as in f32, results to the rounding of the weights', async () => {
  for (const [unit, how] of [
    [UNITS.nvidia, '16x16x16 f16 emulated 16x16/1'],
    [UNITS.intel, '8x16x16 f16 emulated 16x16/2'],
    [UNITS.apple, '8x8x8 f32 emulated 16x16/2'],
  ] as const) {
    const on: Caps = { ...caps, tier: 'tiled', units: [emulated(unit)] };
    const half = unit.operands === 'f16';
    const limits = half ? HALF : undefined; // f32 units keep what f32 keeps
    const size = { B: 2, N: 19, L: 37, H: 2, D: 35 };
    const labels = await check(on, size, [37, 18], 8, half, limits); // sharp: scores of ±100, so that maxima grow and sums are rescaled
    assert.is(labels.filter((l) => l.includes(`matrix ${how}`)).length, 3, labels.join('; '));
    await check(on, { ...size, N: 26 }, [0, 99], 1, half, limits);
  }
});

test('matrix units serve halves of 32 to 128 a head, and rows enough', () => {
  const on: Caps = { ...caps, tier: 'tiled', units: [UNITS.nvidia], maxInvocations: 1024, maxWorkgroupBytes: 49152 };
  const tier = (p: Partial<AttentionProblem>) => {
    const all = {
      B: 1,
      N: 4096,
      L: 512,
      H: 12,
      D: 128,
      scale: 1,
      lengths: false,
      half: true,
      access: Array(6).fill('read'),
      ...p,
    };
    return [attention(on, all), attentionGrad(on, all)]
      .flatMap((l) => l.dispatches)
      .map((d) => /(\w+) (matrix|tiled).* (\d+x\d+(\/\d)?) /.exec(d.label))
      .filter((m) => m !== null)
      .map((m) => `${m[2]} ${m[3]}`);
  };
  assert.equal(tier({}), ['matrix 64x32/4', 'matrix 32x32/2', 'matrix 32x16/2']);
  assert.equal(tier({ D: 64 }), ['matrix 64x32/4', 'matrix 64x32/4', 'matrix 32x32/2']);
  for (const p of [{ half: false }, { D: 16 }, { D: 160 }, { N: 8, L: 8 }])
    assert.equal(tier(p), ['tiled 32x32', 'tiled 32x32', 'tiled 32x32'], JSON.stringify(p));
});

test('all WGSL is valid under base limits', async () => {
  const base: Caps = {
    ...(await openNull()).caps,
    f16: true,
    maxInvocations: 256,
    maxWorkgroupBytes: 16384,
    maxStorageBuffers: 8,
  };
  const matrix = Object.values(UNITS).map((unit) => ({ tier: 'tiled' as const, subgroup: unit.lanes, units: [unit] }));
  for (const on of [
    { tier: 'tiled' as const, subgroup: 32 },
    ...matrix,
    ...[0, 4, 8, 16, 32].map((subgroup) => ({ tier: 'scalar' as const, subgroup })),
  ]) {
    for (const D of [4, 128, 30, 50])
      for (const lengths of [false, true])
        for (const access of ['read', 'read_write'] as const) {
          const p: AttentionProblem = {
            B: 2,
            N: 100,
            L: 77,
            H: 4,
            D,
            scale: 1,
            lengths,
            half: true,
            access: Array(6 + +lengths).fill(access),
          };
          const forward = attention({ ...base, ...on }, { ...p, access: p.access.slice(3) });
          const all = [...forward.dispatches, ...attentionGrad({ ...base, ...on }, p).dispatches];
          for (const d of all) {
            assert.ok(d.bind.length <= base.maxStorageBuffers, d.label);
            await validate(d.label, d.wgsl);
          }
        }
  }
});

test.run();

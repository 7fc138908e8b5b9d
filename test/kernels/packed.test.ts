/**
 * Products with packed matrices against their values on the host: every type, forward
 * and towards x, every tier, whole numbers of rows and not.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { storageBytes, type Caps } from '../../kernels/kernel.ts';
import { matmul, type MatmulProblem } from '../../kernels/matmul/index.ts';
import { BLOCKS, blockOf, fp8Of, type BlockType, type Packed } from '../../kernels/packed.ts';
import { unpack } from '../../model/packed.ts';
import { launch, openTest, validate } from './harness.ts';

const { caps } = await openTest();
const TYPES: readonly Packed[] = [
  ...(Object.keys(BLOCKS) as BlockType[]),
  'f8_e4m3',
  'f8_e5m2',
  'f8_e4m3/512',
  'f8_e4m3/64',
  'f8_e5m2/4',
];

/** Bytes that decide themselves; halves and scales are finite and neither tiny nor huge. */
function blocks(dtype: Packed, count: number): Uint8Array {
  let s = 5;
  const next = () => (s = (Math.imul(s, 1664525) + 1013904223) >>> 0) >>> 24;
  const bytes = Uint8Array.from({ length: storageBytes(dtype, count) }, next);
  const { bytes: size } = blockOf(dtype);
  const eight = fp8Of(dtype);
  if (eight) for (const [i, b] of bytes.entries()) bytes[i] = b & 0xbf; // below 2
  if (eight && !eight.run) return bytes;
  const halves = { q6_k: [208], q3_k: [108], q2_k: [80, 82] }[dtype as string] ?? (/1$|_k$/.test(dtype) ? [0, 2] : [0]);
  for (let at = 0; at < bytes.length; at += size) {
    if (eight) new DataView(bytes.buffer).setFloat32(at, 0.25 + (at % 7) / 8, true);
    else for (const place of halves) bytes.set([next(), 0x20 | (next() & 0x83)], at + place);
  }
  return bytes;
}

const noise = (n: number): Float32Array => Float32Array.from({ length: n }, (_, i) => Math.sin(1.7 * i * i + i));

/** x [M, K] by w [N, K] transposed, or g [M, N] by w as it lies. */
async function check(on: Caps, dtype: Packed, towardsX: boolean, [M, N, K]: readonly [number, number, number]) {
  const bytes = blocks(dtype, N * K);
  const w = unpack(dtype, bytes);
  const [inner, outer] = towardsX ? [N, K] : [K, N];
  const x = noise(M * inner);
  const problem: MatmulProblem = {
    batch: 1,
    M,
    N: outer,
    K: inner,
    transA: false,
    transB: !towardsX,
    dtypeA: 'f32',
    dtypeB: dtype,
    access: ['read', 'read'],
  };
  const l = matmul(on, problem);
  const y = new Float32Array((await launch(l, [x, bytes], [4 * M * outer]))[0]!);
  for (let m = 0; m < M; m++)
    for (let o = 0; o < outer; o++) {
      let [sum, size] = [0, 0];
      for (let i = 0; i < inner; i++) {
        const term = x[m * inner + i]! * w[towardsX ? i * K + o : o * K + i]!;
        [sum, size] = [sum + term, size + Math.abs(term)];
      }
      if (!(Math.abs(y[m * outer + o]! - sum) <= 1e-6 * size))
        assert.unreachable(`${l.dispatches[0]!.label} [${m},${o}]: expected ${sum}, got ${y[m * outer + o]}`);
    }
  return l;
}

test('scalar: every type, as a layer reads it', async () => {
  for (const dtype of TYPES) await check(caps, dtype, false, [4, 12, 512]);
});

test('scalar: towards x, and rows that are no fours', async () => {
  for (const dtype of ['q4_k', 'q6_k', 'q8_0', 'f8_e4m3/64'] as const) await check(caps, dtype, true, [4, 12, 512]);
  await check(caps, 'q5_0', false, [3, 7, 96]);
  await check(caps, 'q2_k', true, [5, 7, 256]);
  await check({ ...caps, subgroup: 0 }, 'q4_k', false, [4, 8, 256]);
});

test('long rows in parts: what runs share is read at each part of them', async () => {
  const l = await check(caps, 'q4_k', false, [4, 8, 3072]);
  assert.match(l.dispatches[0]!.label, 'split');
});

test('tiled', async () => {
  const tiled: Caps = { ...caps, tier: 'tiled' };
  for (const dtype of ['q8_0', 'q4_k'] as const)
    for (const towardsX of [false, true]) await check(tiled, dtype, towardsX, [36, 40, 256]);
  await check(tiled, 'q4_0', false, [5, 7, 64]);
});

test('matrix units read packed weights beside f16: valid for every type', async () => {
  const unit = { operands: 'f16', M: 16, N: 16, K: 16, lanes: 32, multiple: 32, emulated: false } as const;
  const on: Caps = { ...caps, tier: 'tiled', f16: true, units: [unit], maxInvocations: 256, maxWorkgroupBytes: 16384 };
  for (const dtypeB of TYPES)
    for (const transB of [false, true]) {
      const p = { batch: 1, M: 64, N: 512, K: 512, transA: false, transB, dtypeA: 'f16', dtypeB } as const;
      const [first] = matmul(on, { ...p, access: ['read', 'read'] }).dispatches;
      assert.match(first!.label, /^matmul matrix/);
      await validate(first!.label, first!.wgsl);
    }
});

test.run();

/** The user's own table is found by adapter, driver and tier, and a damaged one is none. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import process from 'node:process';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { AdapterInfo } from '../../engine/host/adapter.ts';
import { ownTable, tunedFile, tuningFor } from '../../engine/runtime/tuning.ts';
import type { Caps } from '../../kernels/kernel.ts';
import { BUNDLED } from '../../kernels/tuned.ts';
import { forward, scalarTile, sizesOf, type Conv3dProblem } from '../../kernels/conv3d/plan.ts';
import { planMatmul, type MatmulProblem } from '../../kernels/matmul/plan.ts';

const cache = mkdtempSync(join(tmpdir(), 'vpae-tuned-'));
process.env['XDG_CACHE_HOME'] = cache;

const info: AdapterInfo = {
  name: 'Some GPU / 9',
  vendor: 'nobody',
  driver: 'v1.2 (x)',
  kind: 'gpu',
  source: 'gpu',
  reason: '',
  tried: [],
  tierReason: '',
};
const caps: Caps = {
  tier: 'tiled',
  f16: true,
  subgroup: 32,
  maxInvocations: 256,
  maxWorkgroupBytes: 16384,
  maxStorageBuffers: 8,
  maxBindingBytes: 2 ** 27,
};
const problem: MatmulProblem = {
  batch: 1,
  M: 512,
  N: 512,
  K: 512,
  transA: false,
  transB: false,
  dtypeA: 'f32',
  dtypeB: 'f32',
  access: ['read', 'read'],
};
const small = { tier: 'tiled', BM: 32, BN: 64, BK: 16, TM: 4, TN: 4 };

function write(text: string): void {
  const file = tunedFile(info, caps);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, text);
}

test('planners take what the file says, by class', () => {
  write(JSON.stringify({ table: { matmul: { '1x512x512x512 nn f32': small } } }));
  const tuning = tuningFor(info, caps)!;
  assert.equal(planMatmul({ ...caps, tuning }, problem).config, small);
  assert.equal(planMatmul({ ...caps, tuning }, { ...problem, M: 600 }).config, small, 'alike to within a power of two');
  assert.equal(
    planMatmul({ ...caps, tuning }, { ...problem, M: 1024 }).config,
    planMatmul(caps, { ...problem, M: 1024 }).config,
  );
});

test('another driver, another tier, no file, a damaged file: no table', () => {
  assert.is(ownTable({ ...info, driver: 'v1.3' }, caps), undefined);
  assert.is(ownTable(info, { ...caps, tier: 'scalar' }), undefined);
  for (const text of ['', '{"table": 3}', '{"table": {"matmul"', 'null', '[]']) {
    write(text);
    assert.is(ownTable(info, caps), undefined, text);
  }
});

test('what ships serves where there is no own table, and is among the options', () => {
  const software: AdapterInfo = { ...info, name: 'llvmpipe-llvm-15', vendor: 'mesa', kind: 'software' };
  const scalar: Caps = { ...caps, tier: 'scalar', subgroup: 8 };
  const size = [16, 32, 32] as const;
  const conv: Conv3dProblem = {
    N: 1,
    C: 16,
    O: 32,
    in: size,
    out: size,
    kernel: [3, 3, 3],
    stride: [1, 1, 1],
    padLo: [2, 1, 1],
    access: 'read',
  };
  const tile = scalarTile({ ...scalar, tuning: tuningFor(software, scalar)! }, 'conv3d', conv, sizesOf(forward(conv)));
  assert.equal(tile, BUNDLED[0]!.table.conv3d!['16>32 k3 16x1024']);
  assert.is(tuningFor(software, { ...scalar, subgroup: 4 }), undefined);
});

test.after(() => rmSync(cache, { recursive: true }));
test.run();

/** Kernels that say their subgroup size: in the text, taken by Dawn, and heeded where a driver runs them. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { Caps, Tier } from '../../kernels/kernel.ts';
import { matmul } from '../../kernels/matmul/index.ts';
import { atSize } from '../../kernels/subgroups.ts';
import { launch, openTest, validate } from './harness.ts';
import { UNITS } from './units.ts';

const { caps, device } = await openTest();
const PROBLEM = {
  batch: 1,
  M: 64,
  N: 64,
  K: 32,
  transA: false,
  transB: true,
  dtypeA: 'f16',
  dtypeB: 'f16',
  access: ['read', 'read'],
} as const;

const product = (on: Partial<Caps>) => {
  const all: Caps = { ...caps, f16: true, ...on };
  return matmul(all, PROBLEM).dispatches.map((d) => atSize(d, all));
};

test('a kernel of whole subgroups says their size, in every tier', async () => {
  for (const tier of ['scalar', 'tiled'] satisfies Tier[])
    for (const subgroup of [8, 16, 32])
      for (const units of [[], [{ ...UNITS.nvidia, lanes: subgroup }]])
        for (const d of product({ tier, subgroup, sized: true, units })) {
          assert.match(d.wgsl, `@subgroup_size(${subgroup}) @compute`);
          assert.is(d.wgsl.split('enable subgroups;').length, 2, d.label);
          await validate(d.label, d.wgsl);
        }
  const [one] = product({ tier: 'tiled', subgroup: 32 });
  assert.not.match(one!.wgsl, 'subgroup_size', 'nothing is said where there is one size');
  assert.not.match(product({ tier: 'tiled', subgroup: 48, sized: true })[0]!.wgsl, '@subgroup_size');
});

test('a driver runs the size that is asked for', async () => {
  if (!device.features.has('subgroup-size-control')) return;
  const wgsl = `enable subgroups;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
@compute @workgroup_size(32, 1, 1)
fn main(@builtin(subgroup_size) size: u32) { y[0] = size; }`;
  const one = { label: 'size', grid: [1, 1, 1] as const, params: [], bind: [0], flops: 0, bytes: 4 };
  const [bytes] = await launch(
    { dispatches: [atSize({ ...one, wgsl }, { sized: true, subgroup: caps.subgroup })], scratch: [] },
    [],
    [4],
  );
  assert.is(new Uint32Array(bytes!)[0], caps.subgroup);
});

test.run();

/** `bench --isa`: how machine code is read, and what AMD's compiler makes of the kernels where it can be had. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { blocksOf, count, loopsOf } from '../../cli/bench/isa/assembly.ts';
import { kernelNumbers, share, type KernelNumbers } from '../../cli/bench/isa/kernel.ts';
import { compileFor } from '../../cli/bench/isa/run.ts';
import { writtenLoops } from '../../cli/bench/isa/trips.ts';
import { amdEnvironment } from '../../engine/host/compilers.ts';
import { flags } from '../../engine/host/flags.ts';

const DUMP = `Compute Shader
disasm:
BB0:
	v_mov_b32_e32 v1, 0                                         ; 7e020280
BB1:
	buffer_load_b128 v[2:5], v1, s[0:3], 0 offen                ; e05c0000
	s_cbranch_scc1 BB4                                          ; bfa2
BB2:
	ds_load_b128 v[6:9], v0                                     ; dbfc
	v_dual_fmac_f32 v1, v2, v3 :: v_dual_fmac_f32 v4, v5, v6    ; c80
	v_fmac_f32_e32 v7, v8, v9                                   ; 56
	v_add_nc_u32_e32 v0, 16, v0                                 ; 4a
	s_cbranch_scc1 BB2                                          ; bfa2
BB3:
	v_add_nc_u32_e32 v1, 4, v1                                  ; 4a
	s_branch BB1                                                ; bfa0
BB4:
	s_endpgm                                                    ; bfb0
*** SHADER STATS ***
SGPRs: 16
VGPRs: 24
Spilled SGPRs: 0
Spilled VGPRs: 0
LDS size: 512
Scratch size: 0
Subgroups per SIMD: 16
Code size: 88
`;
/** The same loop as the compiler prints it for a GPU that its disassembler does not know. */
const OWN = `disasm:
Shader disassembly is not supported in the current configuration, falling back to print_program.

After lowering to hw instructions:
BB0
/* logical preds: / linear preds: / kind: uniform, top-level, */
	 s1: %0:s[0] = s_mov_b32 %431:s[3]
BB1
/* logical preds: BB0, BB1, / linear preds: BB0, BB1, / kind: uniform, loop-header, */
	 v4: %9:v[2-5] = ds_read_b128 %8:v[0] offset:16
	 v1: %1:v[1] = v_dual_fmac_f32 %2:v[2], %3:v[3], %1:v[1] :: v1: %4:v[4] = v_dual_fmac_f32 %5:v[5], %6:v[6], %4:v[4]
	 v1: %7:v[7] = v_fma_f32 %8:v[8], %9:v[9], %7:v[7]
	s_cbranch_scc1 block:BB1
BB2
	s_endpgm
`;
const WGSL = `struct P { K: u32, panel: u32 }
fn main() {
for (var k = first; k < p.K; k += 4u) {
for (var step = 0u; step < p.panel; step++) { let a = 1; }
} }`;

test('two instructions that are issued as one take one slot', () => {
  const c = count([
    'v_dual_fmac_f32 v1, v2, v3 :: v_dual_mov_b32 v4, v5',
    'v_wmma_f32_16x16x16_f16 v[0:7], v[8:15]',
    's_nop 0',
  ]);
  assert.equal([c.fma, c.wmma, c.valu, c.instructions], [1, 1, 2, 3]);
  assert.is(share(c), 32 / 33);
});

test('loops, nested', () => {
  const [outer, ...rest] = loopsOf(blocksOf(DUMP));
  assert.is(rest.length, 0);
  assert.equal([outer!.from, outer!.to, outer!.inner.length], [1, 3, 1]);
  assert.equal([outer!.own.fma, outer!.own.load128, outer!.inner[0]!.own.fma], [0, 1, 3]);
});

test("the compiler's own form is read as the disassembler's", () => {
  const blocks = blocksOf(OWN);
  assert.equal(
    blocks.map((b) => b.name),
    ['BB0', 'BB1', 'BB2'],
  );
  const [loop] = loopsOf(blocks);
  const { fma, valu, shared128, branch, instructions } = loop!.own;
  assert.equal(
    { fma, valu, shared128, branch, instructions },
    { fma: 3, valu: 2, shared128: 1, branch: 1, instructions: 4 },
  );
});

test('rounds come from the text and its uniform', () => {
  const [outer] = writtenLoops(WGSL, [64, 4]);
  assert.equal([outer!.trips, outer!.inner[0]!.trips], [undefined, 4]);
});

test('a panel is its staging and its inner loop as often as that runs', () => {
  const k = kernelNumbers({ name: 'n', label: 'l', threads: 64, wgsl: WGSL, params: [64, 4], dump: DUMP }, true);
  assert.equal([k.vgprs, k.spills, k.scratch, k.waves, k.workgroupBytes], [24, 0, 0, 16, 512]);
  assert.equal([k.hotShare, k.panelShare], [3 / 3, 12 / 13]);
  assert.is(k.bound, 12 / 2 / 32); // four reads of 16 bytes by 32 lanes, 64 bytes a cycle
});

const available = await amdEnvironment('navi31', !flags.NO_FETCH, () => {}).then(
  () => true,
  (error: unknown) => (console.log(`not compiled for navi31: ${(error as Error).message}`), false),
);

test('navi31: nothing fails or spills; hot loops compute, and read workgroup memory as wide as can be', async () => {
  if (!available) return;
  const { kernels } = await compileFor('navi31', { only: '.' });
  const wrong = (rule: (k: KernelNumbers) => boolean) => kernels.filter((k) => !rule(k)).map((k) => k.label);
  assert.ok(kernels.length > 50);
  assert.equal(
    wrong((k) => k.error === undefined && !k.spills && !k.scratch),
    [],
    'errors, spills, scratch',
  );
  const ours = kernels.filter((k) => /^(matmul|attention|conv3d)\w* .*(tiled|matrix) /.test(k.label));
  const hot = (rule: (k: KernelNumbers) => boolean) => ours.filter((k) => !rule(k)).map((k) => k.label);
  const isMatrix = (k: KernelNumbers) => / matrix /.test(k.label);
  assert.equal(
    hot((k) => k.hot !== undefined),
    [],
    'hot loops',
  );
  assert.equal(
    hot((k) => isMatrix(k) || k.hot!.shared64 + k.hot!.shared32 + k.hot!.shared16 === 0),
    [],
    'narrow reads',
  );
  assert.equal(
    hot((k) => isMatrix(k) || k.hotShare! >= 0.92),
    [],
    'multiply-adds of the hot loop',
  );
  assert.equal(
    hot((k) => !isMatrix(k) || k.hot!.wmma > 0),
    [],
    'matrix instructions',
  );
  // A panel of matrix units is written out: its hot loop has the staging, which reads what inner indices mean.
  assert.equal(
    hot((k) => !/^(matmul|conv3d\w*) matrix /.test(k.label) || k.hot!.shared16 === 0),
    [],
    'reads of 16 bits',
  );
  // What a panel with its staging keeps of it, at sizes of the released models.
  const least = (pattern: RegExp, panel: number) =>
    assert.equal(
      ours.filter((k) => pattern.test(k.label) && !(k.panelShare! >= panel)).map((k) => `${k.label}: ${k.panelShare}`),
      [],
    );
  least(/^matmul tiled 128x128/, 1.5);
  least(/^matmul matrix .* 128x128/, 0.75);
  least(/^attention (forward|grad\w+) tiled/, 0.99);
  least(/^conv3d tiled 96x128.*x(60|30)x/, 1.1);
  least(/^conv3d(Input|Weight) tiled 96x128.*x(60|30)x/, 0.9);
  least(/^conv3d matrix 16x16x16 f16 (96|128)x64/, 0.5);
  least(/^conv3d(Input|Weight) matrix 16x16x16 f16 (96|128)x64/, 0.45);
});

test('navi31: of a training step of a released model, every kernel compiles without spills', async () => {
  if (!available) return;
  const steps = { preset: 'wan2.1-t2v-1.3b', set: [], layers: 1, jobs: ['teacher'] as const };
  const { kernels } = await compileFor('navi31', { only: '.', steps });
  const bad = kernels.filter((k) => k.error !== undefined || k.spills || k.scratch);
  assert.equal([bad.map((k) => k.label), kernels.length > 60], [[], true]);
});

test.run();

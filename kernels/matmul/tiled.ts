/**
 * Matmul through workgroup memory, for GPUs. A workgroup makes BM × BN of the output from panels of BK; a thread holds
 * TM × 4 sums. Each panel lies k-major with one vec4 of padding a row, so both operands are read as vec4. A thread stages
 * one 4 × 4 block of a or b, transposed in registers where k is the contiguous axis, and loads the next panel's block
 * before it computes on this one, which hides the loads.
 *
 * 32 x 32 from panels of 16, 64 threads:
 *
 *     for (var k = k0; k < k1 + 16u; k += 16u) {          // one round more than panels
 *       if (forA) { r0 = fetch_a(baseA, row0 + 4u * bi, k + 4u * bk, 0u, k1); … }
 *       if (k > k0) { for (var s = 0u; s < p.panel; s++) {
 *         let b0 = tileB[fromB]; let a0_0 = tileA[fromA];
 *         c0 = fma(vec4f(a0_0.x), b0, c0); c1 = fma(vec4f(a0_0.y), b0, c1); … } }
 *       workgroupBarrier();
 *       if (forA) { tileA[(4u * bk) * 9u + bi] = vec4f(r0.x, r1.x, r2.x, r3.x); … }
 *       workgroupBarrier();
 *     }
 */
import { range, XYZW } from '../print.ts';
import type { Plan, TiledConfig } from './plan.ts';
import { fetch, order } from './wgsl.ts';

export const tiledThreads = (c: TiledConfig) => (c.BM * c.BN) / (4 * c.TM);

export function tiledFunctions(plan: Plan, c: TiledConfig): string {
  return [
    `var<workgroup> tileA: array<vec4f, ${c.BK * (c.BM / 4 + 1)}>;`,
    `var<workgroup> tileB: array<vec4f, ${c.BK * (c.BN / 4 + 1)}>;`,
    fetch('a', plan.shape.a, 'p.M', plan),
    fetch('b', plan.shape.b, 'p.N', plan),
  ].join('\n');
}

export function tiledMain(plan: Plan, c: TiledConfig): string {
  const { a, b } = plan.shape;
  const ldA = c.BM / 4 + 1,
    ldB = c.BN / 4 + 1,
    tiles = c.TM / 4;
  const blocksA = (c.BM * c.BK) / 16,
    blocksB = (c.BN * c.BK) / 16,
    panel = c.BK / 4;
  /** Blocks that are neighbours in memory go to neighbouring threads. */
  const place = (kContiguous: boolean, id: string, along: number) =>
    kContiguous ? `bk = ${id} % ${panel}u; bi = ${id} / ${panel}u;` : `bi = ${id} % ${along}u; bk = ${id} / ${along}u;`;
  const stage = (tile: string, ld: number, transpose: boolean) =>
    range(4)
      .map((q) => {
        const value = transpose
          ? `vec4f(${range(4)
              .map((j) => `r${j}.${XYZW[q]}`)
              .join(', ')})`
          : `r${q}`;
        return `${tile}[(4u * bk + ${q}u) * ${ld}u + bi] = ${value};`;
      })
      .join('\n');
  const text = [
    `${order(c.BM, c.BN)}
let tx = li % ${c.BN / 4}u;
let ty = li / ${c.BN / 4}u;
let forA = li < ${blocksA}u;
let forB = !forA && li < ${blocksA + blocksB}u;
var bi: u32; var bk: u32;
if (forA) { ${place(!a.trans, 'li', c.BM / 4)} } else { let id = li - ${blocksA}u; ${place(b.trans, 'id', c.BN / 4)} }`,
  ];
  for (const i of range(c.TM)) text.push(`var c${i} = vec4f();`);
  text.push(`
// One round more than panels: round n loads panel n and computes on panel n - 1.
for (var k = k0; k < k1 + ${c.BK}u; k += ${c.BK}u) {
var r0: vec4f; var r1: vec4f; var r2: vec4f; var r3: vec4f;
if (forA) { ${range(4)
    .map((q) => `r${q} = fetch_a(baseA, row0 + 4u * bi, k + 4u * bk, ${q}u, k1);`)
    .join(' ')} }
else if (forB) { ${range(4)
    .map((q) => `r${q} = fetch_b(baseB, col0 + 4u * bi, k + 4u * bk, ${q}u, k1);`)
    .join(' ')} }
if (k > k0) {
for (var s = 0u; s < p.panel; s++) {
let fromA = 4u * s * ${ldA}u + ty; let fromB = 4u * s * ${ldB}u + tx;`);
  for (const q of range(4)) {
    text.push(`let b${q} = tileB[fromB + ${q * ldB}u];`);
    for (const j of range(tiles)) {
      text.push(`let a${q}_${j} = tileA[fromA + ${q * ldA + (j * c.BM) / 4 / tiles}u];`);
      for (const m of range(4)) text.push(`c${4 * j + m} = fma(vec4f(a${q}_${j}.${XYZW[m]}), b${q}, c${4 * j + m});`);
    }
  }
  text.push(`}}
workgroupBarrier();
if (forA) {
${stage('tileA', ldA, !a.trans)}
} else if (forB) {
${stage('tileB', ldB, b.trans)}
}
workgroupBarrier();
}
let col = col0 + 4u * tx;
if (col >= p.N) { return; }`);
  for (const i of range(c.TM)) {
    const row = `row0 + 4u * ty + ${(i >> 2) * (c.BM / tiles) + (i & 3)}u`;
    text.push(`if (${row} < p.M) { put(slice, ${row}, col, c${i}); }`);
  }
  return text.join('\n');
}

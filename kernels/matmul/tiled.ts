/**
 * Matmul through workgroup memory, for GPUs. A workgroup makes BM × BN of the output from panels of BK; a thread holds TM × TN sums,
 * in groups of 4 × 4. Each panel lies k-major with one vec4 of padding a row, so both operands are read as vec4. The next panel's
 * blocks are loaded before this one is computed on, which hides the loads.
 *
 * 32 x 32 from panels of 16, 64 threads:
 *
 *     for (var k = k0; k < k1 + 16u; k += 16u) {          // one round more than panels
 *       if (kk < k1) { r0_0 = a[at0_0 + k / 4u]; … }
 *       if (k > k0) { for (var step = 0u; step < p.panel; step++) { let s = step % 4u;
 *         let b0_0 = tileB[s * 36u + tx]; let a0_0 = tileA[s * 36u + ty];
 *         c0_0 = fma(vec4f(a0_0.x), b0_0, c0_0); c1_0 = fma(vec4f(a0_0.y), b0_0, c1_0); … } }
 *       workgroupBarrier();
 *       tileA[4u * bk * 9u + bi] = vec4f(r0_0.x, r0_1.x, r0_2.x, r0_3.x); …
 *       workgroupBarrier();
 *     }
 */
import { range, XYZW } from '../print.ts';
import type { Plan, TiledConfig } from './plan.ts';
import { staging } from './stage.ts';
import { order } from './wgsl.ts';

export const tiledThreads = (c: TiledConfig): number => (c.BM * c.BN) / (c.TM * c.TN);

export const tiledBytes = (c: TiledConfig): number => 4 * c.BK * (c.BM + c.BN + 8);

export function tiledFunctions(c: TiledConfig): string {
  return [
    `var<workgroup> tileA: array<vec4f, ${c.BK * (c.BM / 4 + 1)}>;`,
    `var<workgroup> tileB: array<vec4f, ${c.BK * (c.BN / 4 + 1)}>;`,
  ].join('\n');
}

export function tiledMain(plan: Plan, c: TiledConfig): string {
  const ldA = c.BM / 4 + 1,
    ldB = c.BN / 4 + 1,
    across = c.BN / c.TN;
  const [groupsA, groupsB] = [c.TM / 4, c.TN / 4];
  const stage = staging(plan, c, tiledThreads(c));
  const sums = range(c.TM).flatMap((i) => range(groupsB).map((j) => `c${i}_${j}`));
  const text = [
    `${order(c.BM, c.BN)}
let tx = li % ${across}u;
let ty = li / ${across}u;`,
    stage.places,
    sums.map((name) => `var ${name} = vec4f();`).join(' '),
    `// One round more than panels: round n loads panel n and computes on panel n - 1.
for (var k = k0; k < k1 + ${c.BK}u; k += ${c.BK}u) {`,
    stage.loads,
    // The remainder tells Tint that no place is out of bounds; compilers see that it changes nothing.
    `if (k > k0) {
for (var step = 0u; step < p.panel; step++) { let s = step % ${c.BK / 4}u;`,
  ];
  for (const q of range(4)) {
    for (const j of range(groupsB))
      text.push(`let b${q}_${j} = tileB[s * ${4 * ldB}u + tx + ${q * ldB + j * across}u];`);
    for (const i of range(groupsA)) {
      text.push(`let a${q}_${i} = tileA[s * ${4 * ldA}u + ty + ${q * ldA + (i * c.BM) / c.TM}u];`);
      for (const m of range(4))
        for (const j of range(groupsB))
          text.push(`c${4 * i + m}_${j} = fma(vec4f(a${q}_${i}.${XYZW[m]}), b${q}_${j}, c${4 * i + m}_${j});`);
    }
  }
  text.push(`}}
workgroupBarrier();
${stage.stores('mn', (side, lines) => {
  const [tile, ld] = side === 'a' ? ['tileA', ldA] : ['tileB', ldB];
  return lines.map((l, q) => `${tile}[(4u * bk + ${q}u) * ${ld}u + bi] = ${l};`).join('\n');
})}
workgroupBarrier();
}`);
  for (const j of range(groupsB))
    for (const i of range(c.TM)) {
      const row = `row0 + 4u * ty + ${(i >> 2) * (c.BM / groupsA) + (i & 3)}u`;
      const col = `col0 + 4u * tx + ${j * 4 * across}u`;
      text.push(`if (${row} < p.M && ${col} < p.N) { put(slice, ${row}, ${col}, c${i}_${j}); }`);
    }
  return text.join('\n');
}

/**
 * Matmul by subgroup matrices: operands in the unit's type, f32 sums. A workgroup makes BM × BN of the output from panels of BK. They lie
 * in workgroup memory along k, however they lie in storage, with a padding of 8 against bank conflicts: a unit's operand is then 16 bytes
 * at a time. The next panel's blocks are loaded before this one is computed on, and the steps of a panel are written out, so that compilers
 * know how places are aligned. Results can't be read element by element: they pass through workgroup memory to the epilogue.
 *
 * One unit of 16 x 16 x 16 a subgroup:
 *
 *     if (kk < k1) { r0_0 = a[at0_0 + k / 4u]; … }
 *     let a0 = subgroupMatrixLoad<subgroup_matrix_left<f16, 16, 16>, row_major>(&tileA, rowS * 24u + 0u, 24u);
 *     let b0 = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&tileB, colS * 24u + 0u, 24u);
 *     c0_0 = subgroupMatrixMultiplyAccumulate(a0, b0, c0_0);
 *     workgroupBarrier();
 *     tileA[4u * bi * 24u + 4u * bk] = r0_0.x; …
 */
import { inSteps, mma, type MatrixUnit } from '../mma.ts';
import { range, XYZW } from '../print.ts';
import type { MatrixConfig, Plan } from './plan.ts';
import { staging } from './stage.ts';
import { order } from './wgsl.ts';

const PAD = 8;

export const matrixThreads = (c: MatrixConfig, unit: MatrixUnit): number => c.rows * c.cols * unit.lanes;

export const matrixBytes = (c: MatrixConfig, unit: MatrixUnit): number =>
  mma(unit).bytes * (c.BM + c.BN) * (c.BK + PAD) + 4 * c.rows * c.cols * unit.M * unit.N;

export function matrixFunctions(c: MatrixConfig, unit: MatrixUnit): string {
  const { element } = mma(unit);
  return [
    `var<workgroup> tileA: array<${element}, ${c.BM * (c.BK + PAD)}>;`,
    `var<workgroup> tileB: array<${element}, ${c.BN * (c.BK + PAD)}>;`,
    `var<workgroup> results: array<f32, ${c.rows * c.cols * unit.M * unit.N}>;`,
  ].join('\n');
}

export function matrixMain(plan: Plan, c: MatrixConfig, unit: MatrixUnit): string {
  const m = mma(unit);
  const ld = c.BK + PAD;
  const stage = staging(plan, c, matrixThreads(c, unit), m.element === 'f16');
  const [high, wide] = [range(c.BM / c.rows / unit.M), range(c.BN / c.cols / unit.N)]; // results of a subgroup
  const results = high.flatMap((i) => wide.map((j) => ({ name: `c${i}_${j}`, i, j })));
  const size = unit.M * unit.N;
  const step = (s: string): string =>
    [
      ...wide.map((j) =>
        m.load('right', `b${j}`, { tile: 'tileB', at: `(colS + ${j * unit.N}u) * ${ld}u + ${s}`, ld, across: true }),
      ),
      ...high.flatMap((i) => [
        m.load('left', `a${i}`, { tile: 'tileA', at: `(rowS + ${i * unit.M}u) * ${ld}u + ${s}`, ld }),
        ...wide.map((j) => m.multiply(`c${i}_${j}`, `a${i}`, `b${j}`)),
      ]),
    ].join('\n');
  return [
    order(c.BM, c.BN),
    `let subgroup = li / ${unit.lanes}u; let lane = li % ${unit.lanes}u;
let rowS = (subgroup / ${c.cols}u) * ${c.BM / c.rows}u;
let colS = (subgroup % ${c.cols}u) * ${c.BN / c.cols}u;
let mine = subgroup * ${size}u;`,
    stage.places,
    ...results.map(({ name }) => m.zeros(name)),
    `for (var k = k0; k < k1 + ${c.BK}u; k += ${c.BK}u) {`,
    stage.loads,
    'if (k > k0) {',
    inSteps(unit, c.BK, 'p.panel', step),
    `}
workgroupBarrier();`,
    stage.stores('k', (side, lines) => {
      const tile = side === 'a' ? 'tileA' : 'tileB';
      return lines
        .map(
          (line, q) => `{ let v = ${m.round(line)}; let at = (4u * bi + ${q}u) * ${ld}u + 4u * bk;
${range(4)
  .map((i) => `${tile}[at + ${i}u] = v.${XYZW[i]};`)
  .join(' ')} }`,
        )
        .join('\n');
    }),
    `workgroupBarrier();
}`,
    ...results.map(
      ({ name, i, j }) => `${m.store(name, { tile: 'results', at: 'mine', ld: unit.N })}
workgroupBarrier();
for (var u = lane; u < ${size / 4}u; u += ${unit.lanes}u) {
let row = row0 + rowS + ${i * unit.M}u + u / ${unit.N / 4}u; let col = col0 + colS + ${j * unit.N}u + 4u * (u % ${unit.N / 4}u);
if (row < p.M && col < p.N) { let at = mine + 4u * u; put(slice, row, col, vec4f(results[at], results[at + 1u], results[at + 2u], results[at + 3u])); } }
workgroupBarrier();`,
    ),
  ].join('\n');
}

/**
 * Matmul by subgroup matrices: operands in the unit's type, f32 sums. A workgroup makes BM × BN of the output from panels of BK, staged in
 * workgroup memory as they lie in storage, with a padding of 8 against bank conflicts; a transposed operand is a matter of how
 * the unit loads it. Results can't be read element by element: they pass through workgroup memory to the epilogue.
 *
 * One unit of 16 x 16 x 16 a subgroup:
 *
 *     let v = vec4h(fetch_a(baseA, row0 + line, k + 4u * four, 0u, k1)); tileA[at] = v.x; …
 *     workgroupBarrier();
 *     let a0 = subgroupMatrixLoad<subgroup_matrix_left<f16, 16, 16>, row_major>(&tileA, rowS * 24u + s, 24u);
 *     let b0 = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&tileB, colS * 24u + s, 24u);
 *     c0_0 = subgroupMatrixMultiplyAccumulate(a0, b0, c0_0);
 */
import { mma, type MatrixUnit, type Mma } from '../mma.ts';
import { range, XYZW } from '../print.ts';
import type { MatrixConfig, Operand, Plan } from './plan.ts';
import { fetch, order } from './wgsl.ts';

const PAD = 8;

/** How a panel of `extent` rows of a, or columns of b, lies in workgroup memory. */
function panelOf(o: Operand, side: 'left' | 'right', extent: number, BK: number) {
  const alongK = o.trans === (side === 'right'); // k is the contiguous axis
  const [lines, length] = alongK ? [extent, BK] : [BK, extent];
  return { alongK, lines, length, ld: length + PAD };
}

const panels = ({ shape }: Plan, c: MatrixConfig) => ({
  a: panelOf(shape.a, 'left', c.BM, c.BK),
  b: panelOf(shape.b, 'right', c.BN, c.BK),
});

export const matrixThreads = (c: MatrixConfig, unit: MatrixUnit): number => c.rows * c.cols * unit.lanes;

/** Bytes of workgroup memory for any layout of the operands. */
export const matrixBytes = (c: MatrixConfig, unit: MatrixUnit): number =>
  mma(unit).bytes * (c.BM * c.BK + c.BN * c.BK + PAD * (Math.max(c.BM, c.BK) + Math.max(c.BN, c.BK))) +
  4 * c.rows * c.cols * unit.M * unit.N;

export function matrixFunctions(plan: Plan, c: MatrixConfig, unit: MatrixUnit): string {
  const { element } = mma(unit);
  const { a, b } = panels(plan, c);
  return [
    `var<workgroup> tileA: array<${element}, ${a.lines * a.ld}>;`,
    `var<workgroup> tileB: array<${element}, ${b.lines * b.ld}>;`,
    `var<workgroup> results: array<f32, ${c.rows * c.cols * unit.M * unit.N}>;`,
    fetch('a', plan.shape.a, 'p.M', plan),
    fetch('b', plan.shape.b, 'p.N', plan),
  ].join('\n');
}

/** All threads copy a panel, four neighbours at a time. */
function stage(
  m: Mma,
  name: 'a' | 'b',
  first: string,
  threads: number,
  { alongK, lines, length, ld }: ReturnType<typeof panelOf>,
): string {
  const [tile, base] = name === 'a' ? ['tileA', 'baseA'] : ['tileB', 'baseB'];
  const place = alongK ? `${first} + line, k + 4u * four` : `${first} + 4u * four, k + line`;
  return `for (var u = li; u < ${(lines * length) / 4}u; u += ${threads}u) {
let line = u / ${length / 4}u; let four = u % ${length / 4}u;
let v = ${m.round(`fetch_${name}(${base}, ${place}, 0u, k1)`)};
let at = line * ${ld}u + 4u * four;
${range(4)
  .map((i) => `${tile}[at + ${i}u] = v.${XYZW[i]};`)
  .join(' ')} }`;
}

export function matrixMain(plan: Plan, c: MatrixConfig, unit: MatrixUnit): string {
  const m = mma(unit);
  const { a, b } = panels(plan, c);
  const threads = matrixThreads(c, unit);
  const [high, wide] = [c.BM / c.rows / unit.M, c.BN / c.cols / unit.N]; // results of a subgroup
  const results = range(high).flatMap((i) => range(wide).map((j) => ({ name: `c${i}_${j}`, i, j })));
  const at = (panel: typeof a, along: string) =>
    panel.alongK ? `(${along}) * ${panel.ld}u + s` : `s * ${panel.ld}u + ${along}`;
  const size = unit.M * unit.N;
  return [
    order(c.BM, c.BN),
    `let subgroup = li / ${unit.lanes}u; let lane = li % ${unit.lanes}u;
let rowS = (subgroup / ${c.cols}u) * ${c.BM / c.rows}u;
let colS = (subgroup % ${c.cols}u) * ${c.BN / c.cols}u;
let mine = subgroup * ${size}u;`,
    ...results.map(({ name }) => m.zeros(name)),
    `for (var k = k0; k < k1; k += ${c.BK}u) {`,
    stage(m, 'a', 'row0', threads, a),
    stage(m, 'b', 'col0', threads, b),
    `workgroupBarrier();
for (var s = 0u; s < p.panel; s += ${unit.K}u) {`,
    ...range(high).map((i) =>
      m.load('left', `a${i}`, { tile: 'tileA', at: at(a, `rowS + ${i * unit.M}u`), ld: a.ld, across: !a.alongK }),
    ),
    ...range(wide).map((j) =>
      m.load('right', `b${j}`, { tile: 'tileB', at: at(b, `colS + ${j * unit.N}u`), ld: b.ld, across: b.alongK }),
    ),
    ...results.map(({ name, i, j }) => m.multiply(name, `a${i}`, `b${j}`)),
    `}
workgroupBarrier();
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

/**
 * The implicit GEMM by subgroup matrices: operands in the unit's type, sums in f32. Each of rows × cols subgroups makes its part of a
 * tile of channels × columns; results pass through workgroup memory to where they are stored. f16, where the unit takes it,
 * bounds operands to 65504, drops what is below 6e-8 and rounds the others by 2^-11 of themselves.
 *
 * The inner loop:
 *
 *     let a0 = subgroupMatrixLoad<subgroup_matrix_left<f16, 16, 16>, row_major>(&rowTile, …);
 *     let b0 = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&columnTile, …);
 *     c0_0 = subgroupMatrixMultiplyAccumulate(a0, b0, c0_0);
 */
import { fitsThreads, inSteps, mma, unitName, type MatrixUnit } from '../mma.ts';
import { range, XYZW } from '../print.ts';
import { MOST_SUMS } from '../registers.ts';
import { panels, type Gemm, type Printed } from './gemm.ts';
import type { MatrixTile } from './plan.ts';

/** Elements behind a row, against bank conflicts. */
const PAD = 8;

const threadsOf = ({ rows, cols }: MatrixTile, { lanes }: MatrixUnit): number => rows * cols * lanes;

export const fitsUnit = (
  tile: MatrixTile,
  unit: MatrixUnit,
  most: { maxInvocations: number; maxWorkgroupBytes: number },
): boolean => {
  const { channels, columns, panel, rows, cols } = tile;
  const threads = threadsOf(tile, unit);
  const bytes = mma(unit).bytes * (channels + columns) * (panel + PAD) + 4 * rows * cols * unit.M * unit.N + 16 * panel;
  return (
    (channels / rows) % unit.M === 0 &&
    (columns / cols) % unit.N === 0 &&
    panel % unit.K === 0 &&
    (channels / rows) * (columns / cols) <= MOST_SUMS * unit.lanes &&
    threads % columns === 0 &&
    panel <= threads &&
    fitsThreads(threads, unit, most) &&
    bytes <= most.maxWorkgroupBytes
  );
};

export function matrixGemm(tile: MatrixTile, unit: MatrixUnit, g: Gemm): Printed {
  const { channels, columns, panel, rows, cols } = tile;
  const m = mma(unit);
  const threads = threadsOf(tile, unit);
  const [ld, size] = [panel + PAD, unit.M * unit.N];
  const [high, wide] = [range(channels / rows / unit.M), range(columns / cols / unit.N)];
  const results = high.flatMap((i) => wide.map((j) => ({ name: `c${i}_${j}`, i, j })));
  const step = (k: string): string =>
    [
      ...wide.map((j) =>
        m.load('right', `b${j}`, {
          tile: 'columnTile',
          at: `(colS + ${j * unit.N}u) * ${ld}u + ${k}`,
          ld,
          across: true,
        }),
      ),
      ...high.flatMap((i) => [
        m.load('left', `a${i}`, { tile: 'rowTile', at: `(rowS + ${i * unit.M}u) * ${ld}u + ${k}`, ld }),
        ...wide.map((j) => m.multiply(`c${i}_${j}`, `a${i}`, `b${j}`)),
      ]),
    ].join('\n');
  const compute = inSteps(unit, panel, 'p.panel', step);
  return {
    how: `matrix ${unitName(unit)} ${channels}x${columns}x${panel}/${rows}x${cols}`,
    threads,
    enable: m.enable,
    diagnostics: m.diagnostics,
    entries: [
      ['panel', panel],
      ['unitK', unit.K],
    ],
    functions: `var<workgroup> rowTile: array<${m.element}, ${channels * ld}>;
var<workgroup> columnTile: array<${m.element}, ${columns * ld}>;
var<workgroup> results: array<f32, ${rows * cols * size}>;
var<workgroup> inner: array<vec4u, ${panel}>;
${g.functions}
fn decode(k: u32) -> vec4u {
${g.decode}
}`,
    main: [
      `  let o0 = wid.z * ${channels}u;
  let column0 = ${g.tile} * ${columns}u;
  let first = ${g.first};
  let end = ${g.end};
  let subgroup = li / ${unit.lanes}u; let lane = li % ${unit.lanes}u;
  let rowS = (subgroup / ${cols}u) * ${channels / rows}u;
  let colS = (subgroup % ${cols}u) * ${columns / cols}u;
  let mine = subgroup * ${size}u;`,
      ...results.map(({ name }) => m.zeros(name)),
      `  let column = column0 + li % ${columns}u;
${g.prepare}
${panels(
  g,
  { channels, columns, panel, threads },
  compute,
  XYZW.map((part, j) => `columnTile[li % ${columns}u * ${ld}u + kq + ${j}u] = ${m.round(`b.${part}`, 1)};`).join(' '),
  XYZW.map((part, j) => `rowTile[channel * ${ld}u + kq + ${j}u] = ${m.round(`a.${part}`, 1)};`).join(' '),
)}`,
      ...results.map(
        ({ name, i, j }) => `${m.store(name, { tile: 'results', at: 'mine', ld: unit.N })}
  workgroupBarrier();
  for (var u = lane; u < ${size}u; u += ${unit.lanes}u) {
    let o = o0 + rowS + ${i * unit.M}u + u / ${unit.N}u;
    let column = column0 + colS + ${j * unit.N}u + u % ${unit.N}u;
    if (o < ${g.rows} && column < ${g.columns}) {
${g.place}
      dst[at] = epilogue(results[mine + u], at);
    }
  }
  workgroupBarrier();`,
      ),
    ].join('\n'),
  };
}

/**
 * Matmul without workgroup memory, for CPU drivers, where a load costs as much as four or five vector instructions.
 *
 * A lane holds `rows` × 4·`cols` sums. Per step of four k it loads the b values of its own columns; the a values are the
 * same for all lanes, so each lane loads a different part of them and a shuffle hands them round. Without
 * subgroups every thread loads its own a values, with fewer rows to a thread. Few loads stand in the text, because
 * these drivers compile unrolled loads in quadratic time.
 *
 * 8 rows by 4 columns a lane, 8 lanes, B as [N, K]:
 *
 *     for (var k = part * p.chunk; k < k1; k += 4u) {
 *       let a0 = a[ia0 + k / 4u];                         // another row in each lane
 *       let s0_0 = b[ib0 + k / 4u]; …                     // four columns, turned to b0_0 … b3_0
 *       let v0_0 = vec4f(subgroupShuffle(a0.x, from0));   // row 0, k + 0
 *       c0_0 = fma(v0_0, b0_0, c0_0); …
 *     }
 *     put(slice, row + i, col + 4u * c, …);
 */
import { chosen } from '../chosen.ts';
import { laneIndices, ofLane } from '../lanes.ts';
import { range, XYZW } from '../print.ts';
import type { Plan, ScalarConfig } from './plan.ts';

/** Products from which on a sum is made of sums of BLOCK: one by one, equal terms would all round the same way. */
const LONG = 1024;
export const BLOCK = 256;

/** Strides and indices count vec4 when `plan.vec`, else elements. */
export function scalarMain(plan: Plan, config: ScalarConfig): string {
  const { vec, read } = plan;
  const { a, b } = plan.shape;
  const { rows, cols, lanes, workgroup } = config;
  const guard = !vec || plan.ragged;
  const loadsA = Math.max(1, rows / lanes);
  const quads = rows / 4;
  const u = vec ? 4 : 1;
  const lane = lanes > 1 ? 'lane' : '0u';
  const x = lanes > 1 ? 'lane' : 'lid.x';
  const ld = (name: 'a' | 'b') => (name === 'a' ? 'p.ldA' : 'p.ldB');
  const { run } = read.b;
  /** Across k, all columns of a subgroup stand in one run: each lane reads what another k's shares, and all take it from there. */
  const shared = !b.trans && cols === 1 && lanes >= 4 && 4 * lanes <= (run?.length ?? 0) ? run : undefined;
  /** Four values along the contiguous axis from `i`, where that axis is k. */
  const alongK = (name: 'a' | 'b', base: string) =>
    vec
      ? read[name].read(name, `${base} + k / 4u`)
      : read[name].fours
        ? read[name].read(name, `(${base} + k) / 4u`)
        : `vec4f(${range(4)
            .map((c) => `select(0.0, ${read[name].read(name, `${base} + min(k + ${c}u, p.K - 1u)`)}, k + ${c}u < k1)`)
            .join(', ')})`;
  /**
   * Four values along rows of a or columns of b. `at` is the first one's place at this step's first k, `q` the k wanted after
   * that; `i` the first one's index among `end`. Past the end of K a safe place is read and zero taken.
   */
  const across = (name: 'a' | 'b', at: string, q: string, i: string, end: string) => {
    const four = (place: string): string =>
      name === 'b' && shared ? shared.values('b', place, `h${parseInt(q, 10)}`) : read[name].read(name, place);
    const from = guard
      ? `${at} + min(${q}, p.K - 1u - k) * ${ld(name)}`
      : q === '0u'
        ? at
        : `${at} + ${q} * ${ld(name)}`;
    const value = vec
      ? four(from)
      : read[name].fours
        ? four(`(${from}) / 4u`)
        : `vec4f(${range(4)
            .map((c) =>
              read[name].read(name, `${from}${c ? ` + min(${c}u, ${end} - 1u - min(${i}, ${end} - 1u))` : ''}`),
            )
            .join(', ')})`;
    return guard ? `select(vec4f(), ${value}, k + ${q} < k1)` : value;
  };

  const text: string[] = [
    laneIndices(lanes, 'tiles'),
    `
let tile = wid.x + wid.y * nwg.x;
if (tile >= p.tiles) { return; }
let line = quotient(tile, p.tilesM);
let slice = quotient(line, p.tilesN);
let batch = quotient(slice, p.splits);
let part = slice - batch * p.splits;
let row = (tile - line * p.tilesM) * ${rows * workgroup[1]}u + lid.y * ${rows}u;
let col = (line - slice * p.tilesN) * ${4 * cols * workgroup[0]}u + ${x} * ${4 * cols}u;
let k1 = min(p.K, (part + 1u) * p.chunk);
let baseA = batch * p.strideA;
let baseB = batch * p.strideB;`,
  ];

  // Places walk along with k: an addition a step instead of a multiplication a load.
  for (const j of range(loadsA)) {
    text.push(`let t${j} = ${lanes > rows ? `lane % ${rows}u` : `${lane} + ${j * lanes}u`};`);
    text.push(
      a.trans
        ? `let ka${j} = t${j} / ${quads}u; let ia${j} = row / ${u}u + (t${j} % ${quads}u) * ${4 / u}u;
var atA${j} = baseA + part * p.chunk * p.ldA + min(ia${j}, p.M / ${u}u - 1u);`
        : `let ia${j} = baseA + min(row + t${j}, p.M - 1u) * p.ldA;`,
    );
  }
  for (const c of range(b.trans ? 4 * cols : cols)) {
    text.push(
      b.trans
        ? `let ib${c} = baseB + min(col + ${c}u, p.N - 1u) * p.ldB;`
        : `let ib${c} = (col + ${4 * c}u) / ${u}u; var atB${c} = baseB + part * p.chunk * p.ldB + min(ib${c}, p.N / ${u}u - 1u);`,
    );
  }
  const sums = range(rows).flatMap((i) => range(cols).map((c) => `${i}_${c}`));
  const long = plan.chunk > LONG;
  if (shared) text.push(`var h = vec2f(); let heads = baseB + (line - slice * p.tilesN) * ${(4 * lanes) / u}u;`);
  if (b.trans && read.b.run) text.push(...range(4 * cols).map((j) => `var h${j} = vec2f();`));
  for (const n of sums) text.push(`var c${n} = vec4f();${long ? ` var all${n} = vec4f();` : ''}`);

  if (long)
    text.push(`for (var start = part * p.chunk; start < k1; start += p.panel) {
let stop = min(start + p.panel, k1);
for (var k = start; k < stop; k += 4u) {`);
  else text.push('for (var k = part * p.chunk; k < k1; k += 4u) {');
  for (const j of range(loadsA)) {
    text.push(
      `let a${j} = ${a.trans ? across('a', `atA${j}`, `ka${j}`, `ia${j}`, `p.M / ${u}u`) : alongK('a', `ia${j}`)};`,
    );
    if (a.trans) text.push(`atA${j} += 4u * p.ldA;`);
  }
  if (shared) {
    const at = `heads + min(k + lane, p.K - 1u) * p.ldB`;
    text.push(`if ((k & ${lanes - 1}u) == 0u) { h = ${shared.head('b', vec ? at : `(${at}) / 4u`)}; }`);
    const of = (part: string, q: number): string => `subgroupShuffle(h.${part}, (k & ${lanes - 1}u) + ${q}u)`;
    for (const q of range(4)) text.push(`let h${q} = vec2f(${of('x', q)}, ${of('y', q)});`);
  }
  if (b.trans && run) {
    // What a run of neighbours shares is read once for all of them: whole runs make up a chunk.
    const at = (j: number) => (vec ? `ib${j} + k / 4u` : `(ib${j} + k) / 4u`);
    const heads = range(4 * cols).map((j) => `h${j} = ${run.head('b', at(j))};`);
    text.push(`if ((k & ${run.length - 1}u) == 0u) { ${heads.join(' ')} }`);
    for (const c of range(cols))
      for (const j of range(4)) text.push(`let s${c}_${j} = ${run.values('b', at(4 * c + j), `h${4 * c + j}`)};`);
  }
  for (const c of range(cols)) {
    if (b.trans) {
      if (!run) for (const j of range(4)) text.push(`let s${c}_${j} = ${alongK('b', `ib${4 * c + j}`)};`);
      for (const q of range(4))
        text.push(
          `let b${q}_${c} = vec4f(${range(4)
            .map((j) => `s${c}_${j}.${XYZW[q]}`)
            .join(', ')});`,
        );
    } else {
      for (const q of range(4))
        text.push(`let b${q}_${c} = ${across('b', `atB${c}`, `${q}u`, `ib${c}`, `p.N / ${u}u`)};`);
      text.push(`atB${c} += 4u * p.ldB;`);
    }
  }
  // Row after row: its sums are touched once a step, not four times, for they do not all fit in registers.
  for (const i of range(rows)) {
    for (const q of range(4)) {
      const [t, component] = a.trans ? [q * quads + (i >> 2), i & 3] : [i, q];
      const held = `a${Math.floor(t / lanes)}.${XYZW[component]}`;
      text.push(`let v${q}_${i} = vec4f(${lanes > 1 ? ofLane(held, t % lanes) : held});`);
      for (const c of range(cols)) text.push(`c${i}_${c} = fma(v${q}_${i}, b${q}_${c}, c${i}_${c});`);
    }
  }
  text.push('}');
  if (long) text.push(sums.map((n) => `all${n} += c${n}; c${n} = vec4f();`).join('\n'), '}');

  // One store in the text, whatever the epilogue loads. The sum is chosen bit by bit: an array would be kept in memory, and take
  // these drivers longer to compile than the product itself.
  const names = sums.map((n) => (long ? `all${n}` : `c${n}`));
  text.push(`
if (row >= p.M || col >= p.N) { return; }
for (var i = 0u; i < min(${rows}u, p.M - row); i++) {
  for (var c = 0u; c < min(${cols}u, (p.N - col + 3u) / 4u); c++) {
    let n = i * ${cols}u + c;
    put(slice, row + i, col + 4u * c, ${chosen(names, 'n')});
  }
}`);
  return text.join('\n');
}

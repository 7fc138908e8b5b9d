/**
 * Matmul without workgroup memory, for CPU drivers, where a load costs as much as four or five vector instructions.
 *
 * A lane holds `rows` × 4·`cols` sums. Per step of four k it loads the b values of its own columns; the a values are the
 * same for all lanes, so each lane loads a different part of them and `subgroupBroadcast` hands them round. Without
 * subgroups every thread loads its own a values, with fewer rows to a thread. Few loads stand in the text, because
 * these drivers compile unrolled loads in quadratic time.
 */
import { range, XYZW, type Plan, type ScalarConfig } from './plan.ts';

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
  /** k `k` may pass the end: read a safe place, then take zero. */
  const at = (k: string) => (guard ? `min(${k}, p.K - 1u)` : k);
  const keep = (k: string, v: string, zero: string) => (guard ? `select(${zero}, ${v}, ${k} < k1)` : v);
  /** Four values along the contiguous axis from `i`, where that axis is k. */
  const alongK = (name: 'a' | 'b', base: string) => vec
    ? read[name].read(name, `${base} + k / 4u`)
    : `vec4f(${range(4).map((c) => keep(`k + ${c}u`, read[name].read(name, `${base} + ${at(`k + ${c}u`)}`), '0.0')).join(', ')})`;
  /** Four values along rows of a or columns of b, of the k at hand. `i` is the first one's index, `end` their count. */
  const across = (name: 'a' | 'b', base: string, k: string, ld: string, i: string, end: string) => keep(k, vec
    ? read[name].read(name, `${base} + ${at(k)} * ${ld} + min(${i}, ${end} - 1u)`)
    : `vec4f(${range(4).map((c) => read[name].read(name, `${base} + ${at(k)} * ${ld} + min(${i} + ${c}u, ${end} - 1u)`)).join(', ')})`, 'vec4f()');

  const text: string[] = [`
let tile = wid.x + wid.y * nwg.x;
if (tile >= p.tiles) { return; }
let slice = tile / (p.tilesM * p.tilesN);
let part = slice % p.splits;
let batch = slice / p.splits;
let row = ((tile / p.tilesN) % p.tilesM) * ${rows * workgroup[1]}u + lid.y * ${rows}u;
let col = (tile % p.tilesN) * ${4 * cols * workgroup[0]}u + ${x} * ${4 * cols}u;
let k1 = min(p.K, (part + 1u) * p.chunk);
let baseA = batch * p.strideA;
let baseB = batch * p.strideB;`];

  for (const j of range(loadsA)) {
    text.push(`let t${j} = ${lanes > rows ? `lane % ${rows}u` : `${lane} + ${j * lanes}u`};`);
    text.push(a.trans
      ? `let ka${j} = t${j} / ${quads}u; let ia${j} = row / ${u}u + (t${j} % ${quads}u) * ${4 / u}u;`
      : `let ia${j} = baseA + min(row + t${j}, p.M - 1u) * p.ldA;`);
  }
  for (const j of range(4 * cols)) if (b.trans) text.push(`let ib${j} = baseB + min(col + ${j}u, p.N - 1u) * p.ldB;`);
  for (const i of range(rows)) for (const c of range(cols)) text.push(`var c${i}_${c} = vec4f();`);

  text.push('for (var k = part * p.chunk; k < k1; k += 4u) {');
  for (const j of range(loadsA)) {
    text.push(`let a${j} = ${a.trans ? across('a', 'baseA', `(k + ka${j})`, 'p.ldA', `ia${j}`, `p.M / ${u}u`) : alongK('a', `ia${j}`)};`);
  }
  for (const c of range(cols)) {
    if (b.trans) {
      for (const j of range(4)) text.push(`let s${c}_${j} = ${alongK('b', `ib${4 * c + j}`)};`);
      for (const q of range(4)) text.push(`let b${q}_${c} = vec4f(${range(4).map((j) => `s${c}_${j}.${XYZW[q]}`).join(', ')});`);
    } else {
      for (const q of range(4)) text.push(`let b${q}_${c} = ${across('b', 'baseB', `(k + ${q}u)`, 'p.ldB', `(col / ${u}u + ${(c * 4) / u}u)`, `p.N / ${u}u`)};`);
    }
  }
  for (const q of range(4)) {
    for (const i of range(rows)) {
      const [t, component] = a.trans ? [q * quads + (i >> 2), i & 3] : [i, q];
      const held = `a${Math.floor(t / lanes)}.${XYZW[component]}`;
      text.push(`let v${q}_${i} = vec4f(${lanes > 1 ? `subgroupBroadcast(${held}, ${t % lanes}u)` : held});`);
      for (const c of range(cols)) text.push(`c${i}_${c} = fma(v${q}_${i}, b${q}_${c}, c${i}_${c});`);
    }
  }
  text.push('}');

  // One store in the text, whatever the epilogue loads.
  text.push(`
var sums = array<vec4f, ${rows * cols}>(${range(rows).flatMap((i) => range(cols).map((c) => `c${i}_${c}`)).join(', ')});
if (row >= p.M || col >= p.N) { return; }
for (var i = 0u; i < min(${rows}u, p.M - row); i++) {
  for (var c = 0u; c < min(${cols}u, (p.N - col + 3u) / 4u); c++) {
    put(slice, row + i, col + 4u * c, sums[i * ${cols}u + c]);
  }
}`);
  return text.join('\n');
}

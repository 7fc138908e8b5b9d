/**
 * One template for every row operation and tier: passes that reduce along the row, then one that writes.
 *
 * RMS normalisation, 8 lanes a row:
 *
 *     for (var c = me; c < p.steps; c += 8u) { let x = xs[base + c]; u0_0 = u0_0 + x * x; }
 *     let r0 = total_sum2(u0_0, u0_1, li); let inv = inverseSqrt(r0.x / count + eps);
 *     for (var c = me; c < p.steps; c += 8u) { let x = xs[base + c]; ys[base + c] = epilogue(x * inv, …); }
 */
import type { Real } from '../special.ts';
import type { RowsFamily, RowsPlan } from './plan.ts';

/**
 * Walks the row once: `terms` (up to four expressions of x, dy and what `from`
 * declares) are joined; `after` reads the totals as r.x, r.y, ….
 */
interface Pass {
  join: 'sum' | 'max';
  from?: string;
  terms: readonly string[];
  after: string;
}

/**
 * `let` names made by a pass's `after` are at hand in later passes and in `result`, an expression of x, dy for the output;
 * x0 is the row's first x.
 */
export interface RowOperation {
  name: RowsFamily;
  inputs: readonly ('x' | 'dy')[];
  passes: readonly Pass[];
  result: string;
  /** Functions of f32 or vec4f that the terms and the result call. */
  functions?: (t: Real) => string;
  /** Operations for an element, to count flops. */
  work: number;
}

const START = { sum: '0.0', max: '-3.4028234e38' };
const join = (kind: Pass['join'], a: string, b: string) => (kind === 'sum' ? `${a} + ${b}` : `max(${a}, ${b})`);

const totals = (pass: Pass) => (pass.terms.length > 2 ? 4 : 2);

/** `total_sum2(u0, u1)`: each joined over its components and over the threads of the row. */
function totalFunction(plan: RowsPlan, kind: Pass['join'], n: 2 | 4): string {
  const t = plan.vec ? 'vec4f' : 'f32';
  const inside = (w: string) =>
    plan.vec ? join(kind, join(kind, `${w}.x`, `${w}.y`), join(kind, `${w}.z`, `${w}.w`)) : w;
  const subgroup = kind === 'sum' ? 'subgroupAdd' : 'subgroupMax';
  const across = {
    none: 'return r;',
    subgroup: `return ${subgroup}(r);`,
    tree: `workgroupBarrier();
  part[li] = ${n === 2 ? 'vec4f(r, 0.0, 0.0)' : 'r'};
  for (var s = ${plan.share / 2}u; s > 0u; s >>= 1u) {
    workgroupBarrier();
    if (li < s) { part[li] = ${join(kind, 'part[li]', 'part[li + s]')}; }
  }
  workgroupBarrier();
  return ${n === 2 ? 'part[0].xy' : 'part[0]'};`,
  }[plan.reduce];
  const names = Array.from({ length: n }, (_, i) => `u${i}`);
  return `fn total_${kind}${n}(${names.map((u) => `${u}: ${t}`).join(', ')}, li: u32) -> vec${n}f {
  let r = vec${n}f(${names.map(inside).join(', ')});
  ${across}
}`;
}

export function rowFunctions(plan: RowsPlan, op: RowOperation): string {
  return [
    plan.reduce === 'tree' ? `var<workgroup> part: array<vec4f, ${plan.share}>;` : '',
    op.functions?.(plan.vec ? 'vec4f' : 'f32') ?? '',
    ...new Set(op.passes.map((pass) => totalFunction(plan, pass.join, totals(pass)))),
  ].join('\n');
}

export function rowMain(plan: RowsPlan, op: RowOperation): string {
  const t = plan.vec ? 'vec4f' : 'f32';
  const group = 'wid.x + wid.y * nwg.x';
  const walk = (body: string) => `for (var c = me; c < p.steps; c += ${plan.share}u) {
${op.inputs.map((n) => `let ${n} = ${n}s[base + c];`).join(' ')}
${body} }`;
  return [
    plan.share > 1 ? `let row = ${group}; let me = li;` : `let row = (${group}) * ${plan.threads}u + li; let me = 0u;`,
    `if (row >= p.rows) { return; }
let base = row * p.steps;
let count = f32(p.cols);
let eps = bitcast<f32>(p.eps);`,
    op.result.includes('x0') ? `let x0 = xs[base]${plan.vec ? '.x' : ''};` : '',
    ...op.passes.map((pass, i) => {
      const sums = Array.from({ length: totals(pass) }, (_, k) => `u${i}_${k}`);
      return `${sums.map((u) => `var ${u} = ${t}(${START[pass.join]});`).join(' ')}
${walk(`${pass.from ?? ''} ${pass.terms.map((term, k) => `${sums[k]} = ${join(pass.join, sums[k]!, term)};`).join(' ')}`)}
let r${i} = total_${pass.join}${sums.length}(${sums.join(', ')}, li);
${pass.after.replaceAll('r.', `r${i}.`)}`;
    }),
    walk(`ys[base + c] = epilogue(${op.result}, (base + c) * ${plan.vec ? 4 : 1}u, row, c * ${plan.vec ? 4 : 1}u);`),
  ].join('\n');
}

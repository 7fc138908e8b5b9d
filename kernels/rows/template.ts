/** One template for every row operation and tier: passes that reduce along the row, then one that writes. */
import type { RowsFamily, RowsPlan } from './plan.ts';

/** Walks the row once: `each` updates u and v (T: f32 or vec4f, both start at `start`) from x, dy; `after` reads their totals r.x, r.y. */
export interface Pass {
  join: 'sum' | 'max';
  each: string;
  after: string;
}

/** `let` names made by a pass's `after` are at hand in later passes and in `result`, an expression of x, dy for the output. */
export interface RowOperation {
  name: RowsFamily;
  inputs: readonly ('x' | 'dy')[];
  passes: readonly Pass[];
  result: string;
  /** Operations for an element, to count flops. */
  work: number;
}

const START = { sum: '0.0', max: '-3.4028234e38' };
const join = (kind: Pass['join'], a: string, b: string) => (kind === 'sum' ? `${a} + ${b}` : `max(${a}, ${b})`);

/** `total_sum(u, v)`: both joined over the components and over the threads of the row. */
function totalFunction(plan: RowsPlan, kind: Pass['join']): string {
  const t = plan.vec ? 'vec4f' : 'f32';
  const inside = (w: string) => (plan.vec ? join(kind, join(kind, `${w}.x`, `${w}.y`), join(kind, `${w}.z`, `${w}.w`)) : w);
  const subgroup = kind === 'sum' ? 'subgroupAdd' : 'subgroupMax';
  const across = {
    none: 'return r;',
    subgroup: `return vec2f(${subgroup}(r.x), ${subgroup}(r.y));`,
    tree: `workgroupBarrier();
  part[li] = r;
  for (var s = ${plan.share / 2}u; s > 0u; s >>= 1u) {
    workgroupBarrier();
    if (li < s) { part[li] = ${join(kind, 'part[li]', 'part[li + s]')}; }
  }
  workgroupBarrier();
  return part[0];`,
  }[plan.reduce];
  return `fn total_${kind}(u: ${t}, v: ${t}, li: u32) -> vec2f {\n  let r = vec2f(${inside('u')}, ${inside('v')});\n  ${across}\n}`;
}

export function rowFunctions(plan: RowsPlan, op: RowOperation): string {
  return [
    plan.reduce === 'tree' ? `var<workgroup> part: array<vec2f, ${plan.share}>;` : '',
    ...new Set(op.passes.map((pass) => totalFunction(plan, pass.join))),
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
    ...op.passes.map((pass, i) => `var u${i} = ${t}(${START[pass.join]}); var v${i} = u${i};
${walk(`var u = u${i}; var v = v${i}; ${pass.each} u${i} = u; v${i} = v;`)}
let r${i} = total_${pass.join}(u${i}, v${i}, li);
${pass.after.replaceAll('r.', `r${i}.`)}`),
    walk(`ys[base + c] = ${op.result};`),
  ].join('\n');
}

/**
 * Attention through workgroup memory, for GPUs. A workgroup of 8 × 8 threads owns 32 rows (queries, or keys in the kernel
 * for dK and dV) and meets 32 rows of the other side at a time. Scores and results are both small matmuls of k-major
 * tiles: thread (tx, ty) adds tileX[k][ty] ⊗ tileY[k][tx] to four vec4, first along D for the scores (both staged
 * transposed), then along the other side's rows for the results (weights transposed in registers, rows staged as they lie).
 *
 * Forward:
 *
 *     tileX[(4u * tx) * 9u + ty] = vec4f(r[0].x, r[1].x, r[2].x, r[3].x); …    // queries, k-major
 *     s0 = fma(vec4f(x0.x), y0, s0); s1 = fma(vec4f(x0.y), y0, s1); …          // scores of 4 queries with 4 keys
 *     tileY[tx * 8u + ty] = vec4f(max(max(s0.x, s0.y), max(s0.z, s0.w)), …);   // maxima of the rows, of eight threads each
 *     s0 = select(vec4f(), exp(s0 - m.x), valid); l = l * keep + …;
 *     sum_o0_0 *= keep.x; … sum_o0_0 += part0; …
 */
import { range, XYZW } from '../print.ts';
import { TILE, type AttentionPlan } from './plan.ts';
import { LOWEST, prologue } from './wgsl.ts';

/** vec4 a tile row, with one of padding against bank conflicts. */
const LD = TILE / 4 + 1;
/** D is walked in chunks of TILE columns: TILE / 4 vec4 steps. */
const chunks = (plan: AttentionPlan) => Math.ceil(plan.steps / (TILE / 4));

/** `tileX` has what tiles of own rows give to the scores, then the weights made of these. */
export const tiledVariables = (): string =>
  ['tileX', 'tileY'].map((name) => `var<workgroup> ${name}: array<vec4f, ${TILE * LD}>;`).join('\n');

/** This thread's 4 × 4 block: rows 4·by… of a tensor, vec4 number `step`, transposed so that D is the tile's k axis. */
const stageTransposed = (tile: string, tensor: string, first: string, count: string) => `
{ var r: array<vec4f, 4>;
for (var i = 0u; i < p.four; i++) { r[i] = vec4f(); if (${first} + 4u * ty + i < ${count} && step < p.steps) { r[i] = get_${tensor}((b * ${count} + ${first} + 4u * ty + i) * p.H + h, step); } }
${range(4)
  .map(
    (q) =>
      `${tile}[(4u * tx + ${q}u) * ${LD}u + ty] = vec4f(${range(4)
        .map((i) => `r[${i}].${XYZW[q]}`)
        .join(', ')});`,
  )
  .join('\n')} }`;

/** The same block as it lies: the rows are the tile's k axis. */
const stageRows = (tile: string, tensor: string, first: string, count: string, step: string) => `
for (var i = 0u; i < p.four; i++) { var v = vec4f(); if (${first} + 4u * ty + i < ${count} && ${step} < p.steps) { v = get_${tensor}((b * ${count} + ${first} + 4u * ty + i) * p.H + h, ${step}); } ${tile}[(4u * ty + i) * ${LD}u + tx] = v; }`;

/** acc0…acc3 += x[k][ty] ⊗ y[k][tx] over a tile. */
function multiply(acc: (i: number) => string, x: string, y: string): string {
  const step = range(4).map(
    (q) => `let x${q} = ${x}[fromX + ${q * LD}u]; let y${q} = ${y}[fromY + ${q * LD}u];
${range(4)
  .map((i) => `${acc(i)} = fma(vec4f(x${q}.${XYZW[i]}), y${q}, ${acc(i)});`)
  .join(' ')}`,
  );
  // The remainder tells Tint that no place is out of bounds; compilers see that it changes nothing.
  return `for (var step = 0u; step < p.eighth; step++) { let k = step % ${TILE / 4}u; let fromX = 4u * k * ${LD}u + ty; let fromY = 4u * k * ${LD}u + tx;\n${step.join('\n')} }`;
}

/** sum0…sum3 (own row by other vec4) = own · other along D. */
const scores = (sum: string, own: string, ownCount: string, other: string, otherCount: string) => `
${range(4)
  .map((i) => `var ${sum}${i} = vec4f();`)
  .join(' ')}
for (var d = 0u; d < p.steps; d += ${TILE / 4}u) {
let step = d + tx;
workgroupBarrier();
${stageTransposed('tileX', own, 'first', ownCount)}
${stageTransposed('tileY', other, 't0', otherCount)}
workgroupBarrier();
${multiply((i) => `${sum}${i}`, 'tileX', 'tileY')} }`;

/** Once nobody reads what lay there. */
const stageWeights = (sum: string) =>
  `workgroupBarrier();
${range(4)
  .map(
    (q) =>
      `tileX[(4u * tx + ${q}u) * ${LD}u + ty] = vec4f(${range(4)
        .map((i) => `${sum}${i}.${XYZW[q]}`)
        .join(', ')});`,
  )
  .join('\n')}`;

/**
 * result[chunk] += weightsᵀ · rows of the other tensor, chunk by chunk of D. Each tile is summed from zero: added one by one to
 * a long running sum, equal terms would all round the same way.
 */
const accumulate = (plan: AttentionPlan, result: string, other: string, otherCount: string) =>
  range(chunks(plan))
    .map(
      (c) => `
workgroupBarrier();
${stageRows('tileY', other, 't0', otherCount, `(${(c * TILE) / 4}u + tx)`)}
workgroupBarrier();
{ ${range(4)
        .map((i) => `var part${i} = vec4f();`)
        .join(' ')}
${multiply((i) => `part${i}`, 'tileX', 'tileY')}
${range(4)
  .map((i) => `${result}${c}_${i} += part${i};`)
  .join(' ')} }`,
    )
    .join('\n');

const results = (plan: AttentionPlan, names: readonly string[]) =>
  names
    .flatMap((n) => range(chunks(plan)).flatMap((c) => range(4).map((i) => `var ${n}${c}_${i} = vec4f();`)))
    .join(' ');

const store = (plan: AttentionPlan, name: string, count: string, factor = '') =>
  range(4)
    .map(
      (i) => `
if (first + 4u * ty + ${i}u < ${count}) { let row = (b * ${count} + first + 4u * ty + ${i}u) * p.H + h;
${range(chunks(plan))
  .map(
    (c) =>
      `if (${(c * TILE) / 4}u + tx < p.steps) { put_${name}(row, ${(c * TILE) / 4}u + tx, sum_${name}${c}_${i}${factor && ` * ${factor}.${XYZW[i]}`}); }`,
  )
  .join('\n')} }`,
    )
    .join('\n');

const start = (lengths: boolean) => `${prologue(lengths)}
let tx = li % 8u; let ty = li / 8u;
let first = (tile % p.own) * ${TILE}u;`;

/** What the eight threads of four rows have, put together: `of` is a vec4f, one number a row. */
const together = (of: string, name: string, join: (a: string, b: string) => string) => `workgroupBarrier();
tileY[tx * 8u + ty] = ${of};
workgroupBarrier();
let ${name} = ${range(8)
  .map((j) => `tileY[${8 * j}u + ty]`)
  .reduce(join)};`;

const ofRows = (f: (v: string) => string) =>
  `vec4f(${range(4)
    .map((i) => f(`s${i}`))
    .join(', ')})`;

export function forwardMain(plan: AttentionPlan, lengths: boolean): string {
  const eachRow = (f: (i: number, part: string) => string) => XYZW.map((part, i) => f(i, part)).join(' ');
  return [
    start(lengths),
    results(plan, ['sum_o']),
    // Of the thread's four rows: the maximum so far, and the sum of the weights that the thread itself made.
    `var m = vec4f(${LOWEST}); var l = vec4f();`,
    `for (var t0 = 0u; t0 < len; t0 += ${TILE}u) {`,
    scores('s', 'q', 'p.N', 'k', 'p.L'),
    'let valid = vec4u(t0 + 4u * tx) + vec4u(0u, 1u, 2u, 3u) < vec4u(len);',
    eachRow((i) => `s${i} = select(vec4f(${LOWEST}), s${i} * scale, valid);`),
    together(
      ofRows((v) => `max(max(${v}.x, ${v}.y), max(${v}.z, ${v}.w))`),
      'top',
      (a, b) => `max(${a}, ${b})`,
    ),
    'let next = max(m, top); let keep = exp(m - next); m = next;',
    eachRow((i, part) => `s${i} = select(vec4f(), exp(s${i} - m.${part}), valid);`),
    `l = l * keep + ${ofRows((v) => `(${v}.x + ${v}.y + ${v}.z + ${v}.w)`)};`,
    eachRow((i, part) =>
      range(chunks(plan))
        .map((c) => `sum_o${c}_${i} *= keep.${part};`)
        .join(' '),
    ),
    stageWeights('s'),
    accumulate(plan, 'sum_o', 'v', 'p.L'),
    '}',
    together('l', 'total', (a, b) => `${a} + ${b}`),
    `let inv = select(vec4f(), 1.0 / total, vec4<bool>(len > 0u));
if (tx == 0u) {
${eachRow(
  (i, part) =>
    `if (first + 4u * ty + ${i}u < p.N) { lse[bh * p.N + first + 4u * ty + ${i}u] = select(${LOWEST}, m.${part} + log(max(total.${part}, 1e-37)), len > 0u); }`,
)}
}`,
    store(plan, 'o', 'p.N', 'inv'),
  ].join('\n');
}

export function gradQueryMain(plan: AttentionPlan, lengths: boolean): string {
  return [
    start(lengths),
    results(plan, ['sum_dq']),
    ...range(4).map((i) => `let stat${i} = stats[bh * p.N + min(first + 4u * ty + ${i}u, p.N - 1u)];`),
    `for (var t0 = 0u; t0 < len; t0 += ${TILE}u) {`,
    scores('s', 'q', 'p.N', 'k', 'p.L'),
    scores('e', 'dy', 'p.N', 'v', 'p.L'),
    `let valid = vec4u(t0 + 4u * tx) + vec4u(0u, 1u, 2u, 3u) < vec4u(len);`,
    ...range(4).map(
      (i) => `e${i} = select(vec4f(), exp(s${i} * scale - stat${i}.x), valid) * (e${i} - stat${i}.y) * scale;`,
    ),
    stageWeights('e'),
    accumulate(plan, 'sum_dq', 'k', 'p.L'),
    '}',
    store(plan, 'dq', 'p.N'),
  ].join('\n');
}

export function gradKeyMain(plan: AttentionPlan, lengths: boolean): string {
  const stat = (part: string) =>
    `vec4f(${range(4)
      .map((j) => `stat${j}.${part}`)
      .join(', ')})`;
  return [
    start(lengths),
    results(plan, ['sum_dk', 'sum_dv']),
    'let end = select(0u, p.N, first < len);',
    `for (var t0 = 0u; t0 < end; t0 += ${TILE}u) {`,
    ...range(4).map((j) => `let stat${j} = stats[bh * p.N + min(t0 + 4u * tx + ${j}u, p.N - 1u)];`),
    scores('s', 'k', 'p.L', 'q', 'p.N'),
    scores('e', 'v', 'p.L', 'dy', 'p.N'),
    `let lse = ${stat('x')}; let delta = ${stat('y')};
let inside = vec4u(t0 + 4u * tx) + vec4u(0u, 1u, 2u, 3u) < vec4u(p.N);`,
    ...range(4).map(
      (i) =>
        `s${i} = select(vec4f(), exp(s${i} * scale - lse), inside & vec4<bool>(first + 4u * ty + ${i}u < len)); e${i} = s${i} * (e${i} - delta) * scale;`,
    ),
    stageWeights('s'),
    accumulate(plan, 'sum_dv', 'dy', 'p.N'),
    stageWeights('e'),
    accumulate(plan, 'sum_dk', 'q', 'p.N'),
    '}',
    store(plan, 'dk', 'p.L'),
    store(plan, 'dv', 'p.L'),
  ].join('\n');
}

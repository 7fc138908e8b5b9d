/**
 * Attention by subgroup matrices: operands in the unit's type, sums, softmax and statistics in f32. A workgroup owns `own` rows
 * (queries, or keys in the kernel for dK and dV), of which each subgroup has its share, and meets `others` rows of the other
 * side at a time. A result can be neither read by element nor turned into an operand: scores pass through workgroup memory,
 * column by column, where a thread has one row, and come back as weights.
 *
 * f16, where the unit takes it, bounds operands to 65504 and drops what is below 6e-8: the compiler scales cotangents. Weights are off by
 * 2^-12 of themselves, all the same way where keys are alike (padded text): results are divided by the sum of the rounded ones.
 *
 * Forward:
 *
 *     sum0_0 = subgroupMatrixMultiplyAccumulate(x0, y0, sum0_0);               // queries by keys
 *     subgroupMatrixStore<col_major>(&s, rowS, sum0_0, 20u);                   // a thread has a part of one row
 *     let next = select(m, top, top > m + 5.0); let keep = exp(m - next);      // results are rescaled when it pays
 *     weights0[r * 24u + c] = f16(exp(s[c * 20u + r] * scale - m));
 *     o0_0 = subgroupMatrixMultiplyAccumulate(x0, y, o0_0);                    // weights by values
 */
import { inSteps, mma, type MatrixUnit, type Mma } from '../mma.ts';
import { range, XYZW } from '../print.ts';
import type { AttentionPlan, Kind, MatrixTile } from './plan.ts';
import { LOWEST, prologue } from './wgsl.ts';

/** Elements behind a row of f16, against bank conflicts; rows begin at multiples of 16 bytes, as the units want. */
const PAD = 8;
const PAD_F32 = 4;

/** Tiles a kernel holds: rows of its own side, rows it meets, scores, and weights made of them. */
const TILES: Record<Kind, { own: number; met: number; scores: readonly string[]; weights: number }> = {
  forward: { own: 1, met: 1, scores: ['s'], weights: 1 },
  gradQuery: { own: 2, met: 1, scores: ['s', 'e'], weights: 1 },
  gradKey: { own: 2, met: 2, scores: ['s', 'e'], weights: 2 },
};

/** D with its padding: whole units. */
export const paddedWidth = (steps: number, { N, K }: MatrixUnit): number =>
  Math.ceil((4 * steps) / Math.max(N, K)) * Math.max(N, K);

function layout({ own, others }: MatrixTile, steps: number, unit: MatrixUnit) {
  const width = paddedWidth(steps, unit);
  return {
    width,
    ld: width + PAD,
    ldScores: own + PAD_F32,
    ldWeights: others + PAD,
    sizes: {
      own: own * (width + PAD),
      met: others * (width + PAD),
      scores: others * (own + PAD_F32),
      weights: own * (others + PAD),
    },
  };
}

export function matrixBytes(tile: MatrixTile, steps: number, unit: MatrixUnit, kind: Kind): number {
  const { sizes } = layout(tile, steps, unit);
  const { own, met, scores, weights } = TILES[kind];
  return (
    mma(unit).bytes * (own * sizes.own + met * sizes.met + weights * sizes.weights) +
    4 * (scores.length * sizes.scores + tile.subgroups * unit.lanes + tile.own + 2)
  );
}

export function matrixVariables(plan: AttentionPlan, kind: Kind): string {
  const { tile, unit } = plan.matrix!;
  const { sizes } = layout(tile, plan.steps, unit);
  const { own, met, scores, weights } = TILES[kind];
  const array = (name: string, type: string, size: number) => `var<workgroup> ${name}: array<${type}, ${size}>;`;
  const { element } = mma(unit);
  return [
    ...range(own).map((i) => array(`own${i}`, element, sizes.own)),
    ...range(met).map((i) => array(`met${i}`, element, sizes.met)),
    ...scores.map((name) => array(name, 'f32', sizes.scores)),
    ...range(weights).map((i) => array(`weights${i}`, element, sizes.weights)),
    kind === 'forward'
      ? `${array('ofThread', 'f32', plan.threads)} ${array('ofRow', 'f32', tile.own)} var<workgroup> votes: atomic<u32>; var<workgroup> grown: u32;`
      : '',
  ].join('\n');
}

/** The parts the three kernels are made of. */
class Printer {
  readonly m: Mma;
  private readonly rows: number[];
  private readonly wide: number;
  private readonly g: ReturnType<typeof layout>;
  private readonly tile: MatrixTile;
  private readonly unit: MatrixUnit;
  private readonly plan: AttentionPlan;

  constructor(plan: AttentionPlan) {
    const { tile, unit } = plan.matrix!;
    this.m = mma(unit);
    this.plan = plan;
    this.tile = tile;
    this.unit = unit;
    this.g = layout(tile, plan.steps, unit);
    this.rows = range(tile.own / tile.subgroups / unit.M);
    this.wide = tile.others / unit.N;
  }

  /** A thread's row `r`, of which it sees the columns of its `part`; its subgroup's rows begin at `rowS`. */
  start(lengths: boolean): string {
    const { own, others, subgroups } = this.tile;
    return `${prologue(lengths)}
let first = (tile % p.own) * ${own}u;
let rowS = (li / ${this.unit.lanes}u) * ${own / subgroups}u;
let r = li % ${own}u;
let c0 = (li / ${own}u) * ${(others * own) / this.plan.threads}u;
let c1 = c0 + ${(others * own) / this.plan.threads}u;`;
  }

  private results = (name: string) =>
    this.rows.flatMap((i) => range(this.g.width / this.unit.N).map((j) => ({ name: `${name}${i}_${j}`, i, j })));

  zeros = (name: string): string =>
    this.results(name)
      .map((f) => this.m.zeros(f.name))
      .join(' ');

  /** All threads copy rows of a tensor, zero past its end and past D. */
  stage(to: string, tensor: string, first: string, count: string, lines: number): string {
    const { width, ld } = this.g;
    return `for (var u = li; u < ${(lines * width) / 4}u; u += ${this.plan.threads}u) {
let line = u / ${width / 4}u; let four = u % ${width / 4}u;
var v = vec4f();
if (${first} + line < ${count} && four < p.steps) { v = get_${tensor}((b * ${count} + ${first} + line) * p.H + h, four); }
let halves = ${this.m.round('v')}; let at = line * ${ld}u + 4u * four;
${range(4)
  .map((i) => `${to}[at + ${i}u] = halves.${XYZW[i]};`)
  .join(' ')} }`;
  }

  stageOwn = (to: string, tensor: string, count: string): string =>
    this.stage(to, tensor, 'first', count, this.tile.own);
  stageMet = (to: string, tensor: string, count: string): string =>
    this.stage(to, tensor, 't0', count, this.tile.others);

  /** scores[c][r] = own row r · met row c. */
  scores(to: string, own: string, met: string): string {
    const { M, N } = this.unit;
    const { width, ld, ldScores } = this.g;
    const sums = this.rows.flatMap((i) => range(this.wide).map((j) => ({ name: `sum${i}_${j}`, i, j })));
    return [
      '{',
      ...sums.map((f) => this.m.zeros(f.name)),
      inSteps(this.unit, width, 'p.width', (d) =>
        [
          ...this.rows.map((i) =>
            this.m.load('left', `x${i}`, { tile: own, at: `(rowS + ${i * M}u) * ${ld}u + ${d}`, ld }),
          ),
          ...range(this.wide).map((j) =>
            this.m.load('right', `y${j}`, { tile: met, at: `${j * N * ld}u + ${d}`, ld, across: true }),
          ),
          ...sums.map(({ name, i, j }) => this.m.multiply(name, `x${i}`, `y${j}`)),
        ].join('\n'),
      ),
      ...sums.map(({ name, i, j }) =>
        this.m.store(name, { tile: to, at: `${j * N * ldScores}u + rowS + ${i * M}u`, ld: ldScores, across: true }),
      ),
      '}',
    ].join('\n');
  }

  /** The thread's weights of this tile, from statements on `at`, the place of the score of column `c`. */
  weigh = (body: (put: (i: number, v: string) => string) => string): string =>
    `for (var c = c0; c < c1; c++) { let at = c * ${this.g.ldScores}u + r; ${body((i, v) => `weights${i}[r * ${this.g.ldWeights}u + c] = ${v};`)} }`;

  /** result += weights · met rows. */
  accumulate(result: string, weights: string, met: string): string {
    const { M, N } = this.unit;
    const { ld, ldWeights, width } = this.g;
    return inSteps(this.unit, this.tile.others, 'p.others', (c) =>
      [
        ...this.rows.map((i) =>
          this.m.load('left', `x${i}`, {
            tile: weights,
            at: `(rowS + ${i * M}u) * ${ldWeights}u + ${c}`,
            ld: ldWeights,
          }),
        ),
        ...range(width / N).map(
          (j) => `{ ${this.m.load('right', 'y', { tile: met, at: `${c} * ${ld}u + ${j * N}u`, ld })}
${this.rows.map((i) => this.m.multiply(`${result}${i}_${j}`, `x${i}`, 'y')).join('\n')} }`,
        ),
      ].join('\n'),
    );
  }

  /** Results pass through `s`, as many columns at a time as it has. */
  private through(
    result: string,
    body: (first: number, columns: number, each: (print: (name: string, at: string) => string) => string) => string,
  ): string {
    const { M, N } = this.unit;
    const all = this.results(result);
    return range(Math.ceil(this.g.width / N / this.wide))
      .map((chunk) => {
        const mine = all.filter(({ j }) => Math.floor(j / this.wide) === chunk);
        const each = (print: (name: string, at: string) => string) =>
          mine
            .map(({ name, i, j }) => print(name, `${(j % this.wide) * N * this.g.ldScores}u + rowS + ${i * M}u`))
            .join('\n');
        return body(chunk * this.tile.others, (mine.length / this.rows.length) * N, each);
      })
      .join('\nworkgroupBarrier();\n');
  }

  /** Multiplies each row by its thread's `factor`. */
  rescale = (result: string, factor: string): string =>
    this.through(
      result,
      (
        _first,
        _columns,
        each,
      ) => `${each((name, at) => this.m.store(name, { tile: 's', at, ld: this.g.ldScores, across: true }))}
workgroupBarrier();
for (var c = c0; c < c1; c++) { s[c * ${this.g.ldScores}u + r] *= ${factor}; }
workgroupBarrier();
${each((name, at) => this.m.reload(name, { tile: 's', at, ld: this.g.ldScores, across: true }))}`,
    );

  put = (result: string, tensor: string, count: string, factor = ''): string => `workgroupBarrier();
${this.through(
  result,
  (
    first,
    columns,
    each,
  ) => `${each((name, at) => this.m.store(name, { tile: 's', at, ld: this.g.ldScores, across: true }))}
workgroupBarrier();
for (var u = li; u < ${(this.tile.own * columns) / 4}u; u += ${this.plan.threads}u) {
let line = u / ${columns / 4}u; let four = u % ${columns / 4}u; let at = 4u * four * ${this.g.ldScores}u + line;
if (first + line < ${count} && ${first / 4}u + four < p.steps) {
put_${tensor}((b * ${count} + first + line) * p.H + h, ${first / 4}u + four, vec4f(${range(4)
    .map((i) => `s[at + ${i * this.g.ldScores}u]`)
    .join(', ')})${factor && ` * ${factor}[line]`}); } }`,
)}`;
}

/**
 * A row's maximum may grow by this much before its sums are brought to the new one, which costs a way through workgroup memory:
 * weights stay below e^5 = 148, far from f16's end.
 */
const LAZY = '5.0';

export function forwardMain(plan: AttentionPlan, lengths: boolean): string {
  const { tile } = plan.matrix!;
  const k = new Printer(plan);
  const parts = range(plan.threads / tile.own);
  const others = (f: (at: string) => string) => parts.map((i) => f(`ofThread[${i * tile.own}u + r]`));
  return [
    k.start(lengths),
    k.zeros('o'),
    `var m = ${LOWEST}; var l = 0.0; var rounded = 0.0;`,
    k.stageOwn('own0', 'q', 'p.N'),
    `for (var t0 = 0u; t0 < len; t0 += ${tile.others}u) {
let turn = t0 / ${tile.others}u + 1u;
workgroupBarrier();`,
    k.stageMet('met0', 'k', 'p.L'),
    'workgroupBarrier();',
    k.scores('s', 'own0', 'met0'),
    'workgroupBarrier();',
    k.stageMet('met0', 'v', 'p.L'),
    `var top = ${LOWEST};
for (var c = c0; c < min(c1, len - t0); c++) { top = max(top, s[c * ${tile.own + PAD_F32}u + r] * scale); }
ofThread[li] = top;
workgroupBarrier();
${others((at) => `top = max(top, ${at});`).join(' ')}
let next = select(m, top, top > m + ${LAZY});
if (next > m) { atomicMax(&votes, turn); }
let keep = exp(m - next);
m = next; l *= keep; rounded *= keep;`,
    k.weigh(
      (put) =>
        `let w = select(0.0, exp(s[at] * scale - m), t0 + c < len); let e = ${k.m.round('w', 1)}; ${put(0, 'e')} l += w; rounded += f32(e);`,
    ),
    `workgroupBarrier();
if (li == 0u) { grown = atomicLoad(&votes); }
if (workgroupUniformLoad(&grown) == turn) {`,
    k.rescale('o', 'keep'),
    '}',
    k.accumulate('o', 'weights0', 'met0'),
    '}',
    `ofThread[li] = l;
workgroupBarrier();
let total = ${others((at) => at).join(' + ')};
workgroupBarrier();
ofThread[li] = rounded;
workgroupBarrier();
if (li < ${tile.own}u) {
ofRow[li] = select(0.0, 1.0 / (${others((at) => at).join(' + ')}), len > 0u);
if (first + li < p.N) { lse[bh * p.N + first + li] = select(${LOWEST}, m + log(max(total, 1e-37)), len > 0u); }
}`,
    k.put('o', 'o', 'p.N', 'ofRow'),
  ].join('\n');
}

export function gradQueryMain(plan: AttentionPlan, lengths: boolean): string {
  const k = new Printer(plan);
  return [
    k.start(lengths),
    k.zeros('dq'),
    k.stageOwn('own0', 'q', 'p.N'),
    k.stageOwn('own1', 'dy', 'p.N'),
    'let stat = stats[bh * p.N + min(first + r, p.N - 1u)];',
    `for (var t0 = 0u; t0 < len; t0 += ${plan.matrix!.tile.others}u) {`,
    'workgroupBarrier();',
    k.stageMet('met0', 'v', 'p.L'),
    'workgroupBarrier();',
    k.scores('e', 'own1', 'met0'),
    'workgroupBarrier();',
    k.stageMet('met0', 'k', 'p.L'),
    'workgroupBarrier();',
    k.scores('s', 'own0', 'met0'),
    'workgroupBarrier();',
    k.weigh(
      (put) =>
        `let w = select(0.0, exp(s[at] * scale - stat.x), t0 + c < len); ${put(0, k.m.round('w * (e[at] - stat.y) * scale', 1))}`,
    ),
    'workgroupBarrier();',
    k.accumulate('dq', 'weights0', 'met0'),
    '}',
    k.put('dq', 'dq', 'p.N'),
  ].join('\n');
}

export function gradKeyMain(plan: AttentionPlan, lengths: boolean): string {
  const k = new Printer(plan);
  return [
    k.start(lengths),
    k.zeros('dk'),
    k.zeros('dv'),
    k.stageOwn('own0', 'k', 'p.L'),
    k.stageOwn('own1', 'v', 'p.L'),
    'let mine = first + r < len; let end = select(0u, p.N, first < len);',
    `for (var t0 = 0u; t0 < end; t0 += ${plan.matrix!.tile.others}u) {`,
    'workgroupBarrier();',
    k.stageMet('met0', 'q', 'p.N'),
    k.stageMet('met1', 'dy', 'p.N'),
    'workgroupBarrier();',
    k.scores('s', 'own0', 'met0'),
    k.scores('e', 'own1', 'met1'),
    'workgroupBarrier();',
    k.weigh(
      (put) => `let stat = stats[bh * p.N + min(t0 + c, p.N - 1u)];
let w = select(0.0, exp(s[at] * scale - stat.x), mine & (t0 + c < p.N)); ${put(0, k.m.round('w', 1))} ${put(1, k.m.round('w * (e[at] - stat.y) * scale', 1))}`,
    ),
    'workgroupBarrier();',
    k.accumulate('dv', 'weights0', 'met1'),
    k.accumulate('dk', 'weights1', 'met0'),
    '}',
    k.put('dk', 'dk', 'p.L'),
    k.put('dv', 'dv', 'p.L'),
  ].join('\n');
}

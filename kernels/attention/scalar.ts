/**
 * Attention for CPU drivers: no workgroup memory, loops, few loads in the text. A lane owns one or two rows (queries, or
 * keys in the kernel for dK and dV) and meets `others` rows of the other side at a time. Each lane loads different
 * rows of those and hands them round.
 *
 * Forward, one query a lane, 16 keys at a time:
 *
 *     for (var t0 = 0u; t0 < len; t0 += 16u) {
 *       s0_0 = … dot of q with key t0, whose parts come round by subgroupShuffle …
 *       s0_0 = select(LOWEST, s0_0 * scale, t0 < len); top0 = max(top0, s0_0); …
 *       let keep0 = exp(m0 - top0); m0 = top0; l0 *= keep0; o … *= keep0;
 *       let w = exp(s0_0 - m0); l0 += w; o … = fma(w, v, o …); …
 *     }
 */
import { laneIndices, ofLane } from '../lanes.ts';
import { range, XYZW } from '../print.ts';
import type { AttentionPlan } from './plan.ts';
import { LOWEST, prologue } from './wgsl.ts';

/** How many of the other side's rows each lane loads. */
const loads = (plan: AttentionPlan) => Math.max(1, plan.others / plan.lanes);
const share = (plan: AttentionPlan, name: string, t: number, part = '') =>
  plan.lanes > 1 ? ofLane(`${name}${Math.floor(t / plan.lanes)}${part}`, t % plan.lanes) : `${name}${t}${part}`;

function ownPlaces(plan: AttentionPlan, count: string): string {
  const me = plan.lanes > 1 ? 'lane' : 'li';
  return [
    laneIndices(plan.lanes, 'steps'),
    `let first = (tile % p.own) * ${plan.own * plan.threads}u;`,
    ...range(plan.own).map(
      (r) =>
        `let own${r} = first + ${me} + ${r * plan.threads}u; let row${r} = (b * ${count} + min(own${r}, ${count} - 1u)) * p.H + h;`,
    ),
  ].join('\n');
}

function otherPlaces(plan: AttentionPlan, count: string): string {
  const at = (j: number) => (plan.lanes > 1 ? `(lane + ${j * plan.lanes}u) % ${plan.others}u` : `${j}u`);
  return range(loads(plan))
    .map((j) => `let i${j} = min(t0 + ${at(j)}, ${count} - 1u); let other${j} = (b * ${count} + i${j}) * p.H + h;`)
    .join('\n');
}

/** For every pair [sum, own tensor, other tensor]: sum{r}_{t} = own row r · other row t. */
function dots(plan: AttentionPlan, pairs: readonly (readonly [string, string, string])[]): string {
  const all = pairs.flatMap(([sum]) =>
    range(plan.own).flatMap((r) => range(plan.others).map((t) => `var ${sum}${r}_${t} = 0.0;`)),
  );
  const text = [...all, 'for (var d = 0u; d < p.steps; d++) {'];
  for (const [sum, own, other] of pairs) {
    for (const r of range(plan.own)) text.push(`let ${sum}x${r} = get_${own}(row${r}, d);`);
    for (const j of range(loads(plan))) text.push(`let ${sum}y${j} = get_${other}(other${j}, d);`);
    for (const t of range(plan.others)) {
      for (const c of XYZW) {
        text.push(`let ${sum}v${t}${c} = ${share(plan, `${sum}y`, t, `.${c}`)};`);
        for (const r of range(plan.own))
          text.push(`${sum}${r}_${t} = fma(${sum}x${r}.${c}, ${sum}v${t}${c}, ${sum}${r}_${t});`);
      }
    }
  }
  return [...text, '}'].join('\n');
}

/** For every [result, weight, other tensor]: result row r = result · keep + Σ_t weight{r}_{t} · other row t. */
function accumulate(plan: AttentionPlan, terms: readonly (readonly [string, string, string])[], keep?: string): string {
  const text = ['for (var d = 0u; d < p.steps; d++) {'];
  for (const [result, weight, other] of terms) {
    for (const j of range(loads(plan))) text.push(`let ${result}y${j} = get_${other}(other${j}, d);`);
    for (const r of range(plan.own)) text.push(`var ${result}a${r} = vec4f();`);
    for (const t of range(plan.others)) {
      text.push(`let ${result}v${t} = ${share(plan, `${result}y`, t)};`);
      for (const r of range(plan.own))
        text.push(`${result}a${r} = fma(vec4f(${weight}${r}_${t}), ${result}v${t}, ${result}a${r});`);
    }
    for (const r of range(plan.own))
      text.push(
        `${result}[${r * plan.steps}u + d] = ${result}[${r * plan.steps}u + d]${keep ? ` * ${keep}${r}` : ''} + ${result}a${r};`,
      );
  }
  return [...text, '}'].join('\n');
}

const store = (plan: AttentionPlan, count: string, names: readonly string[], factor: (r: number) => string) =>
  range(plan.own)
    .map(
      (r) =>
        `if (own${r} < ${count}) { for (var d = 0u; d < p.steps; d++) { ${names.map((n) => `put_${n}(row${r}, d, sum_${n}[${r * plan.steps}u + d]${factor(r)});`).join(' ')} } }`,
    )
    .join('\n');

const sums = (plan: AttentionPlan, names: readonly string[]) =>
  names.map((n) => `var sum_${n}: array<vec4f, ${plan.own * plan.steps}>;`).join(' ');

export function forwardMain(plan: AttentionPlan, lengths: boolean): string {
  const { own, others } = plan;
  const text = [prologue(lengths), ownPlaces(plan, 'p.N'), sums(plan, ['o'])];
  for (const r of range(own)) text.push(`var m${r} = ${LOWEST}; var l${r} = 0.0;`);
  text.push(`for (var t0 = 0u; t0 < len; t0 += ${others}u) {`, otherPlaces(plan, 'p.L'), dots(plan, [['s', 'q', 'k']]));
  for (const r of range(own)) {
    text.push(`var top${r} = m${r};`);
    for (const t of range(others))
      text.push(
        `s${r}_${t} = select(${LOWEST}, s${r}_${t} * scale, t0 + ${t}u < len); top${r} = max(top${r}, s${r}_${t});`,
      );
    text.push(`let keep${r} = exp(m${r} - top${r}); m${r} = top${r}; var ll${r} = 0.0;`);
    for (const t of range(others))
      text.push(`s${r}_${t} = select(0.0, exp(s${r}_${t} - top${r}), t0 + ${t}u < len); ll${r} += s${r}_${t};`);
    text.push(`l${r} = l${r} * keep${r} + ll${r};`);
  }
  text.push(accumulate(plan, [['sum_o', 's', 'v']], 'keep'), '}');
  for (const r of range(own)) {
    text.push(`let inv${r} = select(0.0, 1.0 / l${r}, len > 0u);
if (own${r} < p.N) { lse[bh * p.N + own${r}] = select(${LOWEST}, m${r} + log(max(l${r}, 1e-37)), len > 0u); }`);
  }
  return [...text, store(plan, 'p.N', ['o'], (r) => ` * inv${r}`)].join('\n');
}

/** dS = P ∘ (dO Vᵀ − delta) · scale with P = exp(S − lse), in place of s (P) and e (dO Vᵀ). */
function probabilities(
  plan: AttentionPlan,
  stat: (r: number, t: number) => string,
  valid: (r: number, t: number) => string,
): string {
  return range(plan.own)
    .flatMap((r) =>
      range(plan.others).map(
        (t) => `{ let st = ${stat(r, t)};
s${r}_${t} = select(0.0, exp(s${r}_${t} * scale - st.x), ${valid(r, t)}); e${r}_${t} = s${r}_${t} * (e${r}_${t} - st.y) * scale; }`,
      ),
    )
    .join('\n');
}

export function gradQueryMain(plan: AttentionPlan, lengths: boolean): string {
  return [
    prologue(lengths),
    ownPlaces(plan, 'p.N'),
    sums(plan, ['dq']),
    ...range(plan.own).map((r) => `let stat${r} = stats[bh * p.N + min(own${r}, p.N - 1u)];`),
    `for (var t0 = 0u; t0 < len; t0 += ${plan.others}u) {`,
    otherPlaces(plan, 'p.L'),
    dots(plan, [
      ['s', 'q', 'k'],
      ['e', 'dy', 'v'],
    ]),
    probabilities(
      plan,
      (r) => `stat${r}`,
      (_, t) => `t0 + ${t}u < len`,
    ),
    accumulate(plan, [['sum_dq', 'e', 'k']]),
    '}',
    store(plan, 'p.N', ['dq'], () => ''),
  ].join('\n');
}

export function gradKeyMain(plan: AttentionPlan, lengths: boolean): string {
  return [
    prologue(lengths),
    ownPlaces(plan, 'p.L'),
    sums(plan, ['dk', 'dv']),
    'let end = select(0u, p.N, first < len);',
    // `&`, never `&&`: a branch for each score made one CPU driver compile for minutes.
    ...range(plan.own).map((r) => `let mine${r} = own${r} < len;`),
    `for (var t0 = 0u; t0 < end; t0 += ${plan.others}u) {`,
    otherPlaces(plan, 'p.N'),
    ...range(loads(plan)).map((j) => `let stat${j} = stats[bh * p.N + i${j}];`),
    dots(plan, [
      ['s', 'k', 'q'],
      ['e', 'v', 'dy'],
    ]),
    ...range(plan.others).map((t) => `let st${t} = ${share(plan, 'stat', t)};`),
    probabilities(
      plan,
      (_, t) => `st${t}`,
      (r, t) => `mine${r} & (t0 + ${t}u < p.N)`,
    ),
    accumulate(plan, [
      ['sum_dk', 'e', 'q'],
      ['sum_dv', 's', 'dy'],
    ]),
    '}',
    store(plan, 'p.L', ['dk', 'dv'], () => ''),
  ].join('\n');
}

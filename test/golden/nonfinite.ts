/**
 * What NaN and infinity become, beside PyTorch. WGSL promises nothing about them, so a difference
 * is told and is no failure, except where numbers must stay numbers.
 */
import type { Executor } from './executor.ts';
import type { Attrs, Case, Fixture, Verdict } from './format.ts';
import { runOp } from './ops.ts';

/** The reference's short names with what the op table calls them. */
const OPS: Record<string, { op?: string; attrs: Attrs }> = {
  clamp_m1_p1: { op: 'clamp', attrs: { min: -1, max: 1 } },
  var0: { op: 'var', attrs: { axes: [-1], correction: 0 } },
  softmax: { attrs: { axis: -1 } },
  mean: { attrs: { axes: [-1] } },
  amax: { attrs: { axes: [-1] } },
  cumsum: { attrs: { axis: 1 } },
  layer_norm: { attrs: { eps: 1e-5 } },
  attention: { attrs: { scale: 1 / Math.sqrt(8) } },
  where: { op: 'where_one', attrs: {} },
};

/**
 * Cases in which every finite element of the reference must be met: a mask, the padding of a tile or the T5 mask must not let NaN through.
 */
const FIRM = ['where_unselected_nan', 'matmul', 'softmax_all_finfo_min', 'matmul_k0', 'sum_empty'];

const CLASSES = ['finite', '+Inf', '-Inf', 'NaN'];
const classOf = (v: number): number => (Number.isNaN(v) ? 3 : v === Infinity ? 1 : v === -Infinity ? 2 : 0);

export async function nonfiniteCase(fixture: Fixture, c: Case, executor: Executor): Promise<Verdict> {
  const { op = c.op!, attrs } = OPS[c.op!] ?? { attrs: { axes: [c.name === 'sum_empty' ? 0 : -1] } };
  const got = (await runOp(fixture, { ...c, op, attrs }, executor))['out/y']!.data;
  const expected = fixture.get(`${c.name}/out/y`).data,
    classes = fixture.get(`${c.name}/class`).data;
  const { atol = 0, rtol = 0 } = fixture.entry.tensors[`${c.name}/out/y`]!;
  const differences = new Map<string, number>();
  let wrong = 0;
  for (let i = 0; i < expected.length; i++) {
    const mine = classOf(got[i]!),
      same = mine === classes[i]!;
    if (same && (mine !== 0 || Math.abs(got[i]! - expected[i]!) <= atol + rtol * Math.abs(expected[i]!))) continue;
    if (classes[i] === 0) wrong++;
    const what = `${CLASSES[mine]} for ${same ? 'another number' : CLASSES[classes[i]!]}`;
    differences.set(what, (differences.get(what) ?? 0) + 1);
  }
  if (!differences.size) return { status: 'pass', note: `${expected.length} elements are what PyTorch gives` };
  const note = [...differences].map(([what, n]) => `${n} ${what}`).join(', ');
  return FIRM.includes(c.name) && wrong
    ? { status: 'fail', note }
    : { status: 'skip', note: `advisory, ran: of ${expected.length} elements ${note}` };
}

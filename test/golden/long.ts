/** Reductions of a million values that a formula gives, so that nothing is stored. */
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { host } from '../../engine/frontend/tree.ts';
import type { Executor } from './executor.ts';
import type { Case, Fixture, Verdict } from './format.ts';

/** The manifest's integer hash as a fraction of 24 bits, exact in f32. */
function fraction(i: number, seed: number): number {
  let h = (i + seed) >>> 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b) >>> 0;
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35) >>> 0;
  return ((h ^ (h >>> 16)) >>> 8) / 2 ** 24;
}

interface Values<T> {
  u: T;
  w: T;
  x: T;
}

const REDUCTIONS: Record<string, (v: Values<Tensor>) => Tensor> = {
  sum_u: ({ u }) => u.sum(),
  sum_centered: ({ u }) => u.sub(0.5).sum(),
  sum_u_w_dot: ({ u, w }) => u.mul(w).sum(),
  mean_u: ({ u }) => u.mean(),
  var0_u: ({ u }) => u.sub(u.mean()).square().mean(),
  l2norm_u: ({ u }) => u.square().sum().sqrt(),
  max_u: ({ u }) => u.amax(),
  min_u: ({ u }) => u.neg().amax().neg(),
  sum_cancelling: ({ x }) => x.sum(),
  logsumexp_u: ({ u }) => u.exp().sum().log(),
};

export async function longCase(fixture: Fixture, c: Case, executor: Executor): Promise<Verdict> {
  const reduce = REDUCTIONS[c.name];
  if (!reduce) return { status: 'skip', note: 'this reduction is not in the table' };
  const { n, seed_u, seed_w } = fixture.entry['formula'] as Record<'n' | 'seed_u' | 'seed_w', number>;
  const u = Float32Array.from({ length: n }, (_, i) => fraction(i, seed_u)),
    w = Float32Array.from({ length: n }, (_, i) => fraction(i, seed_w));
  if (fixture.get('first_u').data.some((v, i) => v !== u[i]))
    return { status: 'fail', note: 'the formula gives other values than the file' };
  const x = u.map((v, i) => (i % 4 === 0 ? 1e4 + v : i % 4 === 2 ? -1e4 - w[i]! : v * 0.01));
  const { y } = await executor.run((v) => ({ y: reduce(v) }), { u: host(u, [n]), w: host(w, [n]), x: host(x, [n]) });
  const { value, atol } = (fixture.entry['expected'] as Record<string, { value: number; atol: number }>)[c.name]!;
  const error = Math.abs(y!.data[0]! - value);
  return error <= atol
    ? { status: 'pass', note: atol ? `${((100 * error) / atol).toFixed(1)} % of the tolerance` : 'exact' }
    : { status: 'fail', note: `got ${y!.data[0]}, expected ${value} ± ${atol}` };
}

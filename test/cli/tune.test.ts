/** Which configuration the tuner keeps: the fastest that is right, and only if it is clearly faster than the rule. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { Trial } from '../../cli/tune/child.ts';
import { insisting, programOf, recorder, type Seen } from '../../cli/tune/problems.ts';
import { search } from '../../cli/tune/search.ts';
import { attention, conv3d, matmul } from '../../kernels/index.ts';
import type { Caps } from '../../kernels/kernel.ts';
import { planMatmul, type MatmulProblem } from '../../kernels/matmul/plan.ts';

const caps: Caps = {
  tier: 'tiled',
  f16: true,
  subgroup: 32,
  maxInvocations: 256,
  maxWorkgroupBytes: 16384,
  maxStorageBuffers: 8,
  maxBindingBytes: 2 ** 27,
};
const problem: MatmulProblem = {
  batch: 2,
  M: 96,
  N: 40,
  K: 64,
  transA: true,
  transB: false,
  dtypeA: 'f32',
  dtypeB: 'f32',
  access: ['read', 'read'],
};
const signal = new AbortController().signal;

/** A problem of four configurations, of which `speed` tells milliseconds, a wrong answer, or a crash. */
function trying(speed: Record<string, number | 'wrong' | 'crash'>) {
  const options = Object.keys(speed).map((name) => ({ name }));
  const seen = {
    family: 'softmax',
    shape: 'x',
    problem: { rows: 1, cols: 1, access: [] },
    rule: options[0]!,
    options,
    count: 1,
  } as unknown as Seen;
  const tried: string[] = [];
  const trial = async (_s: Seen, _f: number, config: object): Promise<Trial> => {
    const { name } = config as { name: string };
    tried.push(name);
    const ms = speed[name]!;
    if (ms === 'crash') throw new Error('it was ended by SIGSEGV');
    return { error: ms === 'wrong' ? 0.1 : 1e-7, firstMs: 1, samples: [{ ms: ms === 'wrong' ? 0 : ms, cpuMs: 0 }] };
  };
  return { tried, found: search({ trial, best: (s) => Math.min(...s.map((x) => x.ms)) }, caps, seen, 1, signal) };
}

test('the fastest right one wins; wrong and crashing ones are named', async () => {
  const { winner, ruleMs, ms, bad } = await trying({ rule: 10, wrong: 'wrong', crash: 'crash', fast: 5 }).found;
  assert.equal(winner, { name: 'fast' });
  assert.equal([ruleMs, ms], [10, 5]);
  assert.equal(bad, ['{"name":"wrong"}: wrong by 1.0e-1', '{"name":"crash"}: it was ended by SIGSEGV']);
});

test('the rule stands unless another is clearly faster', async () => {
  assert.equal((await trying({ rule: 10, other: 9.3 }).found).winner, { name: 'rule' });
  assert.equal((await trying({ rule: 10, other: 9 }).found).winner, { name: 'other' });
});

test('a rule that is wrong here is replaced; the leaders run twice', async () => {
  const { tried, found } = trying({ rule: 'wrong', a: 5, b: 4 });
  assert.equal((await found).winner, { name: 'b' });
  assert.equal(tried, ['rule', 'a', 'b', 'b', 'a']);
});

test('what planners ask is noted once a class, can be fed, and one answer leaves the others alone', () => {
  const { tuning, seen } = recorder();
  const watched = { ...caps, tuning };
  matmul(watched, problem);
  matmul(watched, { ...problem, M: 100 });
  conv3d(watched, {
    N: 1,
    C: 4,
    O: 8,
    in: [3, 9, 9],
    out: [3, 5, 5],
    kernel: [3, 3, 3],
    stride: [1, 2, 2],
    padLo: [2, 1, 1],
    access: 'read',
  });
  attention(
    { ...watched, tier: 'scalar', subgroup: 8 },
    { B: 1, N: 20, L: 30, H: 2, D: 16, scale: 0.25, lengths: true, access: ['read', 'read', 'read', 'read'] },
  );
  const all = [...seen.values()];
  assert.equal(
    all.map((s) => [s.family, s.count]),
    [
      ['matmul', 2],
      ['conv3d', 1],
      ['attention', 1],
    ],
  );
  assert.equal(
    all.map((s) => programOf(s.family, s.problem)!.inputs.map((i) => i.shape.join('x'))),
    [
      ['2x64x96', '2x64x40'],
      ['1x4x3x9x9', '8x4x3x3x3'],
      ['1x20x2x16', '1x30x2x16', '1x30x2x16', '1'],
    ],
  );
  const [first] = all;
  const other = first!.options.find((o) => JSON.stringify(o) !== JSON.stringify(first!.rule))!;
  const forced = { ...caps, tuning: insisting('matmul', first!.shape, other) };
  assert.equal(planMatmul(forced, problem).config, other);
  assert.equal(planMatmul(forced, { ...problem, M: 512 }).config, planMatmul(caps, { ...problem, M: 512 }).config);
});

test.run();

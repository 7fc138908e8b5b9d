/** A session's parts: one that fails or does not end takes nothing from the others, and what there is of it is kept. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { runParts, type Outcome, type Part } from './parts.ts';
import { BENCH, blockName, counts, rowOf, TESTS } from './row.ts';

const part = (name: string, script: string, share = 1): Part => ({ name, share, run: () => ['-e', script] });

test('a part that fails, hangs or cannot be run does not end the rest', async () => {
  const heard: Outcome[] = [];
  const parts = [
    part('whole', 'console.error("working"); console.log(JSON.stringify({ ms: 3 }))'),
    part('failing', 'console.log("[tensor] no"); process.exit(3)'),
    // It starts another, ignores that it shall stop, and is ended together with it.
    part(
      'hanging',
      `const { spawn } = require('node:child_process');
       const inner = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)']);
       console.log(inner.pid); process.on('SIGINT', () => {}); setInterval(() => {}, 1000)`,
      0.05,
    ),
    { name: 'none', share: 1, run: { not: 'no folder' } },
    part('last', 'console.log(1)'),
  ];
  const began = performance.now();
  await runParts(parts, began + 120_000, (outcome) => void heard.push(outcome));
  assert.equal(
    heard.map(({ name, ok, reason }) => [name, ok, reason?.replace(/\d+ s/, 'N s')]),
    [
      ['whole', true, undefined],
      ['failing', false, 'exit code 3'],
      ['hanging', false, 'stopped after N s'],
      ['none', false, 'not run: no folder'],
      ['last', true, undefined],
    ],
  );
  const [whole, failing, hanging, , last] = heard as [Outcome, Outcome, Outcome, Outcome, Outcome];
  assert.equal([whole.result, last.result], [{ ms: 3 }, 1]);
  assert.equal(whole.said.toSorted(), ['working', '{"ms":3}']);
  assert.equal([failing.result, failing.said], [undefined, ['[tensor] no']]);
  assert.ok(performance.now() - began < 120_000, 'within the time given to all');
  assert.throws(() => process.kill(Number(hanging.said[0]), 0), /ESRCH/);
});

test("a part's limit is its share of what is left", async () => {
  const limits: number[] = [];
  const parts = [1, 3].map((share): Part => ({ name: String(share), share, run: () => ['-e', ''] }));
  await runParts(parts, performance.now() + 100_000, ({ limit }) => void limits.push(Math.round(limit)));
  assert.ok(Math.abs(limits[0]! - 25) <= 1 && limits[1]! > 85, limits.join());
});

test('a row says what was measured, and leaves out what was not', () => {
  const outcome = (name: string, last: string, result?: unknown): Outcome => {
    return { name, ok: true, seconds: 1, limit: 2, said: ['ok   a.test.ts  2/2', last], result };
  };
  const described = { info: { name: 'a card', driver: 'its driver 1.2' } };
  const bench = {
    kind: 'gpu',
    roofline: { gflops: 10_000, f16gflops: 20_000 },
    comparisons: [
      { work: 'matmul 1024', flops: 2e9, contenders: [{ engine: 'ours', wrong: false, bestMs: 0.5 }] },
      { work: 'attention', flops: 2e9, contenders: [{ engine: 'ours', wrong: true, bestMs: 0.5 }] },
    ],
    verdicts: [{ work: 'matmul 1024', what: 'of torch on CUDA', best: 0.8 }],
  };
  const parts = [
    outcome(TESTS[0], '412 passed, 1 failed'),
    outcome(TESTS[1], 'ok   b.test.ts  3/3'), // it was stopped
    outcome(BENCH, '', bench),
    outcome(blockName('sample', 'f16'), '', { results: [{ ms: 1234 }] }),
    outcome(blockName('teacher', 'f32'), '', { results: [] }), // refused: it did not fit
  ];
  assert.equal([counts(parts[0]), counts(parts[1])], ['412/1', undefined]);
  assert.is(
    rowOf({ described, parts }),
    '| a card, its driver 1.2 | 412/1, –, – | 10000 / 20000 | 4000 (0.800) | – | – | – / 1.23 | – / – |',
  );
  assert.is(rowOf({ described: undefined, parts: [] }), '| – | –, –, – | – | – | – | – | – / – | – / – |');
});

test.run();

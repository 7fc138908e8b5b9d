/**
 * The arithmetic behind `bench`: statistics, ceilings, what is left out, comparison with
 * an earlier run; and the command itself on one small shape.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { against } from '../../cli/bench/baseline.ts';
import { clockOf, CORES, summary } from '../../cli/bench/clock.ts';
import type { Report, Result } from '../../cli/bench/report.ts';
import { bandwidth, leastMs, type Roofline } from '../../cli/bench/roofline.ts';
import { latentOf, SHAPES, tokensOf } from '../../cli/bench/shapes.ts';
import { shortfall, verdicts } from '../../cli/bench/targets.ts';
import type { Contender } from '../../cli/bench/compare.ts';
import { errorOf } from '../../cli/bench/works.ts';
import { openAdapter } from '../../engine/host/adapter.ts';
import { vpae } from './run.ts';

const ROOF: Roofline = {
  gflops: 100,
  f16gflops: 400,
  hostGbs: 5,
  copies: [
    { bytes: 2 ** 19, gbs: 40 },
    { bytes: 2 ** 23, gbs: 10 },
    { bytes: 2 ** 26, gbs: 20 },
  ],
};

test('medians, best and quartiles', () => {
  const times = summary(
    { ms: 50, cpuMs: 60 },
    [5, 1, 4, 2, 3].map((ms) => ({ ms, cpuMs: 10 * ms })),
  );
  assert.equal(times, { firstMs: 50, firstCpuMs: 60, ms: 3, bestMs: 1, cpuMs: 30, bestCpuMs: 10, spread: 1 / 3 });
  assert.is(clockOf('gpu').typical(times), 3);
  assert.is(clockOf('software').typical(times), 30 / CORES);
});

test('a ceiling is the best copy of that size or a larger one', () => {
  assert.equal(
    [1, 2 ** 20, 2 ** 24, 2 ** 30].map((bytes) => bandwidth(ROOF, bytes)),
    [40, 40, 20, 20],
  );
  assert.is(leastMs(ROOF, { flops: 1e9, traffic: 0 }), 10);
  assert.is(leastMs(ROOF, { flops: 1e9, traffic: 0, half: true }), 2.5);
  assert.is(leastMs(ROOF, { flops: 0, traffic: 2e9 }), 100);
});

test('named shapes are those of the models', () => {
  const wan = SHAPES['wan2.1-1.3b']!();
  assert.equal(latentOf(wan), [21, 60, 104]);
  assert.is(tokensOf(wan), 32760);
  assert.is(tokensOf(SHAPES['digits']!()), 48);
});

test('a baseline compares by the clock of both', () => {
  const result = (ms: number, cpuMs: number, name = 'a'): Result => ({
    of: 's',
    name,
    shape: 'x',
    ms,
    cpuMs,
    firstMs: 1,
    firstCpuMs: 1,
    bestMs: ms,
    bestCpuMs: cpuMs,
    spread: 0,
  });
  const report = (clock: Report['clock'], r: Result) => ({ clock, results: [r] }) as unknown as Report;
  const now = report('processor', result(10, 20));
  assert.is(against(report('processor', result(30, 30)), now)(now.results[0]!), 1.5);
  assert.is(against(report('wall', result(30, 30)), now)(now.results[0]!), 3);
  assert.is(against(now, now)(result(1, 1, 'b')), undefined);
});

test('an answer is judged by its largest number; a missing, short or non-finite one is wrong', () => {
  const right = [Float64Array.of(1, -4)];
  assert.is(errorOf([[1, -4]], right), 0);
  assert.is(errorOf([[1.04, -4.02]], right), 0.010000000000000009);
  assert.ok(Number.isNaN(errorOf([[NaN, -4]], right)));
  assert.is(errorOf([[1]], right), Infinity);
  assert.is(errorOf([], right), Infinity);
});

test('a wrong peer is no rival', () => {
  const contender = (engine: Contender['engine'], cpuMs: number, wrong: boolean, on = 'WebGPU'): Contender => ({
    engine,
    version: '',
    on,
    error: 0,
    wrong,
    peakBytes: 0,
    firstMs: 1,
    firstCpuMs: 1,
    ms: cpuMs,
    cpuMs,
    bestMs: cpuMs,
    bestCpuMs: cpuMs,
    spread: 0,
  });
  const contenders = [
    contender('ours', 10, false),
    contender('tfjs', 90, false),
    contender('jax-js', 20, true),
    contender('onnxruntime-node', 1, false, 'CPU'),
  ];
  const found = verdicts([{ work: 'matmul 1024', shape: '', flops: 1, traffic: 1, contenders, failed: [] }], {
    roofline: ROOF,
    kind: 'software',
  });
  assert.equal(
    found.map(({ best, met }) => [best, met]),
    [
      [9, true],
      [0.1, false],
    ],
  );
  assert.match(
    shortfall(found, { kind: 'software' })!,
    /^Missed: matmul 1024 \(0\.1\d* instead of 0\.2\)\. A CPU driver loads/,
  );
  assert.is(shortfall(found.slice(0, 1), { kind: 'software' }), undefined);
  const onCard = verdicts(
    [
      {
        work: 'attention',
        shape: '',
        flops: 1,
        traffic: 1,
        contenders: [contenders[0]!, contender('torch', 4, false, 'CUDA')],
        failed: [],
      },
    ],
    { roofline: ROOF, kind: 'gpu' },
  );
  assert.equal(
    onCard.map(({ what, best, target, met }) => [what, best, target, met]),
    [['of torch on CUDA', 0.4, 0.35, true]],
  );
});

test('the command names what it leaves out, saves, compares, and calls a software adapter one', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'vpae-bench-'));
  const file = join(dir, 'before.json');
  const { info } = await openAdapter();
  const budget = /swiftshader/i.test(info.name) ? '0.05' : '0.005'; // what leaves something in and something out
  const run = await vpae(['bench', 'kernels', '--shapes', 'digits', '--budget', budget, '--save', file, '--json']);
  assert.is(run.code, 0, run.stderr);
  const report = JSON.parse(run.stdout) as Report;
  assert.equal(JSON.parse(readFileSync(file, 'utf8')), report);
  assert.ok(
    report.skipped.some((s) => s.reason.includes(`--budget ${budget}`)),
    'something was left out',
  );
  assert.ok(
    report.results.length &&
      report.results.every((r) => r.ms > 0 && r.firstMs > 0 && r.peak! > 0 && (r.share ?? 1) <= 1.05),
  );
  assert.is(report.clock, report.kind === 'software' ? 'processor' : 'wall');
  const wrong = await vpae(['bench', '--shapes', 'digit']);
  assert.is(wrong.code, 2);
  assert.match(wrong.said.at(-1)!, /did you mean "digits"/);
  rmSync(dir, { recursive: true });
});

test.run();

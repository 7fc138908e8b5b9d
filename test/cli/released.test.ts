/** A released model's steps on made-up weights take the memory that is planned, and what does not fit is told in one line. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { releasedSteps } from '../../cli/bench/released.ts';
import type { Roofline } from '../../cli/bench/roofline.ts';
import { open } from '../../engine/runtime/device.ts';
import { PRECISIONS, type Precision } from '../../model/pipeline/precision.ts';
import { subjectOf } from '../../train/planning/subject.ts';
import { vpae } from './run.ts';

const ROOF: Roofline = { gflops: 100, copies: [{ bytes: 2 ** 26, gbs: 10 }], hostGbs: 5 };
const make = (sets: readonly string[]) =>
  subjectOf('wan2.1-t2v-1.3b', sets, { width: 16, height: 16, frames: 1, layers: 1 });
const device = await open();
const steps = (jobs: readonly ('sample' | 'teacher')[], memory: number, precision: Precision = 'f32') =>
  releasedSteps(
    device,
    ROOF,
    { name: 'wan', make, jobs, precision, memory, budget: 1000 },
    new AbortController().signal,
  );

for (const precision of PRECISIONS) {
  if (precision === 'f32' || device.caps.f16)
    test(`one block of Wan2.1 1.3B is sampled as planned, operands in ${precision}`, async () => {
      const {
        results: [sampled],
      } = await steps(['sample'], Infinity, precision);
      assert.is(sampled!.peak, sampled!.planned!.peak);
      assert.is(device.allocated, 0);
    });
}

test('and with its block in Q4_K', async () => {
  const packed = (sets: readonly string[]) => ({ ...make(sets), packed: 'q4_k' as const });
  const wanted = {
    name: 'wan',
    make: packed,
    jobs: ['sample'],
    precision: 'f32',
    memory: Infinity,
    budget: 1000,
  } as const;
  const { results } = await releasedSteps(device, ROOF, wanted, new AbortController().signal);
  assert.is(results[0]!.peak, results[0]!.planned!.peak);
  assert.match(results[0]!.shape, /blocks in q4_k/);
  assert.is(device.allocated, 0);
});

test('what does not fit is not begun', async () => {
  const { results, skipped } = await steps(['teacher'], 6e8);
  assert.is(results.length, 0);
  assert.match(
    skipped[0]!.reason,
    /^it needs [\d.]+ GB, there are 0.60 GB; nothing makes it fit but a smaller --size, fewer --frames or --layers$/,
  );
});

test('what comes from host memory takes its time: --host-gbps', async () => {
  const seconds = async (gbps: string): Promise<{ seconds: number; streamedBytes: number }> => {
    const size = ['--size', '64x64', '--frames', '1', '--layers', '3'];
    const rates = ['--tflops', '1e6', '--gbps', '1e6', '--host-gbps', gbps, '--json'];
    const job = ['--job', 'priming', '--mode', 'lora', '--offload'];
    const { code, stdout, stderr } = await vpae(['plan', '--preset', 'wan2.1-t2v-1.3b', ...job, ...size, ...rates]);
    assert.is(code, 0, stderr);
    return (JSON.parse(stdout) as [{ seconds: number; streamedBytes: number }])[0];
  };
  const [slow, fast] = [await seconds('1'), await seconds('4')];
  assert.ok(slow.streamedBytes > 1e8);
  assert.ok(slow.seconds >= slow.streamedBytes / 1e9 && slow.seconds < (1.5 * slow.streamedBytes) / 1e9);
  assert.ok(Math.abs(slow.seconds / fast.seconds / 4 - 1) < 0.01, 'the rest takes next to nothing');
});

test.run();

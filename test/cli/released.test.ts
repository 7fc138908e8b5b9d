/** A released model's steps on made-up weights take the memory that is planned, and what does not fit is told in one line. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { releasedSteps } from '../../cli/bench/released.ts';
import type { Roofline } from '../../cli/bench/roofline.ts';
import { open } from '../../engine/device.ts';
import { subjectOf } from '../../train/planning/subject.ts';

const ROOF: Roofline = { gflops: 100, copies: [{ bytes: 2 ** 26, gbs: 10 }] };
const make = (sets: readonly string[]) => subjectOf('wan2.1-t2v-1.3b', ['student.mode=lora', 'phase2.head.dim=64', ...sets], { width: 16, height: 16, frames: 1, layers: 1 });

test('one block of Wan2.1 1.3B: sampled and trained as planned, a step of all weights refused', async () => {
  const device = await open();
  const { results, skipped } = await releasedSteps(device, ROOF, { name: 'wan', make, jobs: ['sample', 'equilibrium', 'teacher'], memory: 6e8, budget: 1000 }, new AbortController().signal);
  assert.equal(results.map((r) => r.name), ['sampling, an evaluation under both texts', 'equilibrium step']);
  for (const { name, peak, planned } of results) assert.is(peak, planned!.peak, name);
  assert.is(skipped.length, 1);
  assert.match(skipped[0]!.reason, /^it needs [\d.]+ GB, there are 0.60 GB; nothing makes it fit but a smaller --size, fewer --frames or --layers$/);
  assert.is(device.allocated, 0);
});

test.run();

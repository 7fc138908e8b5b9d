/**
 * The child of run.ts: compiles kernels for the adapter that the environment names, and runs
 * none of them. Markers on stderr stand between the driver's dumps.
 */
import { writeSync } from 'node:fs';
import { open } from '../../../engine/runtime/device.ts';
import { serve } from '../../common/child.ts';
import { caseKernels, stepKernels } from './cases.ts';
import type { Compiled } from './kernel.ts';
import { marker, type Answer, type Question } from './marks.ts';

const STDERR = 2;

const threadsOf = (wgsl: string): number =>
  /@workgroup_size\((.*?)\)/
    .exec(wgsl)![1]!
    .split(',')
    .reduce((product, n) => product * Number(n), 1);

serve(async ({ only, steps }: Question): Promise<Answer> => {
  const device = await open();
  const pattern = new RegExp(only, 'i');
  const seen = new Set<string>();
  const kernels: Omit<Compiled, 'dump'>[] = [];
  const { caps, maxBufferBytes } = device;
  for (const { name, dispatches } of steps ? stepKernels(caps, maxBufferBytes, steps) : caseKernels(caps)) {
    for (const { label, wgsl, params } of dispatches) {
      if (seen.has(wgsl) || !(pattern.test(name) || pattern.test(label))) continue;
      seen.add(wgsl);
      writeSync(STDERR, marker(kernels.length, 'begin'));
      const error = await device.pipeline(wgsl, label).then(
        () => undefined,
        (e: unknown) => (e as Error).message.split('\n')[0]!,
      );
      writeSync(STDERR, marker(kernels.length, 'end'));
      kernels.push({ name, label, threads: threadsOf(wgsl), wgsl, params, ...(error !== undefined && { error }) });
    }
  }
  return { adapter: device.info.name, driver: device.info.driver, kernels };
});
